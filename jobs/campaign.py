"""The driver that a submission sends to the cluster as one Ray job: it carries a campaign to its end.

    python -m jobs.campaign STORAGE_URL CAMPAIGN JOB

Each training and evaluation is a Ray job of its own. Everything the driver needs to know lies in storage; so it can be
killed while they go on, and the next one adopts them. A driver that finds another one at work stands by.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from alexvgg.campaign.driver import Driver
from alexvgg.campaign.plan import Campaign
from alexvgg.data.store import Store, open_store
from alexvgg.exits import Exit
from alexvgg.lease import Lease, LeaseLostError, Newcomer
from jobs.ray_jobs import RayJobs

TICK_SECONDS = 1.0
PATIENCE_SECONDS = 900.0  # with a storage or a cluster that doesn't answer


class _Patience:
    """What goes wrong in a look at storage or cluster is tried again; after PATIENCE_SECONDS of that it is raised."""

    def __init__(self) -> None:
        self._healthy = time.monotonic()

    @contextmanager
    def look(self) -> Iterator[None]:
        try:
            yield
            self._healthy = time.monotonic()
        except LeaseLostError:
            raise
        except Exception as error:  # of many types: the storage's, the Jobs API's
            if time.monotonic() - self._healthy > PATIENCE_SECONDS:
                raise
            _say(f"trying again: {error}")


def drive(storage: Store, campaign: Campaign, jobs: RayJobs, lease: Lease, stop: threading.Event) -> Exit:
    """Carry the campaign to its end, or until `stop` is set and what it started has ended. Returns the exit code."""
    driver, over, asked, patience = Driver(storage, campaign, jobs, lease, say=_say), False, False, _Patience()
    began = time.monotonic()
    while not over:
        with patience.look():
            if stop.is_set() and not asked:
                driver.stop()
                asked = True
            over = driver.tick()
        if not over:
            stop.wait(TICK_SECONDS) if not asked else time.sleep(TICK_SECONDS)
    _say(f"{driver.summary()}, {time.monotonic() - began:.0f} s")
    states = set(driver.states.values())
    if states == {"finished"}:
        lease.turn.end("finished")
        return Exit.DONE
    lease.turn.end("stopped" if asked or "stopped" in states else "failed")
    return Exit.TERMINATED if asked or "stopped" in states else Exit.FAILED


def stand_by(newcomer: Newcomer, campaign: str, stop: threading.Event) -> Lease | None:
    """The lease, once it is free; None if this driver was stopped meanwhile, or the one that it waited for."""
    lease, waited, patience = None, False, _Patience()
    while lease is None:
        with patience.look():
            lease = newcomer.take()
            if lease is None and not waited:
                _say(f"another driver is at work on {campaign}; this one takes over if that one is lost")
                waited = True
        if lease is None and stop.wait(TICK_SECONDS):
            return None
    if waited and lease.turn.previous().outcome() == "stopped":
        lease.turn.end("stopped")
        return None
    return lease


def main() -> None:
    storage_url, name, job = sys.argv[1:]
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    storage = open_store(storage_url)
    campaign = Campaign.load(storage, name)
    jobs = RayJobs(storage_url, campaign.execution)
    newcomer = Newcomer(storage, name, job, jobs.has_ended)
    lease = stand_by(newcomer, name, stop)
    sys.exit(Exit.TERMINATED if lease is None else drive(storage, campaign, jobs, lease, stop))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
