"""Evaluation of finished runs: the same function in a plain process, under torchrun, under Ray."""

from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch

from alexvgg.config import Execution, RunSpec
from alexvgg.data.loader import decoding_threads
from alexvgg.data.mean import mean_of
from alexvgg.data.progress import Say
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.engine import checkpoint
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.evaluation.scoring import Member, Row, record, score
from alexvgg.keys import final_weights_key
from alexvgg.models import Net, build
from alexvgg.request import Request, check_once
from alexvgg.results.paper import cells
from alexvgg.runs import Finished, find_finished
from alexvgg.tracking.describing import describe_fusion, describe_run
from alexvgg.tracking.journal import cells_event
from alexvgg.tracking.sink import send_once


def plan_rows(request: Request, runs: Sequence[Finished], fingerprint: str) -> list[Row]:
    """The rows that a request fills: one for each run, or one for all of them, in whatever order they are named.

    Raises InputError if a run was trained on other images than `fingerprint`'s, or is named twice, cut short or not.
    """
    check_once("run", [run.name for run in runs])
    for run in runs:
        if run.spec.data.fingerprint != fingerprint:
            raise InputError(
                f"{run.name} was trained on the dataset with fingerprint {run.spec.data.fingerprint[:12]}…, this one "
                f"has {fingerprint[:12]}…: its errors here would mean nothing"
                + (", and nets of different classes can't be fused" if request.fuse else "")
                + ". Name runs of one dataset, and its URL with --dataset."
            )
    members = [Member(r.name, r.weights, tuple(sorted(request.test_scales or r.spec.test_scales[-1]))) for r in runs]
    groups = [sorted(members, key=lambda m: m.run)] if request.fuse else [[m] for m in members]
    return [Row(request.method, tuple(group), fingerprint) for group in groups]


def evaluate(request: Request, execution: Execution, world: World, say: Say = lambda _: None) -> list[dict[str, Any]]:
    """Evaluate finished runs and store the rows' documents. Every rank calls this; rank 0 gets the documents.

    What is stored of an earlier evaluation isn't computed again. How far it is is said by every rank, of its own part.
    Raises InputError for a run that isn't there, isn't finished, or is of another dataset.
    """
    storage = open_store(execution.storage_url)
    runs = [find_finished(storage, name) for name in request.runs]
    dataset = open_dataset(open_store(execution.dataset_url))
    rows = plan_rows(request, runs, dataset.fingerprint)
    nets = {run.name: load_net(storage, run, world.device) for run in runs}
    means = {run.name: mean_of(dataset, run.spec.data.mean, run.spec.model.crop) for run in runs}
    undecodable = Undecodable(dataset.store.url)
    score(
        nets, rows, dataset, storage, world,
        decode_threads=decoding_threads(execution.decode_threads), undecodable=undecodable, means=means,
        say=say,
    )  # fmt: skip
    if world.rank != 0:
        return []
    documents = [record(storage, row) for row in rows]
    if execution.mlflow_url is not None:
        for row, document in zip(rows, documents, strict=True):
            _track(execution.mlflow_url, storage, row, {r.name: r.spec for r in runs}, document)
    return documents


def load_net(storage: Store, run: Finished, device: torch.device) -> Net:
    """The net with the run's final weights. Raises DamagedError if their bytes changed."""
    m = run.spec.model
    net = build(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop)
    data = checkpoint.verified(storage, final_weights_key(run.name), run.weights)
    net.load_state_dict(safetensors.torch.load(data))
    layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
    return net.to(device).to(memory_format=layout).eval()


def _track(url: str, storage: Store, row: Row, specs: Mapping[str, RunSpec], document: Mapping[str, Any]) -> None:
    """Log the table cells that a row fills: to the run's own MLflow run, or to one of the fusion's."""
    filled = cells({name: spec.recipe for name, spec in specs.items()}, [document])
    if not filled:
        return
    alone = specs.get(row.name)
    description = describe_run(storage, alone) if alone is not None else describe_fusion(document, row.name)
    send_once(url, description, [cells_event(document, filled)])


def describe(document: Mapping[str, Any]) -> str:
    """A row's document in a line."""
    names = " + ".join(f"{m['run']} at Q={','.join(map(str, m['test_scales']))}" for m in document["members"])
    if not document["images"]:
        return f"{names}, {document['method']}: no image could be decoded"
    return (
        f"{names}, {document['method']}: top-1 error {document['top1_error']:.2f} %, "
        f"top-5 error {document['top5_error']:.2f} % of {document['images']} images"
    )
