"""What the world outside wants of a run: a checkpoint soon, or to stop. Every rank acts on it at the same step."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

LOOK_SECONDS = 5.0


class Stopped(Exception):  # noqa: N818  # no error: the run was asked to end, and its checkpoint is stored
    """The run ended early, on request, with a checkpoint. The same submission goes on from there."""


@dataclass
class Wishes:
    """Set on any rank, from any thread or signal handler; their sum over ranks is acted on (`alexvgg.engine.loop`).

    A checkpoint is wished every `checkpoint_seconds` anyway, for the first time so long after `saved`. `look` asks
    around for more, e.g. Ray for notices of preemption. It is called on every rank at the same step, so it may itself
    be a collective, and about every LOOK_SECONDS: for both one rank's clock counts, as many would ask many times.
    """

    look: Callable[["Wishes"], None] | None = None
    checkpoint_seconds: float = math.inf
    failure: Exception | None = None  # of a thread beside training; every rank then ends at the same step
    stop: threading.Event = field(default_factory=threading.Event)
    checkpoint: threading.Event = field(default_factory=threading.Event)
    _looked: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def flags(self, *, keeps_time: bool) -> tuple[float, float, float, float]:
        """(stop, checkpoint, look, failed) as this rank sees them; each checkpoint and look is asked for once."""
        now = time.monotonic()
        checkpoint = self.checkpoint.is_set() or (keeps_time and now - self.saved > self.checkpoint_seconds)
        look = self.look is not None and keeps_time and now - self._looked > LOOK_SECONDS
        if checkpoint:
            self.checkpoint.clear()
            self.saved = now
        if look:
            self._looked = now
        return float(self.stop.is_set()), float(checkpoint), float(look), float(self.failure is not None)


@contextmanager
def stopping_on_signals(wishes: Wishes, interrupted: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGTERM is the wish to stop: what schedulers, `docker stop` and torchrun send before SIGKILL.

    So is Ctrl-C, of which `interrupted` is told; a second one stops at once.
    """

    def ask(number: int, _frame: FrameType | None) -> None:
        wishes.stop.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            interrupted()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
