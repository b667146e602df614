"""The order of samples, as properties of any plan and as one that may never change."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexvgg.data.plan import EpochPlan, check_workers, first_window, lane_count, most_rows, plan_epoch, position
from alexvgg.errors import InputError

shard_sizes = st.lists(st.integers(0, 90), min_size=1, max_size=12).filter(sum)
plans = st.builds(
    plan_epoch,
    shard_sizes,
    st.sampled_from([1, 2, 6, 48, 64, 128, 256]),
    st.sampled_from([1, 3, 16, 256]),
    st.integers(0, 2**40),
    st.integers(0, 500),
)


def samples_of(plan: EpochPlan) -> int:
    return sum(map(len, plan.order))


@given(plans)
def test_every_sample_is_consumed_once(plan: EpochPlan) -> None:
    consumed = np.concatenate([plan.batch(step) for step in range(plan.steps)])
    assert sorted(consumed) == list(range(samples_of(plan)))


@given(plans)
def test_only_the_last_batch_is_short(plan: EpochPlan) -> None:
    sizes = [len(plan.batch(step)) for step in range(plan.steps)]
    assert sizes[:-1] == [plan.global_batch] * (plan.steps - 1)
    assert 0 < sizes[-1] <= plan.global_batch


@given(plans, st.integers(1, 64))
def test_ranks_share_every_global_batch(plan: EpochPlan, world: int) -> None:
    world = min(world, len(plan.order))
    for step in range(plan.steps):
        shares = [plan.batch(step, rank, world) for rank in range(world)]
        assert sorted(np.concatenate(shares)) == sorted(plan.batch(step))


@given(plans)
def test_a_batch_takes_equally_from_every_lane(plan: EpochPlan) -> None:
    for step in range(plan.steps - 1):
        batch = set(plan.batch(step).tolist())
        assert [len(batch & set(lane.tolist())) for lane in plan.order] == [plan.per_lane] * len(plan.order)


@given(plans)
def test_lanes_are_shuffled_inside_windows_of_what_is_read(plan: EpochPlan) -> None:
    for lane, (reading, order) in enumerate(zip(plan.reading, plan.order, strict=True)):
        windows = plan.windows(lane)
        assert [p for window in windows for p in range(*window)] == list(range(len(order)))
        for window in windows:
            assert sorted(order[slice(*window)]) == sorted(reading[slice(*window)])


@given(plans)
def test_windows_are_full_but_for_a_lanes_first_and_last(plan: EpochPlan) -> None:
    lanes = len(plan.order)
    for lane in range(lanes):
        lengths = [stop - start for start, stop in plan.windows(lane)]
        assert all(length == plan.window for length in lengths[1:-1])
        if len(lengths) > 1:
            assert lengths[0] == first_window(lane, lanes, plan.window)
    firsts = [first_window(lane, lanes, plan.window) for lane in range(lanes)]
    assert firsts == sorted(firsts)
    assert firsts[0] >= 1
    assert firsts[-1] == plan.window


@given(shard_sizes, st.integers(0, 99))
def test_lanes_end_to_end_are_whole_shards_in_a_permuted_order(sizes: list[int], seed: int) -> None:
    stream = np.concatenate(plan_epoch(sizes, 64, 256, seed, 0).reading)
    starts = dict(zip(np.cumsum([0, *sizes])[:-1].tolist(), sizes, strict=True)) if 0 not in sizes else None
    if starts is None:
        return
    position = 0
    seen = []
    while position < len(stream):
        first = int(stream[position])
        length = starts[first]
        assert stream[position : position + length].tolist() == list(range(first, first + length))
        seen.append(first)
        position += length
    assert sorted(seen) == sorted(starts)


def test_epochs_and_seeds_differ() -> None:
    orders = {plan_epoch([500] * 4, 64, 256, s, e).batch(0).tobytes() for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_order_never_changes() -> None:
    # A resumed run of an older version depends on it: change this digest only together with the storage's format.
    order = np.concatenate(plan_epoch([240, 239, 7], 64, 16, seed=3, epoch=5).order)
    assert hashlib.sha256(order.tobytes()).hexdigest()[:16] == "fbaedc806acc6616"


@given(plans)
def test_cursor_finds_every_step_again(plan: EpochPlan) -> None:
    consumed = 3 * samples_of(plan)  # three epochs are done
    for step in range(plan.steps):
        assert position(consumed, samples_of(plan), plan.global_batch) == (3, step)
        consumed += len(plan.batch(step))
    assert position(consumed, samples_of(plan), plan.global_batch) == (4, 0)


@pytest.mark.parametrize(("batch", "lanes"), [(256, 64), (128, 64), (64, 64), (48, 48), (96, 48), (1, 1), (67, 1)])
def test_lanes_divide_the_batch(batch: int, lanes: int) -> None:
    assert lane_count(batch) == lanes


def test_workers_without_a_lane_are_refused() -> None:
    check_workers(64)
    check_workers(48, global_batch=96)
    for workers, batch, lanes in ((65, 256, 64), (3, 134, 2), (2, 101, 1)):
        told = f"{workers} workers are more than the {lanes} among which a batch of {batch} can be shared"
        with pytest.raises(InputError, match=told):
            check_workers(workers, global_batch=batch)
    with pytest.raises(InputError, match=r"Use at most 8 nodes\.$"):
        check_workers(72, 8)


@given(plans, st.integers(1, 70))
def test_no_rank_holds_more_rows_than_it_is_said_to(plan: EpochPlan, world: int) -> None:
    shares = [len(plan.batch(0, rank, world)) for rank in range(world)]
    most = most_rows(plan.global_batch, world)
    assert max(shares) <= most
    if plan.steps > 1:
        assert max(shares) == most
