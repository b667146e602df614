"""How fast training is right now."""

import time


class Pace:
    """Counts what a rank does from one report to the next."""

    def __init__(self) -> None:
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def add(self, images: int, waited: float) -> None:
        """One step was made, on `images` of all ranks; this rank's device waited that many seconds for its own."""
        self._images += images
        self._waited += waited

    def report(self) -> dict[str, float]:
        """Images per second over all ranks and its device's share of time spent waiting, since the last report."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        numbers = {"perf/images_per_s": self._images / seconds, "perf/data_wait_share": self._waited / seconds}
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0
        return numbers
