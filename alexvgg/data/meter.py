"""What each stage of the loader did: the numbers behind `perf/…` in MLflow and `alexvgg data bench`."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from alexvgg.data.keyed import Ints

RECENT = 10_000  # durations kept for the quantiles


class Stage:
    """Counts and times one kind of work, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count, self.size, self.seconds = 0, 0, 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def record(self, seconds: float, size: int = 0) -> None:
        """One more piece of work, with its size in bytes."""
        with self._lock:
            self.count += 1
            self.size += size
            self.seconds += seconds
            self._recent.append(seconds)

    def figures(self) -> "Figures":
        with self._lock:
            p50, p99 = np.quantile(self._recent, (0.5, 0.99)).tolist() if self._recent else (0.0, 0.0)
            return Figures(self.count, self.size, self.seconds, p50, p99)


@dataclass(frozen=True)
class Figures:
    """Of one kind of work: how often it was done, its bytes and seconds, and quantiles of the recent durations."""

    count: int
    size: int
    seconds: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Work:
    """What a loader did in so many seconds."""

    seconds: float
    retries: int
    read: Figures
    starve: Figures
    decode: Figures
    fill: float  # mean share of the byte budget that was in use

    def metrics(self) -> dict[str, float]:
        """By MLflow's names."""
        return {
            "perf/read_mb_per_s": self.read.size / self.seconds / 1e6,
            "perf/read_p50_ms": 1e3 * self.read.p50,
            "perf/read_p99_ms": 1e3 * self.read.p99,
            "perf/read_retries": float(self.retries),
            "perf/decode_p50_ms": 1e3 * self.decode.p50,
            "perf/decode_p99_ms": 1e3 * self.decode.p99,
            "perf/decode_starved_ms": 1e3 * self.starve.seconds / max(1, self.starve.count),
            "perf/prefetch_fill": self.fill,
        }


class Meters:
    """The loader's stages: `read` one ranged GET, `starve` a decode thread's wait for bytes, `decode` one image to
    its view. `fill` is the share of the byte budget that was in use when a batch was begun."""

    def __init__(self, retries: int = 0, starving: Ints | None = None) -> None:
        self.began, self._retries = time.perf_counter(), retries
        self.read, self.starve, self.decode, self.fill = (Stage() for _ in range(4))
        self.starving = np.zeros(1, np.int64) if starving is None else starving  # threads that wait for bytes just now

    def work(self, retries: int) -> Work:
        """All of it, until now. `retries` is the store's count by now, as it was given at the beginning."""
        read, starve, decode, fill = (stage.figures() for stage in (self.read, self.starve, self.decode, self.fill))
        wall = time.perf_counter() - self.began
        return Work(wall, retries - self._retries, read, starve, decode, fill.seconds / max(1, fill.count))


def together(works: Sequence[Work]) -> Work:
    """Of loaders that do equal parts of the same at the same time: means of what isn't a sum."""
    return Work(
        max(work.seconds for work in works), sum(work.retries for work in works),
        _stage([work.read for work in works]), _stage([work.starve for work in works]),
        _stage([work.decode for work in works]), fmean(work.fill for work in works),
    )  # fmt: skip


def _stage(parts: Sequence[Figures]) -> Figures:
    return Figures(
        sum(f.count for f in parts), sum(f.size for f in parts), sum(f.seconds for f in parts),
        fmean(f.p50 for f in parts), fmean(f.p99 for f in parts),
    )  # fmt: skip
