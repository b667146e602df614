"""What goes wrong in training, recognised early and said in a sentence: divergence, a stuck start, missing data."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from alexvgg.engine.chance import STUCK_STEPS, is_chance

log = logging.getLogger(__name__)

EXPLODED = 1e4  # a mean loss that no net comes back from: chance is ln(classes), 6.9 for ImageNet
STUCK_WINDOW = 50  # steps whose mean loss is looked at
STALL_SECONDS = 30.0


class DivergedError(RuntimeError):
    """The loss is NaN, infinite or absurd. The message says at which step and learning rate, and what to try."""


class TooLargeError(RuntimeError):
    """A step needs more memory than the GPU has. The message says what to try."""


@contextmanager
def holding(rows: int) -> Iterator[None]:
    """Inside, `rows` images go through the net at once. Raises TooLargeError if memory doesn't hold that."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        what = str(error).partition(". ")[0]
        same = f"--micro-batch {rows // 2} gives the same updates with less memory; " if rows > 1 else ""
        raise TooLargeError(f"{what}, for {rows} images at once: {same}more or larger GPUs help, too.") from None


def check_finite(losses: list[float], last_step: int, lr: float) -> None:
    """Raise DivergedError if one of the mean losses of the steps up to `last_step` is no number to go on from."""
    for step, loss in enumerate(losses, start=last_step - len(losses) + 1):
        if not math.isfinite(loss) or loss > EXPLODED:
            raise DivergedError(
                f"the loss is {loss:g} at step {step} (learning rate {lr:g}): training has diverged. Try a tenth of "
                f"the learning rate (--set train.lr={lr / 10:g}), or other first weights (--init glorot)."
            )


@dataclass
class StuckStart:
    """Notices a net that hasn't left chance: VGG's deep nets from random weights do this, for ever.

    `hint` says which start would help this net. It speaks once, after `patience` steps (at least STUCK_STEPS, and on a
    large dataset a whole epoch).
    """

    classes: int
    patience: int
    hint: str
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=STUCK_WINDOW))
    _done: bool = False

    def observe(self, losses: list[float], last_step: int) -> str | None:
        """The warning, when it is due; `losses` are those of the steps up to `last_step`."""
        self._recent.extend(losses)
        if self._done or last_step < max(self.patience, STUCK_STEPS) or len(self._recent) < STUCK_WINDOW:
            return None
        self._done = True
        mean = sum(self._recent) / len(self._recent)
        if not is_chance(mean, self.classes):
            return None
        return (
            f"the training loss has stayed at {mean:.3f} for {last_step} steps: that is chance, ln({self.classes}) = "
            f"{math.log(self.classes):.3f}. The net isn't learning, and waiting seldom helps. {self.hint}"
        )


class StallWatch:
    """Says when training waits for data for longer than `seconds`, while it waits, and for which stage of the loader.

    `stage` names what the loader is doing, e.g. "reading train-000012.tar".
    """

    def __init__(self, stage: Callable[[], str], seconds: float = STALL_SECONDS) -> None:
        self._stage, self._seconds = stage, seconds
        self._since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        said: float | None = None  # the beginning of the wait that was spoken of
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            since = self._since
            if since is not None and since != said and time.monotonic() - since > self._seconds:
                said = since
                log.warning("training has waited %.0f s for a batch; the loader is %s", self._seconds, self._stage())
