"""What is done again and again beside all else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LEAVE_SECONDS = 1.0  # for a last call that is on its way


@contextmanager
def repeating(name: str, act: Callable[[], None], seconds: float) -> Iterator[None]:
    """Inside, a thread calls `act` every `seconds`, at once for the first time, whatever it raises.

    What needs the storage notices itself that it is down; this must live on, and isn't waited for long at the end.
    """
    closing = threading.Event()

    def work() -> None:
        while True:
            with suppress(Exception):
                act()
            if closing.wait(seconds):
                return

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(LEAVE_SECONDS)
