"""The order of samples: a pure function of (shard sizes, seed, epoch), the same on any number of workers.

Shards are permuted and their samples laid end to end; that stream is cut into L lanes of equal length; inside a lane,
windows of W samples are permuted. A step takes the next batch/L samples of every lane, and rank r of R owns the lanes
l with l mod R = r. So each lane is read sequentially, a global batch has the same samples on any number of ranks, and
the only state is one integer: how many samples were consumed.

The first window of lane l is only (l+1)/L of a window long. So lanes come to the ends of their windows one after the
other, and what is read spreads evenly over the steps; of every window only half is in memory on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alexvgg.data.keyed import Ints
from alexvgg.errors import InputError

MAX_LANES = 64


def lane_count(global_batch: int) -> int:
    """The most lanes, up to 64, that divide the batch: 64 for 256 and 128."""
    return max(n for n in range(1, MAX_LANES + 1) if global_batch % n == 0)


def lanes_of(lanes: int, rank: int, world: int) -> range:
    """Those of `rank`."""
    return range(rank, lanes, world)


def check_workers(workers: int, per_node: int = 1, global_batch: int | None = None) -> None:
    """Raise InputError if they are more than the lanes of a batch: some would have nothing to do."""
    if workers > (lanes := lane_count(global_batch) if global_batch is not None else MAX_LANES):
        which = "a batch" if global_batch is None else f"a batch of {global_batch}"
        other = "" if lanes == MAX_LANES else f", or a batch that {MAX_LANES} divides"
        raise InputError(
            f"{workers} workers are more than the {lanes} among which {which} can be shared. Use at most "
            f"{max(1, lanes // per_node)} nodes{other}."
        )


def most_rows(global_batch: int, ranks: int) -> int:
    """The most samples that one of `ranks` ranks holds in a step."""
    lanes = lane_count(global_batch)
    return -(-lanes // ranks) * (global_batch // lanes)


def as_fast(global_batch: int, ranks: int) -> int:
    """The fewest ranks of which none holds more lanes in a step than one of `ranks` ranks: 32 for 33 to 63."""
    return -(-global_batch // most_rows(global_batch, ranks))


def busy(global_batch: int, ranks: int) -> float:
    """The share of the ranks' time that a step uses: it lasts as long as the rank with the most lanes takes."""
    return global_batch / (ranks * most_rows(global_batch, ranks))


@dataclass(frozen=True)
class EpochPlan:
    """`reading[l]` are lane l's sample ids in storage order, `order[l]` the same in the order of consumption."""

    global_batch: int
    window: int
    reading: tuple[Ints, ...]
    order: tuple[Ints, ...]

    def windows(self, lane: int) -> list[tuple[int, int]]:
        """(first position, end position) of each window of a lane."""
        length = len(self.order[lane])
        ends = range(first_window(lane, len(self.order), self.window), length + self.window, self.window)
        return [(max(0, end - self.window), min(end, length)) for end in ends if end - self.window < length]

    @property
    def steps(self) -> int:
        """Steps of this epoch; only the last may be short."""
        return -(-max(len(lane) for lane in self.order) // self.per_lane)

    @property
    def per_lane(self) -> int:
        return self.global_batch // len(self.order)

    def lanes_of(self, rank: int, world: int) -> range:
        return lanes_of(len(self.order), rank, world)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """The sample ids that `rank` of `world` consumes at `step` of this epoch; all of them by default."""
        cut = slice(step * self.per_lane, (step + 1) * self.per_lane)
        lanes = [self.order[lane][cut] for lane in self.lanes_of(rank, world)]
        return np.concatenate(lanes) if lanes else np.empty(0, np.int64)


def first_window(lane: int, lanes: int, window: int) -> int:
    """The length of a lane's first window, in samples."""
    return -(-window * (lane + 1) // lanes)


def plan_epoch(shard_sizes: Sequence[int], global_batch: int, window: int, seed: int, epoch: int) -> EpochPlan:
    """The plan of one epoch over shards of the given sample counts; sample ids count through the shards in order."""
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])
    # Raw generator output and a stable sort: unlike Generator.permutation, NumPy promises never to change these.
    random = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    shards = np.argsort(random.random_raw(len(shard_sizes)), kind="stable")
    stream = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shards]).astype(np.int64)
    lanes = lane_count(global_batch)
    bounds = [lane * len(stream) // lanes for lane in range(lanes + 1)]
    reading = tuple(stream[a:b] for a, b in pairwise(bounds))
    ranks = random.random_raw(len(stream))
    order = []
    for number, (start, ids) in enumerate(zip(bounds, reading, strict=False)):
        window_of = (np.arange(len(ids)) + window - first_window(number, lanes, window)) // window
        order.append(ids[np.lexsort((ranks[start : start + len(ids)], window_of))])
    return EpochPlan(global_batch, window, reading, tuple(order))


def position(consumed: int, epoch_samples: int, global_batch: int) -> tuple[int, int]:
    """(epoch, step within it) of the next batch after so many samples: all that a resume or other ranks need."""
    epoch, offset = divmod(consumed, epoch_samples)
    assert offset % global_batch == 0, "only an epoch's last batch is short"
    return epoch, offset // global_batch
