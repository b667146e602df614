"""The driver that a submission sends to the cluster as one Ray job: train a list of runs, parents first.

    python -m jobs.campaign STORAGE_URL CAMPAIGN

Everything it needs to know lies in storage; a finished run is skipped, so it can be killed and started again.
"""

import json
import logging
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

import ray

from alexvgg.config import Execution, RunSpec, from_dict, to_dict
from alexvgg.data.store import Store, open_store
from alexvgg.runs import is_finished, mark_failed

STOPPED = 143  # 128 + SIGTERM, as a shell shows it


@dataclass(frozen=True)
class Campaign:
    """Runs in the order in which they must be trained, and how."""

    name: str
    runs: tuple[RunSpec, ...]
    execution: Execution

    def save(self, storage: Store) -> None:
        document = {"runs": [to_dict(r) for r in self.runs], "execution": to_dict(self.execution)}
        storage.put(f"campaigns/{self.name}.json", json.dumps(document, indent=2).encode())

    @classmethod
    def load(cls, storage: Store, name: str) -> "Campaign":
        document = json.loads(storage.get(f"campaigns/{name}.json"))
        runs = tuple(from_dict(RunSpec, r) for r in document["runs"])
        return cls(name, runs, from_dict(Execution, document["execution"]))


def drive(storage: Store, campaign: Campaign, stop: threading.Event) -> bool:
    """Train what isn't finished. A run that fails is recorded and keeps back only its descendants.

    When `stop` is set the run that is training ends with a checkpoint, and none begins. Returns whether every run is
    finished.
    """
    from jobs.train import StopSign, fit  # submitting needs only what a campaign is, not what carries it out

    stop_sign = StopSign.start()

    def hand_on() -> None:
        stop.wait()
        stop_sign.set.remote()

    threading.Thread(target=hand_on, daemon=True).start()
    lost: set[str] = set()
    campaign_began = time.monotonic()
    for number, spec in enumerate(campaign.runs, start=1):
        if stop.is_set():
            return False
        title = f"[{number}/{len(campaign.runs)}] {spec.name}"
        if is_finished(storage, spec.name):
            print(f"{title} is finished already", flush=True)
            continue
        if spec.parent is not None and spec.parent.run in lost:
            print(f"{title} can't start: its parent {spec.parent.run} failed", flush=True)
            lost.add(spec.name)
            continue
        start = f"from {spec.parent.run} ({spec.parent.how})" if spec.parent else f"from random ({spec.init.kind})"
        print(f"{title} starts {start}, {campaign.execution.workers} workers", flush=True)
        began = time.monotonic()
        try:
            fit(spec, campaign.execution, stop_sign)
        except Exception as error:  # Ray raises many types; each means that this run gave up
            mark_failed(storage, spec.name, str(error))
            lost.add(spec.name)
            print(f"{title} failed: {error}", flush=True)
        else:
            if not is_finished(storage, spec.name):
                print(f"{title} was stopped; the same submission goes on from its checkpoint", flush=True)
                return False
            print(f"{title} finished in {time.monotonic() - began:.0f} s", flush=True)
    done = len(campaign.runs) - len(lost)
    print(f"{done} of {len(campaign.runs)} runs are finished, {time.monotonic() - campaign_began:.0f} s", flush=True)
    return not lost


def main() -> None:
    storage_url, name = sys.argv[1:]
    ray.init(logging_level=logging.WARNING)
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)  # after ray.init, which sets its own
    storage = open_store(storage_url)
    finished = drive(storage, Campaign.load(storage, name), stop)
    sys.exit(0 if finished else STOPPED if stop.is_set() else 1)


if __name__ == "__main__":
    main()
