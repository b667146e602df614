"""A run's newest numbers as Ray metrics: the dashboard's charts and any Prometheus find them."""

from typing import Any

from ray.util.metrics import Gauge


class Gauges:
    """One gauge for each number of the last steps or of an epoch, tagged with run and rank: `perf/images_per_s` becomes
    `alexvgg_perf_images_per_s`, which Ray exports with its own prefix `ray_`."""

    def __init__(self, run: str, rank: int) -> None:
        self._tags = {"run": run, "rank": str(rank)}
        self._gauges: dict[str, Gauge] = {}

    def set(self, event: dict[str, Any]) -> None:
        """Show what was measured; text is left out."""
        for name, value in event.items():
            if isinstance(value, int | float):
                if name not in self._gauges:
                    self._gauges[name] = Gauge(f"alexvgg_{name.replace('/', '_')}", tag_keys=tuple(self._tags))
                self._gauges[name].set(float(value), tags=self._tags)
