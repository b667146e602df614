"""What each stage of the loader did: the numbers behind `perf/…` in MLflow and `alexvgg data bench`."""

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from alexvgg.data.keyed import Ints

RECENT = 10_000  # durations kept for the quantiles
ADDED = ("perf/read_mb_per_s", "perf/read_retries")


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

    def quantile(self, share: float) -> float:
        """Of the recent durations, in seconds; 0 if there is none."""
        with self._lock:
            return float(np.quantile(self._recent, share)) if self._recent else 0.0


class Meters:
    """The loader's stages: `read` one ranged GET, `starve` a decode thread's wait for bytes, `decode` one image to
    its view. `fill` is the share of the byte budget that was in use when a batch was begun."""

    def __init__(self, retries: int = 0, starving: Ints | None = None) -> None:
        self.began, self._retries = time.perf_counter(), retries
        self.read, self.starve, self.decode, self.fill = (Stage() for _ in range(4))
        self.starving = np.zeros(1, np.int64) if starving is None else starving  # threads that wait for bytes just now

    def summary(self, retries: int) -> dict[str, float]:
        """Metrics by MLflow's names. `retries` is the store's count by now, as it was given at the beginning."""
        wall = time.perf_counter() - self.began
        return {
            "perf/read_mb_per_s": self.read.size / wall / 1e6,
            "perf/read_p50_ms": 1e3 * self.read.quantile(0.5),
            "perf/read_p99_ms": 1e3 * self.read.quantile(0.99),
            "perf/read_retries": float(retries - self._retries),
            "perf/decode_p50_ms": 1e3 * self.decode.quantile(0.5),
            "perf/decode_p99_ms": 1e3 * self.decode.quantile(0.99),
            "perf/decode_starved_ms": 1e3 * self.starve.seconds / max(1, self.starve.count),
            "perf/prefetch_fill": self.fill.seconds / max(1, self.fill.count),
        }


def together(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of loaders that do equal parts of the same work: what they read adds up, all else is their mean."""
    totals = {name: sum(summary[name] for summary in summaries) for name in (summaries[0] if summaries else ())}
    return {name: total if name in ADDED else total / len(summaries) for name, total in totals.items()}
