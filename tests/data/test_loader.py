"""The same batches for any threads, prefetch and number of ranks; each image once; damage costs one image."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexvgg.batch import Batch
from alexvgg.data import fetch
from alexvgg.data import loader as loading
from alexvgg.data.augment import Augmentation
from alexvgg.data.fetch import step_bytes
from alexvgg.data.loader import Loader, Prefetch, decoding_threads
from alexvgg.data.plan import EpochPlan, plan_epoch
from alexvgg.data.shards import Dataset
from alexvgg.data.undecodable import Undecodable
from alexvgg.errors import InputError

Samples = dict[int, tuple[bytes, bytes, int, int]]  # pixels, colour shift, label and key by sample

AUGMENTATION = Augmentation((256, 512), 32, True, 0.1, np.eye(3))


def loader(dataset: Dataset, rank: int = 0, world: int = 1, threads: int = 2, prefetch: int = 3) -> Loader:
    depth = Prefetch(batches=prefetch, decode_threads=threads, read_threads=threads)
    return Loader(dataset, AUGMENTATION, 7, rank, world, depth, Undecodable(dataset.store.url))


def plan_of(dataset: Dataset) -> EpochPlan:
    return plan_epoch(dataset.train.shard_sizes, 192, 8, seed=7, epoch=2)


def by_sample(batches: Sequence[Batch]) -> Samples:
    found = {}
    for b in batches:
        for i, sample in enumerate(b.samples.tolist()):
            if sample >= 0:
                assert sample not in found
                label, key = int(b.labels[i]), int(b.keys[i])
                found[sample] = (b.images[i].numpy().tobytes(), b.colour[i].numpy().tobytes(), label, key)
    return found


@pytest.fixture(scope="module")
def undisturbed(digits: Dataset) -> list[Samples]:
    """An epoch's steps on one rank."""
    return [by_sample([b]) for b in loader(digits).training(plan_of(digits), 2, 0)]


def test_pixels_do_not_depend_on_threads_prefetch_or_ranks(digits: Dataset) -> None:
    plan = plan_of(digits)
    one = [by_sample([b]) for b in loader(digits).training(plan, 2, 0)]
    assert len(one) == plan.steps == 8
    assert sorted(s for step in one for s in step) == list(range(1437))
    for world, threads, prefetch in ((1, 1, 1), (3, 2, 2), (5, 4, 9)):
        ranks = [list(loader(digits, r, world, threads, prefetch).training(plan, 2, 0)) for r in range(world)]
        for step, expected in enumerate(one):
            assert by_sample([batches[step] for batches in ranks]) == expected


def test_too_few_prefetch_bytes_are_refused_with_the_number_that_is_enough(digits: Dataset) -> None:
    plan, pixels = plan_of(digits), 3 * 32 * 32
    one = loader(digits)
    decoded, read = (3 + 2) * 192 * pixels, step_bytes(digits.train, plan, range(64), 0)
    asked = decoded + 2 * read
    one.prefetch = replace(one.prefetch, bytes=asked - 1)
    told = rf"{asked - 1:,} prefetch bytes can't hold 5 batches of 192 .* Give --prefetch-bytes {asked} at least"
    with pytest.raises(InputError, match=told):
        one.check(plan)
    one.prefetch = replace(one.prefetch, bytes=asked)
    one.check(plan)
    for epoch in range(50):  # whose largest steps differ
        other = plan_epoch(digits.train.shard_sizes, 192, 8, seed=7, epoch=epoch)
        assert step_bytes(digits.train, other, range(64), 0) <= 2 * read
    one.prefetch = replace(one.prefetch, bytes=1)
    assert len(list(one.training(plan, 2, 0))) == plan.steps, "an epoch whose steps are larger still doesn't end a run"


def test_a_batch_of_more_images_than_there_are_needs_room_for_those_only(digits: Dataset) -> None:
    one, plan = loader(digits), plan_epoch(digits.train.shard_sizes, 64 * 10**6, 8, 7, 0)
    one.check(plan)
    (batch,) = one.training(plan, 0, 0)
    assert len(batch.images) == 1437


def test_memory_is_used_again_but_never_what_someone_holds(digits: Dataset) -> None:
    """Whatever is made of a batch keeps its pixels, and the next batches lie elsewhere."""
    one, depth = loader(digits, prefetch=1), 1
    addresses, held = [], []
    for epoch in (2, 2):
        for batch in one.training(plan_of(digits), epoch, 0):
            addresses.append(batch.images.data_ptr())
            if len(held) < 3:
                part = batch.split(50)[1].images[3:]
                held.append((part, part.clone()))
    assert len(held) < len(set(addresses)) <= len(held) + depth + 2
    assert all(torch.equal(part, copy) for part, copy in held)


def test_labels_are_the_samples_own(digits: Dataset) -> None:
    for batch in loader(digits).training(plan_of(digits), 2, 6):
        assert batch.labels.tolist() == digits.train.labels[batch.samples.numpy()].tolist()


def test_an_epoch_can_begin_at_any_step(digits: Dataset) -> None:
    plan = plan_of(digits)
    whole = list(loader(digits).training(plan, 2, 0))
    rest = list(loader(digits).training(plan, 2, 5))
    assert len(rest) == 3
    for a, b in zip(whole[5:], rest, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.samples, b.samples)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 64)), max_size=4), st.integers(0, 8))
@settings(max_examples=12, deadline=None)
def test_a_changing_world_shows_each_sample_once_with_the_same_pixels(
    digits: Dataset, undisturbed: list[Samples], changes: list[tuple[int, int]], end: int
) -> None:
    """The number of ranks changes at random steps, as nodes come and go."""
    plan, seen = plan_of(digits), {}
    bounds = [*sorted(changes), (plan.steps, 1)]
    world = 2
    step = 0
    for until, next_world in bounds:
        if until > step:
            for rank in range(world):
                with closing(loader(digits, rank, world, 1, 2).training(plan, 2, step)) as batches:
                    seen.update(by_sample(list(islice(batches, until - step))))
        step, world = max(step, until), next_world
    assert seen == {sample: view for views in undisturbed for sample, view in views.items()}
    resumed = [by_sample([b]) for b in loader(digits).training(plan, 2, min(end, plan.steps - 1))]
    assert resumed == undisturbed[min(end, plan.steps - 1) :]


def test_epochs_show_other_views(digits: Dataset) -> None:
    plan = plan_of(digits)
    first, other = (next(loader(digits).training(plan, epoch, 0)) for epoch in (2, 3))
    assert torch.equal(first.samples, other.samples)
    assert not torch.equal(first.images, other.images)


def test_a_rank_without_samples_takes_part_with_weight_zero(digits: Dataset) -> None:
    short = replace(digits, train=replace(digits.train, shard_sizes=(70,), shards=digits.train.shards[:1]))
    plan = plan_epoch((70,), 64, 8, seed=7, epoch=0)
    last = [list(loader(short, r, 64).training(plan, 0, 0))[-1] for r in range(64)]
    assert sum(int(b.weights.sum()) for b in last) == 6
    empty = [b for b in last if b.weights.sum() == 0]
    assert len(empty) == 58
    assert all(b.samples.tolist() == [-1] and b.images.shape == (1, 3, 32, 32) for b in empty)


def damaged(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Let the bytes of some samples be no image, as an index of a damaged source would have them."""
    read = fetch.read_samples
    monkeypatch.setattr(
        fetch, "read_samples",
        lambda store, split, ids: ((i, b"damaged" if i in bad else data) for i, data in read(store, split, ids)),
    )  # fmt: skip


def test_an_undecodable_image_becomes_weight_zero_and_is_named(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(monkeypatch, {3, 800})
    source = loader(digits)
    batches = list(source.training(plan_of(digits), 2, 0))
    weights = {s: w for b in batches for s, w in zip(b.samples.tolist(), b.weights.tolist(), strict=True)}
    assert {s for s, w in weights.items() if w == 0} == {3, 800}
    assert set(source.undecodable.reasons) == {digits.train.keys[3], digits.train.keys[800]}


def test_too_many_undecodable_images_stop_the_run(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged(monkeypatch, set(range(200)))
    with pytest.raises(InputError, match=r"^11 images of file://.* can't be decoded"):
        list(loader(digits, threads=1).training(plan_of(digits), 2, 0))  # of several, others may meet more meanwhile


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"), [(1, 1, 1), (2, 1, 2), (16, 1, 13), (96, 8, 10), (4, 8, 1), (96, 1, 32)]
)
def test_of_five_cores_one_does_not_decode(
    cores: int, ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert decoding_threads(None) == threads
    assert decoding_threads(5) == 5
