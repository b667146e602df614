"""The order of samples: a pure function of (shard sizes, seed, epoch), the same on any number of workers.

Shards are permuted and their samples laid end to end; that stream is cut into L lanes of equal length; inside a lane,
windows of W samples are permuted. A step takes the next batch/L samples of every lane, and rank r of R owns the lanes
l with l mod R = r. So each lane is read sequentially, a global batch has the same samples on any number of ranks, and
the only state is one integer: how many samples were consumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MAX_LANES = 64

_GAMMA, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def sample_keys(seed: int, epoch: int, samples: Ints) -> Ints:
    """One 64-bit key per sample, from (seed, epoch, sample id): seeds its augmentation and its dropout.

    SplitMix64's finaliser (Steele, Lea & Flood 2014), once per input, so that neighbouring ids are unrelated.
    """
    with np.errstate(over="ignore"):
        z = _mix(np.uint64(seed) + _GAMMA)
        z = _mix(z ^ (np.uint64(epoch) + _GAMMA))
        return _mix(z ^ (samples.astype(np.uint64) + _GAMMA)).view(np.int64)


def _mix(z: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = np.asarray(z, np.uint64)
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        return z ^ (z >> np.uint64(31))


def lane_count(global_batch: int) -> int:
    """The most lanes, up to 64, that divide the batch: 64 for 256 and 128."""
    return max(n for n in range(1, MAX_LANES + 1) if global_batch % n == 0)


@dataclass(frozen=True)
class EpochPlan:
    """`reading[l]` are lane l's sample ids in storage order, `order[l]` the same in the order of consumption."""

    global_batch: int
    window: int
    reading: tuple[Ints, ...]
    order: tuple[Ints, ...]

    @property
    def samples(self) -> int:
        return sum(len(lane) for lane in self.order)

    @property
    def steps(self) -> int:
        """Steps of this epoch; only the last may be short."""
        return -(-max(len(lane) for lane in self.order) // self.per_lane)

    @property
    def per_lane(self) -> int:
        return self.global_batch // len(self.order)

    def lanes_of(self, rank: int, world: int) -> range:
        return range(rank, len(self.order), world)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Ints:
        """The sample ids that `rank` of `world` consumes at `step` of this epoch; all of them by default."""
        cut = slice(step * self.per_lane, (step + 1) * self.per_lane)
        lanes = [self.order[lane][cut] for lane in self.lanes_of(rank, world)]
        return np.concatenate(lanes) if lanes else np.empty(0, np.int64)


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
    order = tuple(
        lane[np.lexsort((ranks[a : a + len(lane)], np.arange(len(lane)) // window))]
        for a, lane in zip(bounds, reading, strict=False)
    )
    return EpochPlan(global_batch, window, reading, order)


@dataclass(frozen=True)
class Cursor:
    """Samples consumed since the beginning of the run: all that a resume or a change of the world size needs."""

    consumed: int = 0

    def position(self, epoch_samples: int, global_batch: int) -> tuple[int, int]:
        """(epoch, step within it) of the next batch."""
        epoch, offset = divmod(self.consumed, epoch_samples)
        assert offset % global_batch == 0, "only an epoch's last batch is short"
        return epoch, offset // global_batch
