"""What goes wrong in training, recognised early and said in a sentence: divergence, a loss at chance, missing data."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from alexvgg.engine.chance import STUCK_STEPS, has_learned, is_chance

log = logging.getLogger(__name__)

EXPLODED = 1e4  # a mean loss that no net comes back from: chance is ln(classes), 6.9 for ImageNet
WINDOW = 50  # steps whose mean loss is looked at
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
class Learning:
    """Notices a net at chance: one that hasn't left it, as VGG's deep nets from random weights do for ever, or one that
    is back there.

    `hint` says which start would help this net, and is given after `patience` steps (at least STUCK_STEPS, and on a
    large dataset a whole epoch). Of both it speaks once.
    """

    classes: int
    patience: int
    hint: str
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _lowest: float = math.inf  # mean of a window
    _said: set[str] = field(default_factory=set)

    def observe(self, losses: list[float], last_step: int, lr: float) -> str | None:
        """The warning, when it is due; `losses` are those of the steps up to `last_step`."""
        self._recent.extend(losses)
        if len(self._recent) < WINDOW:
            return None
        mean = sum(self._recent) / len(self._recent)
        self._lowest = min(self._lowest, mean)
        if not is_chance(mean, self.classes):
            return None
        chance = f"that is chance, ln({self.classes}) = {math.log(self.classes):.3f}"
        if has_learned(self._lowest, self.classes):
            return self._once(
                "lost",
                f"the training loss was {self._lowest:.3f} and is {mean:.3f} at step {last_step}: {chance}. The net "
                f"has lost what it had learned. Try a lower learning rate (--set train.lr={lr / 10:g}).",
            )
        if last_step < max(self.patience, STUCK_STEPS):
            return None
        return self._once(
            "stuck",
            f"the training loss is {mean:.3f} after {last_step} steps: {chance}. The net isn't learning, and waiting "
            f"seldom helps. {self.hint}",
        )

    def _once(self, kind: str, message: str) -> str | None:
        if kind in self._said:
            return None
        self._said.add(kind)
        return message


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
