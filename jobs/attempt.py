"""The job of one attempt, whatever it carries out: it shows that it lives, obeys, and writes down how it ended."""

import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import ray

from alexvgg.attempts import BEAT_SECONDS, Attempt
from alexvgg.config import Execution, from_dict
from alexvgg.engine.wishes import Stopped
from alexvgg.errors import InputError
from alexvgg.exits import Exit
from alexvgg.repeating import repeating
from jobs.workers import MistakeError, UnplacedError

LOOK_SECONDS = 1.0


def carry_out(attempt: Attempt, work: Callable[[Execution], None], on_stop: Callable[[], None] = lambda: None) -> Exit:
    """Call `work` with how the claim says to do it; the exit code of its job is returned.

    `work` returns when it is done, or has written down itself how the attempt ended. An InputError or a MistakeError
    that it raises fails the attempt, and an UnplacedError says that its workers found no room; anything else counts as
    lost: it will be tried again. SIGTERM becomes a wish in the storage, and `on_stop` is called.
    """
    if not attempt.begin() or attempt.signs()[1]:
        print(f"attempt {attempt.number} at {attempt.folder} is over; nothing to do", flush=True)
        return Exit.FAILED
    claim = attempt.read()
    ray.init(logging_level=logging.WARNING)
    with _living(attempt, on_stop):  # after ray.init, which sets its own handler of SIGTERM
        try:
            work(replace(from_dict(Execution, claim.execution), job=claim.job))
        except Stopped as stopped:
            attempt.end("stopped", str(stopped))
        except InputError as error:  # what another version of this package has written, say
            attempt.end("failed", str(error))
        except UnplacedError as error:
            attempt.end("unplaced", str(error))
        except Exception as error:  # Ray raises many types
            traceback.print_exc()
            attempt.end("failed" if isinstance(error, MistakeError) else "lost", str(error))
        else:
            attempt.end("finished")  # unless it wrote something else before
    return {"finished": Exit.DONE, "stopped": Exit.TERMINATED}.get(attempt.outcome() or "", Exit.FAILED)


@contextmanager
def _living(attempt: Attempt, on_stop: Callable[[], None]) -> Iterator[None]:
    """Inside, the attempt's beat grows, and SIGTERM asks it to stop."""
    stop = threading.Event()
    beats, asked = 0, False

    def live() -> None:
        nonlocal beats, asked
        if stop.is_set() and not asked:
            attempt.ask_to_stop()
            asked = True
        beats += 1
        if beats % round(BEAT_SECONDS / LOOK_SECONDS) == 1:
            attempt.beat(beats)

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()  # no more: the main thread may be in the middle of a call to the storage
        on_stop()

    signal.signal(signal.SIGTERM, ask)
    with repeating("beat", live, LOOK_SECONDS):
        yield
