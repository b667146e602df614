"""torchvision's weights as a finished run, from which others can start."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from alexvgg.config import Imported, RunSpec, to_dict
from alexvgg.data.documents import encode
from alexvgg.data.shards import read_intact
from alexvgg.data.store import Store
from alexvgg.errors import InputError
from alexvgg.init import LayerOrigin, transplant
from alexvgg.keys import final_record_key, final_weights_key, journal_key, spec_key, transplant_key
from alexvgg.models import build
from alexvgg.models.torchvision_weights import TWINS, from_torchvision, take_pixels
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.tracking.journal import Journal

SOURCES = {f"torchvision:{theirs}": ours for ours, theirs in TWINS.items()}


def import_weights(source: str, file: Path, dataset: Store, storage: Store) -> RunSpec:
    """Store a run with the weights of `file`, converted to the dataset's mean colour, and return its spec.

    `source` is one of SOURCES. The same file gives the same run. Raises InputError if the file holds no such weights,
    weights that aren't finite, or weights for another number of classes.
    """
    about = read_intact(dataset)
    data = file.read_bytes()
    images = Images(about["name"], len(about["classes"]), about["fingerprint"])
    spec = imported_spec(source, hashlib.sha256(data).hexdigest(), images)
    state = from_torchvision(spec.model.name, read_state(data, file))
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise InputError(
            f"{file} has weights that aren't numbers, as torchvision's IMAGENET1K_FEATURES, which have no classifier; "
            "take IMAGENET1K_V1"
        )
    if (classes := len(state["classifier.fc8.bias"])) != images.classes:
        raise InputError(f"{file} tells {classes} classes apart, {images.name} at {dataset.url} has {images.classes}")
    m = spec.model
    with torch.device("meta"):
        net = build(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop)
    weights, origins = transplant(take_pixels(state, about["mean_rgb"]), net.state_dict(), layers=None)
    _store(storage, spec, weights, origins)
    return spec


def imported_spec(source: str, sha256: str, images: Images) -> RunSpec:
    """The twin's spec, but for what isn't known: how it was trained. Its recipe's name keeps it out of all tables."""
    model = SOURCES[source]
    twin = plan_runs([RECIPES[f"{model}-s256"]], images, GEOMETRIES["paper"], init="random")[-1]
    return replace(
        twin,
        recipe=source.replace(":", "-"),
        train=replace(twin.train, epochs=0, max_steps=None),
        imported=Imported(source, sha256),
    )


def read_state(data: bytes, file: Path) -> Mapping[str, Tensor]:
    """A state dict in a .safetensors file, or in one of torch.save's, of which only tensors are read."""
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load(data)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many types on other files
        raise InputError(
            f"{file} can't be read as weights ({type(error).__name__}): it must be a .safetensors file, or one that "
            "torch.save(net.state_dict(), …) wrote"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{file} holds no state dict: save `net.state_dict()`, not the net or a checkpoint around it")
    return state


def _store(storage: Store, spec: RunSpec, weights: Mapping[str, Tensor], origins: list[LayerOrigin]) -> None:
    """As training leaves a finished run behind: `final/record.json` comes last."""
    data = safetensors.torch.save(dict(weights))
    storage.put_new(spec_key(spec.name), encode(to_dict(spec)))
    storage.put_new(transplant_key(spec.name), encode([asdict(o) for o in origins]))
    journal = Journal(storage, journal_key(spec.name))
    if not journal.events:
        journal.write("final", 0, metrics={})
        journal.flush()
    storage.put(final_weights_key(spec.name), data)
    record = {"run": spec.name, "step": 0, "sha256": hashlib.sha256(data).hexdigest(), "undecodable": {}}
    storage.put(final_record_key(spec.name), encode(record))
