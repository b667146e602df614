"""One run from spec to table cells, in one process and in several."""

import hashlib
import json
import multiprocessing
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from processes import free_port
from smalldata import members_of, pack

import alexvgg.run as run
from alexvgg.attempts import Attempt, Claim, SupersededError
from alexvgg.config import Execution, Parent, RunSpec
from alexvgg.data.loader_processes import LoaderProcesses
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.engine.guards import TooLargeError
from alexvgg.engine.saver import UploadError
from alexvgg.engine.step import Updater
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import DamagedError, InputError
from alexvgg.evaluation import scoring
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.results.report.curves import cards, overview
from alexvgg.runs import read_run
from alexvgg.tracking.describing import read_provenance
from alexvgg.tracking.provenance import remember_code

ALONE = World(0, 1, torch.device("cpu"))
QUICK = {"test_scales": "[[224]]", "train.epochs": "3"}


def spec_of(dataset: Dataset, recipe: str = "vgg_a-s256", **overrides: str) -> RunSpec:
    settings = QUICK | {key.replace("__", "."): value for key, value in overrides.items()}
    return plan_runs([RECIPES[recipe]], images_of(dataset), GEOMETRIES["small"], overrides=settings)[-1]


@pytest.fixture
def execution(digits_url: str, tmp_path: Path) -> Execution:
    return Execution(digits_url, (tmp_path / "storage").as_uri())


def sample_log(folder: Path) -> dict[int, tuple[list[int], float]]:
    """Step -> (the global batch's sample ids, sorted; the loss summed over ranks)."""
    steps: dict[int, tuple[list[int], float]] = {}
    for file in sorted(folder.iterdir()):
        for line in map(json.loads, file.read_text().splitlines()):
            samples, loss = steps.get(line["step"], ([], 0.0))
            steps[line["step"]] = (sorted(samples + line["samples"]), loss + line["loss"])
    return steps


def launched(ranks: int, digits_url: str, folder: Path, exchange: str = "auto") -> dict[int, tuple[list[int], float]]:
    """20 steps on `ranks` processes; a batch of 192 makes every eighth step short and of three samples a lane.

    The learning rate is a tenth of the recipe's: at 0.01, in 20 steps of the raw 0-to-255 input, the last bit of a
    float32 sum grows to 1e-3 of loss, as it does in one process on another number of threads.
    """
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(free_port())]
    arguments = ["-m", "alexvgg", "train", "vgg_a-s256", "--geometry", "small", "--dataset", digits_url]
    arguments += ["--storage", (folder / "storage").as_uri(), "--sample-log", str(folder / "log")]
    arguments += ["--exchange", exchange]
    for setting in (
        "train.max_steps=20",
        "train.global_batch=192",
        "train.lr=0.001",
        "init.std=0.05",
        "test_scales=[[224]]",
    ):
        arguments += ["--set", setting]
    command = [sys.executable, *(launcher if ranks > 1 else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    epochs = [line.split(", loss")[0] for line in done.stdout.splitlines()]
    assert [line.split(": ")[1] for line in epochs] == [
        f"epoch {n}/24, step {s}" for n, s in ((1, 8), (2, 16), (3, 20))
    ]
    return sample_log(folder / "log")


def test_any_number_of_ranks_computes_the_same(digits_url: str, tmp_path: Path) -> None:
    one = launched(1, digits_url, tmp_path / "1")
    assert sorted(one) == list(range(1, 21))
    assert [len(samples) for samples, _ in one.values()] == ([192] * 7 + [93]) * 2 + [192] * 4
    for ranks, exchange in ((2, "factors"), (3, "allreduce"), (4, "factors")):
        several = launched(ranks, digits_url, tmp_path / str(ranks), exchange)
        assert {step: samples for step, (samples, _) in several.items()} == {s: ids for s, (ids, _) in one.items()}
        for step, (_, loss) in several.items():
            assert loss == pytest.approx(one[step][1], abs=1e-4), f"{ranks} ranks, step {step}"


def test_without_a_validation_image_there_is_no_error(tmp_path: Path) -> None:
    """Nothing is NaN, which no JSON has: not in the journal, the documents, nor in what is made of them."""
    broken = {name: b"no image" if name.endswith("jpg") else data for name, data in members_of("val-0.tar").items()}
    dataset = open_dataset(pack(open_store(f"{tmp_path.as_uri()}/d"), {"val-0.tar": broken}))
    spec = spec_of(dataset, train__global_batch="4", train__epochs="2")
    lines: list[str] = []
    execution = Execution(dataset.store.url, f"{tmp_path.as_uri()}/s")
    run.train(spec, execution, ALONE, lambda event: lines.append(run.epoch_line(event, 2)))
    assert all(", no validation image, " in line for line in lines)
    storage = open_store(execution.storage_url)
    for key in storage.list(f"runs/{spec.name}/"):
        for document in storage.get(key).splitlines() if key.endswith(".jsonl") else [storage.get(key)]:
            if not key.endswith(".safetensors"):
                json.loads(document, parse_constant=pytest.fail)
    found = read_run(storage, spec.name)
    assert found.state == "finished"
    assert "nan" not in overview([found]) + cards([found])


class CrashError(Exception):
    pass


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    digits: Dataset, execution: Execution, digits_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(digits)
    run.train(spec, execution, ALONE)
    update, calls = Updater.__call__, 0

    def crashing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (30, 31 + 23):  # in the middle of the second epoch, then of the third
            raise CrashError
        return update(*arguments)

    monkeypatch.setattr(Updater, "__call__", crashing)
    interrupted = Execution(digits_url, (tmp_path / "again").as_uri())
    for _ in range(2):
        with pytest.raises(CrashError):
            run.train(spec, interrupted, ALONE)
    run.train(spec, interrupted, ALONE)

    whole, parts = open_store(execution.storage_url), open_store(interrupted.storage_url)
    final = f"runs/{spec.name}/final/model.safetensors"
    assert whole.get(final) == parts.get(final)
    a, b = read_run(whole, spec.name), read_run(parts, spec.name)
    assert [r | {"time": 0} for r in a.evaluation] == [r | {"time": 0} for r in b.evaluation]
    posteriors = f"runs/{spec.name}/eval/posteriors/dense-q224.safetensors"
    assert whole.get(posteriors) == parts.get(posteriors)
    assert [e["step"] for e in b.journal if e["event"] == "start"] == [0, 23, 46]
    for event in ("steps", "epoch"):
        points = [[(e["step"], e["metrics"].get("train/loss"), e["metrics"].get("val/top1_error"))
                   for e in r.journal if e["event"] == event] for r in (a, b)]  # fmt: skip
        assert points[0] == points[1], "a step stands in the journal twice, or is missing"


def test_a_crash_before_the_checkpoint_leaves_no_epoch_twice_in_the_journal(
    digits: Dataset, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(digits, train__epochs="2")
    write, writes = run.checkpoint.write, 0

    def crashing(*arguments: Any, **options: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            arguments[-1]()  # the journal is stored, the commit isn't
            raise CrashError
        write(*arguments, **options)

    monkeypatch.setattr(run.checkpoint, "write", crashing)
    with pytest.raises(UploadError, match="checkpoint of step 46 could not be stored"):
        run.train(spec, execution, ALONE)
    store = open_store(execution.storage_url)
    assert [e["epoch"] for e in read_run(store, spec.name).journal if e["event"] == "epoch"] == [1, 2]
    run.train(spec, execution, ALONE)
    journal = read_run(store, spec.name).journal
    assert [e["epoch"] for e in journal if e["event"] == "epoch"] == [1, 2]
    assert [e["step"] for e in journal if e["event"] == "start"] == [0, 23]
    assert [e["step"] for e in journal if e["event"] == "steps"] == [10, 20, 33, 43]


def test_what_a_run_leaves_behind(digits: Dataset, execution: Execution) -> None:
    spec = spec_of(digits, train__max_steps="5")
    events: list[dict[str, Any]] = []
    run.train(spec, execution, ALONE, events.append)
    store = open_store(execution.storage_url)
    files = {re.sub("-[0-9a-f]{12}", "", key.removeprefix(f"runs/{spec.name}/")) for key in store.list("runs/")}
    assert files == {
        "spec.json", "transplant.json", "provenance/1.json", "journal.jsonl",
        "eval/dense-q224.json", "eval/posteriors/dense-q224.safetensors",
        "final/model.safetensors", "final/record.json",
        *(f"checkpoints/00000005/{f}" for f in ("commit.json", "model.safetensors", "momentum.safetensors")),
    }  # fmt: skip
    record = read_run(store, spec.name)
    assert (record.state, record.spec) == ("finished", spec)
    assert [e["step"] for e in events] == [5]
    final = record.journal[-1]["metrics"]
    assert set(final) == {"eval/dense-q224/top1_error", "eval/dense-q224/top5_error"}, "Q=224 is in no table"
    weights = hashlib.sha256(store.get(f"runs/{spec.name}/final/model.safetensors")).hexdigest()
    (row,) = record.evaluation
    assert row["members"] == [{"run": spec.name, "weights": weights, "test_scales": [224]}]
    assert (row["method"], row["images"], record.weights) == ("dense", 360, weights)
    assert [final[f"eval/dense-q224/{error}"] for error in ("top1_error", "top5_error")] == [
        row["top1_error"], row["top5_error"],
    ]  # fmt: skip
    before = store.get(f"runs/{spec.name}/journal.jsonl")
    run.train(spec, execution, ALONE)
    assert store.get(f"runs/{spec.name}/journal.jsonl") == before, "a finished run was started again"


def test_each_attempt_notes_what_was_submitted_and_where_it_ran(digits: Dataset, execution: Execution) -> None:
    spec = spec_of(digits, train__max_steps="3")
    store = open_store(execution.storage_url)
    key = remember_code(store, {"command": "alexvgg submit", "git": {"commit": "ab"}})
    run.train(spec, replace(execution, submitted=key, job="vgg_a-a1"), ALONE)
    note = json.loads(store.get(f"runs/{spec.name}/provenance/1.json"))
    assert (note["command"], note["git"], note["ray_job"]) == ("alexvgg submit", {"commit": "ab"}, "vgg_a-a1")
    assert (note["attempt"], note["workers"], [h["ranks"] for h in note["hosts"]]) == (1, 1, [1])
    assert (note["precision"], note["exchange"], note["compiled"]) == ("fp32", "none", False), "what auto became"
    epoch = read_run(store, spec.name).last_epoch
    assert epoch is not None
    assert epoch["metrics"]["system/node-1/system_memory_usage_percentage"] > 0
    assert read_provenance(store, spec.name) == note


def test_images_from_other_processes_give_the_same_weights(
    digits: Dataset, execution: Execution, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a GPU, in two epochs and from the middle of the second."""
    spec = spec_of(digits, train__epochs="2")
    run.train(spec, execution, ALONE)
    threads = run._Run._loader
    monkeypatch.setattr(run._Run, "_loader", lambda self: LoaderProcesses(threads(self), spec.train.global_batch))
    apart = replace(execution, storage_url=(tmp_path / "apart").as_uri(), decode_threads=5)
    with pytest.raises(Stopped):
        run.train(spec, apart, ALONE, live=stop_at(30, wishes := Wishes()), wishes=wishes)
    run.train(spec, apart, ALONE)
    finals = [open_store(e.storage_url).get(f"runs/{spec.name}/final/record.json") for e in (execution, apart)]
    assert finals[0] == finals[1]
    assert multiprocessing.active_children() == []


def stop_at(step: int, wishes: Wishes) -> Callable[[dict[str, Any]], None]:
    return lambda numbers: wishes.stop.set() if numbers["step"] >= step else None


def test_a_child_starts_from_its_parents_last_weights(digits: Dataset, execution: Execution) -> None:
    parent, child = plan_runs(
        [RECIPES["vgg_b-s256"]], images_of(digits), GEOMETRIES["small"], overrides=QUICK | {"train.max_steps": "3"}
    )
    store = open_store(execution.storage_url)
    with pytest.raises(InputError, match=f"{child.name} starts from {parent.name}, which isn't finished"):
        run.train(child, execution, ALONE)
    run.train(parent, execution, ALONE)
    weights = safetensors.torch.load(store.get(f"runs/{parent.name}/final/model.safetensors"))
    net, origins = run.first_weights(child, store)
    for key, value in net.state_dict().items():
        shared = key.split(".")[1] in ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
        if key.endswith(".weight"):
            assert (key in weights and torch.equal(value, weights[key])) == shared, key
    assert sum(o.source == "copied" for o in origins) == 7
    run.train(child, execution, ALONE)
    assert json.loads(store.get(f"runs/{child.name}/transplant.json"))[0] == {
        "layer": "conv1_1", "shape": [8, 3, 3, 3], "source": "copied", "sha256": origins[0].sha256,
    }  # fmt: skip


def test_a_parents_damaged_weights_are_refused(digits: Dataset, execution: Execution) -> None:
    parent, child = plan_runs(
        [RECIPES["vgg_b-s256"]], images_of(digits), GEOMETRIES["small"], overrides=QUICK | {"train.max_steps": "1"}
    )
    run.train(parent, execution, ALONE)
    store = open_store(execution.storage_url)
    key = f"runs/{parent.name}/final/model.safetensors"
    store.put(key, store.get(key)[:-1] + b"\0")
    assert child.parent == Parent(parent.name, "transplant")
    with pytest.raises(DamagedError, match="is damaged"):
        run.train(child, execution, ALONE)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damaged_images_are_hopeless(damage: str, digits: Dataset, execution: Execution, tmp_path: Path) -> None:
    """Every attempt would read the same."""
    spec, store = spec_of(digits), open_store((tmp_path / "damaged").as_uri())
    for key in digits.store.list(""):
        store.put(key, digits.store.get(key))
    split = digits.train
    shard, last = split.shards[-1], len(split) - 1
    data = bytearray(store.get(shard))
    middle = int(split.offsets[last] + split.sizes[last] // 2)
    data[middle] ^= 1
    {
        "changed": lambda: store.put(shard, bytes(data)),
        "cut": lambda: store.put(shard, bytes(data[:middle])),
        "gone": lambda: store.delete(shard),
    }[damage]()
    with pytest.raises(run.HOPELESS, match=f"{shard}.*[Rr]estore it"):
        run.train(spec, replace(execution, dataset_url=store.url), ALONE)


def test_another_dataset_is_refused(digits: Dataset, execution: Execution) -> None:
    spec = plan_runs([RECIPES["vgg_a-s256"]], images_of(digits).__class__("digits", 10, "0" * 64), GEOMETRIES["small"])[
        0
    ]
    with pytest.raises(InputError, match="has fingerprint"):
        run.train(spec, execution, ALONE)


def test_mlflow_being_down_costs_neither_the_run_nor_its_time(
    digits: Dataset, execution: Execution, digits_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(digits, train__max_steps="3")
    began = time.monotonic()
    run.train(spec, Execution(digits_url, execution.storage_url, "http://127.0.0.1:1"), ALONE)
    assert time.monotonic() - began < 20, "it waits for long for what doesn't answer"
    assert read_run(open_store(execution.storage_url), spec.name).state == "finished"
    sync = f"alexvgg mlflow sync {spec.name} --storage {execution.storage_url} --url http://127.0.0.1:1"
    assert "MLflow at http://127.0.0.1:1: [Errno 111] Connection refused. It lacks the end of" in caplog.text
    assert f"`{sync}` brings them over" in caplog.text


@pytest.mark.parametrize("how", ["signal", "storage", "given up"])
def test_a_stop_reaches_the_evaluation_at_the_end(
    digits: Dataset, execution: Execution, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take hours; what was scored isn't scored again."""
    monkeypatch.setattr("alexvgg.data.validation.LARGEST_PART", 100)
    spec, storage, wishes = spec_of(digits, train__max_steps="2"), open_store(execution.storage_url), Wishes()
    attempt = Attempt(storage, f"runs/{spec.name}/", 1)
    attempt.claim(Claim("a-a1", {}))
    write, written = scoring.write, []

    def stopping(store: Store, key: str, *what: Any) -> None:
        write(store, key, *what)
        written.append(key)
        if len(written) == 2:
            {"signal": wishes.stop.set, "storage": attempt.ask_to_stop, "given up": lambda: attempt.end("lost")}[how]()

    monkeypatch.setattr(scoring, "write", stopping)
    error = SupersededError if how == "given up" else Stopped
    with pytest.raises(error):
        run.train(spec, execution, ALONE, wishes=wishes, claim=lambda: attempt)
    assert len(written) == 2
    assert read_run(storage, spec.name).state == "started"
    run.train(spec, execution, ALONE)
    assert read_run(storage, spec.name).state == "finished"
    assert len(set(written)) == len(written), "a part was scored twice"


@pytest.mark.parametrize(
    ("micro_batch", "told"),
    [
        (None, "for 64 images at once: --micro-batch 32 gives the same"),
        (1, "for 1 images at once: more or larger GPUs help"),
    ],
)
def test_a_step_that_memory_does_not_hold_says_what_to_try(
    digits: Dataset, execution: Execution, micro_batch: int | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.25 GiB. GPU 0 has a capacity of …")

    monkeypatch.setattr("alexvgg.engine.step.Updater.__call__", full)
    with pytest.raises(TooLargeError, match=f"^CUDA out of memory, {told}") as error:
        run.train(spec_of(digits), replace(execution, micro_batch=micro_batch), ALONE)
    assert isinstance(error.value, run.HOPELESS)


def test_an_attempt_that_was_given_up_stores_nothing_any_more(digits: Dataset, execution: Execution) -> None:
    spec, storage = spec_of(digits, train__epochs="1"), open_store(execution.storage_url)
    given_up, successor = (Attempt(storage, f"runs/{spec.name}/", number) for number in (1, 2))
    given_up.claim(Claim("a-a1", {}))
    given_up.end("lost", "nothing was heard of it")
    successor.claim(Claim("a-a2", {}))
    with pytest.raises(SupersededError, match=r"attempt 1 .* was given up, and 2 goes on"):
        run.train(spec, execution, ALONE, claim=lambda: given_up)
    stored = storage.list(f"runs/{spec.name}/")
    assert not [key for key in stored if key.endswith(("commit.json", "final/record.json"))]
    run.train(spec, execution, ALONE, claim=lambda: successor)
    assert read_run(storage, spec.name).state == "finished"
