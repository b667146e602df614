"""Other processes give the same batches, errors and names, and none outlives the one that trains."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from smalldata import members_of, pack

from alexvgg.batch import Batch
from alexvgg.data.augment import Augmentation
from alexvgg.data.cache import Cache
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.loader_processes import THREADS, LoaderProcesses, _parts
from alexvgg.data.loader_processes import apart as apart_or_not
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.errors import InputError, StoreError

BATCH = 192


def threads(dataset: Dataset, decode: int = 2, cache: Cache | None = None, size: int = 1 << 30) -> Loader:
    augmentation = Augmentation((256, 512), 32, True, 0.1, np.eye(3))
    depth = Prefetch(batches=2, bytes=size, decode_threads=decode)
    return Loader(dataset, augmentation, 7, 0, 1, depth, Undecodable(dataset.store.url), cache)


@pytest.fixture(scope="module", params=[1, 3], ids=["1 process", "3 processes"])
def apart(digits: Dataset, request: pytest.FixtureRequest) -> Iterator[LoaderProcesses]:
    """As many as that many threads need; 64 lanes can't be shared by three evenly."""
    with closing(LoaderProcesses(threads(digits, decode=THREADS * request.param - 1), BATCH)) as processes:
        assert len(processes._processes) == request.param
        yield processes


def assert_same(found: Batch, expected: Batch) -> None:
    for field in fields(Batch):
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


@pytest.mark.parametrize(("epoch", "first", "count"), [(0, 0, 8), (1, 3, 2), (1, 2, 6)], ids=str)
def test_batches_are_those_of_the_loader(
    digits: Dataset, apart: LoaderProcesses, epoch: int, first: int, count: int
) -> None:
    """The second of these epochs is left in its middle."""
    plan = plan_epoch(digits.train.shard_sizes, BATCH, 8, seed=7, epoch=epoch)
    with closing(apart.training(plan, epoch, first)) as found:
        for expected in islice(threads(digits).training(plan, epoch, first), count):
            assert_same(next(found), expected)
    assert {"perf/read_mb_per_s", "perf/decode_p50_ms"} < set(apart.work().metrics())
    assert apart.stage() in ("decoding images", "waiting for bytes from the storage")


def test_a_batch_keeps_its_images_until_the_next_is_asked_for(digits: Dataset, apart: LoaderProcesses) -> None:
    plan = plan_epoch(digits.train.shard_sizes, 48, 8, seed=7, epoch=0)
    for number, batch in enumerate(apart.training(plan, 0, 0)):
        images = batch.images.clone()
        time.sleep(0.1 if number < 12 else 0)  # the loader runs ahead meanwhile, as far as it can
        assert torch.equal(batch.images, images)


@pytest.mark.parametrize("decode", [1, 9])
def test_images_that_no_decoder_reads_and_shards_that_changed_are_named(decode: int, tmp_path: Path) -> None:
    plan = plan_epoch((6, 6), 2, 1, seed=0, epoch=0)  # each step takes a sample of each shard
    unread, broken = min(plan.batch(1)), max(plan.batch(4))
    members, name = members_of("train-0.tar"), f"{unread:03d}"
    pack(open_store(tmp_path.as_uri()), {"train-0.tar": members | {f"{name}.jpg": members[f"{name}.jpg"][:-40]}})
    dataset = open_dataset(open_store(tmp_path.as_uri()))
    shard = bytearray((tmp_path / "train-1.tar").read_bytes())
    shard[dataset.train.offsets[broken] + 50] ^= 1
    (tmp_path / "train-1.tar").write_bytes(shard)
    inside = threads(dataset, decode, Cache(tmp_path / "cache", 1 << 20))
    with closing(LoaderProcesses(inside, 2)) as process:
        batches = process.training(plan, 0, 0)
        assert [next(batches).weights.sum().item() for _ in range(4)] == [2.0, 1.0, 2.0, 2.0]
        with pytest.raises(StoreError, match=r"train-1\.tar at offset \d+"):
            next(batches)
        again = process.training(plan, 0, 3)  # whoever asks again, gets what there is
        assert next(again).weights.sum().item() == 2
    assert list(inside.undecodable.reasons) == [name]
    assert list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("decode", [4, 8])
def test_a_request_that_cannot_be_met_is_refused_in_words(decode: int, digits: Dataset) -> None:
    plan = plan_epoch(digits.train.shard_sizes, BATCH, 8, seed=7, epoch=0)
    with closing(LoaderProcesses(threads(digits, decode, size=1 << 20), BATCH)) as process:
        told = r"1,048,576 prefetch bytes can't hold 5 batches of 192 decoded images .* Give --prefetch-bytes \d+"
        with pytest.raises(InputError, match=told):
            process.check(plan)


def test_all_processes_together_decide_that_too_many_images_cannot_be_read(tmp_path: Path) -> None:
    """Each of them sees 4 of 12, where 10 are allowed."""
    members = {f"bad{n}.{kind}": data for n in range(12) for kind, data in (("jpg", b"no image"), ("cls", b"0"))}
    pack(open_store(tmp_path.as_uri()), {"train-0.tar": members})
    dataset = open_dataset(open_store(tmp_path.as_uri()))
    plan = plan_epoch((12, 6), 6, 1, seed=0, epoch=0)
    with (
        closing(LoaderProcesses(threads(dataset, 9), 6)) as processes,
        pytest.raises(InputError, match=r"1[12] images of .* can't be decoded"),
    ):
        list(processes.training(plan, 0, 0))


def lose(child: BaseProcess, batches: Iterator[Batch]) -> None:
    """DataLoader raises wherever this process is when it hears of it."""
    child.kill()
    list(batches)


def test_a_lost_process_is_an_error(digits: Dataset) -> None:
    before = set(multiprocessing.active_children())
    plan = plan_epoch(digits.train.shard_sizes, 8, 8, seed=7, epoch=0)
    asked = LoaderProcesses(threads(digits, 5), BATCH)
    with closing(asked) as processes, closing(processes.training(plan, 0, 0)) as batches:
        next(batches)
        child, _ = set(multiprocessing.active_children()) - before
        assert child.pid is not None
        assert os.getpgid(child.pid) == child.pid, "Ctrl-C isn't for it"
        with pytest.raises(RuntimeError, match="worker"):
            lose(child, batches)


SCRIPT = """
import multiprocessing, os, signal, sys, time
from test_loader_processes import BATCH, LoaderProcesses, open_dataset, open_store, plan_epoch, threads

if __name__ == "__main__":
    dataset = open_dataset(open_store(sys.argv[1]))
    processes = LoaderProcesses(threads(dataset, 5), BATCH)
    pids = [child.pid for child in multiprocessing.active_children()]
    if "signals" in sys.argv:
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
    next(processes.training(plan_epoch(dataset.train.shard_sizes, BATCH, 8, 7, 0), 0, 0))
    print(*pids, flush=True)
    if "fails" in sys.argv:
        raise SystemError("an error that nobody catches")
    time.sleep(600)
"""


@contextmanager
def another(folder: Path, url: str, *how: str) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A process that trains, which has begun nothing before, and those that it begins, once a batch is there."""
    (folder / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here, here.parent, here.parents[1])))
    with subprocess.Popen(
        [sys.executable, folder / "script.py", url, *how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    ) as trainer:
        assert trainer.stdout is not None
        try:
            yield trainer, [psutil.Process(int(pid)) for pid in trainer.stdout.readline().split()]
        finally:
            trainer.kill()


def test_they_end_with_the_process_that_trains(digits_url: str, tmp_path: Path) -> None:
    with another(tmp_path, digits_url) as (trainer, children):
        assert len(children) == 2
        trainer.kill()
        for child in children:
            child.wait(30)


def test_an_error_that_nobody_catches_ends_all(digits_url: str, tmp_path: Path) -> None:
    with another(tmp_path, digits_url, "fails") as (trainer, children):
        assert trainer.wait(30) == 1
        assert not any(child.is_running() for child in children)


def test_signals_while_they_begin_are_the_trainers(digits_url: str, tmp_path: Path) -> None:
    """As by Ctrl-C, which the terminal sends to every process, of which these have seconds of imports before them."""
    with another(tmp_path, digits_url, "signals") as (_, children):
        assert len(children) == 2, "there was a batch"


def test_one_that_ends_before_it_has_its_loader_is_lost(digits: Dataset) -> None:
    before = set(multiprocessing.active_children())
    plan = plan_epoch(digits.train.shard_sizes, BATCH, 8, seed=7, epoch=0)
    with closing(LoaderProcesses(threads(digits, 5), BATCH)) as processes:
        child, _ = set(multiprocessing.active_children()) - before
        with pytest.raises(RuntimeError, match="worker"):
            lose(child, processes.training(plan, 0, 0))


@pytest.mark.parametrize(
    ("batch", "rank", "world", "decode", "lanes"),
    [
        (256, 0, 1, 13, [16, 16, 16, 16]), (256, 0, 1, 4, [64]), (256, 0, 3, 13, [6, 6, 5, 5]),
        (256, 7, 8, 26, [2, 2, 2, 2]), (256, 0, 32, 13, [1, 1]), (251, 0, 1, 13, [1]), (8, 9, 16, 13, [0]),
    ],
    ids=str,
)  # fmt: skip
def test_parts_are_as_even_as_the_lanes_of_the_rank_allow(
    batch: int, rank: int, world: int, decode: int, lanes: list[int], digits: Dataset
) -> None:
    parts = _parts(replace(threads(digits, decode), rank=rank, world=world), batch)
    plan = plan_epoch(digits.train.shard_sizes, batch, 8, seed=7, epoch=0)
    assert [len(plan.lanes_of(*part._share)) for part in parts] == lanes
    assert sum(part.prefetch.decode_threads for part in parts) >= decode
    assert sum(part.prefetch.bytes for part in parts) <= 1 << 30
    assert [part.prefetch.bytes * sum(lanes) // (1 << 30) for part in parts] in (lanes, [n - 1 for n in lanes])


def test_little_shared_memory_means_no_process(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loader = threads(digits)
    with closing(apart_or_not(loader, BATCH)) as process:
        assert isinstance(process, LoaderProcesses)
    given, share = [], torch.Tensor.share_memory_

    def full(tensor: torch.Tensor) -> torch.Tensor:
        given.append(tensor)
        if len(given) == 3:  # as of several ranks that begin together
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")
        return share(tensor)

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert apart_or_not(loader, BATCH) is loader
    assert "batches need 3 MB of shared memory: unable to allocate" in caplog.text
    assert "--shm-size" in caplog.text


def test_nobody_waits_for_processes_that_begin(digits: Dataset) -> None:
    """What they are given is more than a pipe holds, so that it stays with the giver until they read it."""
    long = replace(digits, words=("word" * 1_000_000, *digits.words[1:]))
    much = replace(threads(long), undecodable=Undecodable("", {"key": "why"}))
    began = time.perf_counter()
    with closing(LoaderProcesses(much, BATCH)) as processes:
        assert time.perf_counter() - began < 1.0  # to import PyTorch takes longer
        plan = plan_epoch(digits.train.shard_sizes, BATCH, 8, seed=7, epoch=0)
        next(processes.training(plan, 0, 0))
    assert "key" in much.undecodable.reasons


def test_a_signal_to_every_process_of_a_job_is_the_trainers(digits: Dataset) -> None:
    """Slurm sends SIGTERM to each: the loader goes on until it is closed, and then ends, whatever it waits for."""
    before = set(multiprocessing.active_children())
    plan = plan_epoch(digits.train.shard_sizes, BATCH, 8, seed=7, epoch=0)
    process = LoaderProcesses(threads(digits), BATCH)
    batches = process.training(plan, 0, 0)
    next(batches)
    (child,) = set(multiprocessing.active_children()) - before
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)
    assert len(list(batches)) == plan.steps - 1
    assert child.is_alive()
    process._closing()
    os.kill(child.pid, signal.SIGTERM)
    child.join(10)
    assert child.exitcode == 0
    process.close()
