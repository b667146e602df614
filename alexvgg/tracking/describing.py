"""What MLflow shows of a run, from what the storage says: the same while it trains and when MLflow is filled later."""

import json
from collections.abc import Mapping
from typing import Any

from alexvgg.architectures import LAYOUTS
from alexvgg.config import PAPER_DATASET, RunSpec, to_dict
from alexvgg.data.documents import read_document
from alexvgg.data.store import Store
from alexvgg.init import LayerOrigin, format_report
from alexvgg.keys import final_weights_key, provenance_folder, transplant_key
from alexvgg.tracking.remote import Description, FinalModel, UsedDataset

SHOWN_PACKAGES = ("torch", "torchvision", "ray", "mlflow", "numpy")


def describe_run(storage: Store, spec: RunSpec) -> Description:
    """A run that has started."""
    last = read_provenance(storage, spec.name)
    origins = read_transplant(storage, spec.name)
    texts = {
        "spec.json": json.dumps(to_dict(spec), indent=2),
        "transplant.txt": format_report([LayerOrigin(**o) for o in origins]),
        "provenance.json": json.dumps(last, indent=2),
    }
    if diff := (last.get("git") or {}).get("diff"):
        texts["uncommitted.diff"] = diff
    return Description(
        name=spec.name,
        params=params_of(spec),
        tags={
            "alexvgg.parent": spec.parent.run if spec.parent else "",
            "alexvgg.comparable": _comparable(spec),
            **_tags(last),
        },
        texts=texts,
        dataset=UsedDataset(spec.data.dataset, spec.data.fingerprint, str(last.get("dataset_url", ""))),
        parent=spec.parent.run if spec.parent else None,
    )


def describe_fusion(document: Mapping[str, Any], name: str) -> Description:
    """A row that is the mean of several runs."""
    fused = {f"alexvgg.fused.{n}": m["run"] for n, m in enumerate(document["members"])}
    return Description(name, {"method": document["method"]}, fused)


def final_model(storage: Store, spec: RunSpec, sha256: str) -> FinalModel:
    """The weights that a run ended with."""
    return FinalModel(sha256, f"{storage.url}/{final_weights_key(spec.name)}")


def read_provenance(storage: Store, run: str) -> dict[str, Any]:
    """What is known of the code and the machines of a run's last attempt; empty for runs that noted nothing."""
    prefix = provenance_folder(run)
    stems = (key.removeprefix(prefix).removesuffix(".json") for key in storage.list(prefix))
    attempts = [int(stem) for stem in stems if stem.isdecimal()]
    return read_document(storage, f"{prefix}{max(attempts)}.json", dict) if attempts else {}


def read_transplant(storage: Store, run: str) -> list[dict[str, Any]]:
    """Where each layer's first weights came from; empty if the run hasn't started."""
    key = transplant_key(run)
    return read_document(storage, key, list) if storage.exists(key) else []


def params_of(spec: RunSpec) -> dict[str, Any]:
    """A spec as MLflow params; S is named as the paper names it."""
    scale = spec.data.train_scale
    return {
        "recipe": spec.recipe, "model": spec.model.name, "dataset": spec.data.dataset,
        "train.S": scale if isinstance(scale, int) else f"[{scale[0]};{scale[1]}]",
        "test.Q": " ".join(",".join(map(str, row)) for row in spec.test_scales),
        "parent": spec.parent.run if spec.parent else "none",
        "init": spec.first_weights,
        "init.std": spec.init.std, "model.width": spec.model.width, "model.crop": spec.model.crop,
        **{f"train.{k}": v for k, v in to_dict(spec.train).items()},
    }  # fmt: skip


def _comparable(spec: RunSpec) -> str:
    """Whether its errors may be read against the paper's. (Tables look at the dataset's size and the training, too.)"""
    m, crop, reasons = spec.model, LAYOUTS[spec.model.name].crop, []
    if spec.data.dataset != PAPER_DATASET:
        reasons.append(f"the images are {spec.data.dataset}, not ILSVRC-2012")
    if m.crop != crop:
        reasons.append(f"the crop is {m.crop} pixels, not {crop}")
    if m.width != 1:
        reasons.append(f"the net is {m.width:g} times as wide")
    return f"not with the paper: {'; '.join(reasons)}" if reasons else "with the paper"


def _tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    """What may differ between attempts."""
    git, hosts, packages = (provenance.get(key) or {} for key in ("git", "hosts", "packages"))
    devices = sorted({h["gpu"] or h["cpu"] for h in hosts})
    known = {
        "mlflow.source.name": provenance.get("command"),
        "mlflow.source.type": "JOB" if provenance.get("ray_job") else "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "alexvgg.uncommitted": git.get("diff_sha256"),
        "alexvgg.lock": (provenance.get("lock_sha256") or "")[:12],
        "alexvgg.packages": ", ".join(f"{name} {packages[name]}" for name in SHOWN_PACKAGES if name in packages),
        "alexvgg.attempt": provenance.get("attempt"),
        "alexvgg.ray_job": provenance.get("ray_job"),
        "alexvgg.workers": provenance.get("workers"),
        "alexvgg.hosts": len(hosts) or None,
        "alexvgg.device": ", ".join(devices),
    }
    return {key: str(value) for key, value in known.items() if value}
