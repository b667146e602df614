"""A run in a plain process, without Ray: it claims an attempt as a job does, so that nobody else trains the same."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from alexvgg.attempts import BEAT_SECONDS, Attempt, Claim, Outcome, Silence, history, newest_step, standing
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import Store, open_store
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.keys import run_folder
from alexvgg.process import lives_here, this_process
from alexvgg.repeating import repeating
from alexvgg.run import HOPELESS

LOOK_SECONDS = 1.0

Clock = Callable[[], float]


class Newcomer:
    """A process that wants to carry out what lies in `folder`: `take` is called every second or so until it may."""

    def __init__(self, storage: Store, folder: str, claim: Claim, clock: Clock = time.monotonic) -> None:
        self._storage, self._folder, self._claim, self._clock = storage, folder, claim, clock
        self._silence: tuple[int, Silence] | None = None

    def take(self) -> Attempt | None:
        """The attempt, begun; None while it isn't known whether the one before it still lives.

        What failed is tried again: whoever gives the command once more asks for that. Raises InputError if the attempt
        before it lives.
        """
        records = history(self._storage, self._folder)
        last = Attempt(self._storage, self._folder, len(records))
        match standing(records):
            case "live" if not self._is_over(last, records[-1].claim):
                return None
            case "live":
                last.end("lost", f"nothing was heard any more of {records[-1].claim.job}")
            case "failed":
                last.forgive()
        attempt = Attempt(self._storage, self._folder, len(records) + 1)
        if not attempt.claim(self._claim):
            return None
        attempt.begin()
        return attempt

    def _is_over(self, attempt: Attempt, claim: Claim) -> bool:
        lives = lives_here(claim.process) if claim.process is not None else None
        if self._silence is None or self._silence[0] != attempt.number:
            self._silence = attempt.number, Silence(attempt, self._clock)
        over = lives is False or self._silence[1].is_over()
        if not over and (lives or self._silence[1].heard):
            raise InputError(
                f"{self._folder.split('/')[1]} is being trained already, by {claim.job}. Two at once would overwrite "
                "each other's checkpoints: stop that one first, or wait; then the same command goes on from there."
            )
        return over


@contextmanager
def claiming(
    run: str, execution: Execution, world: World, wishes: Wishes, say: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[], Attempt]]:
    """Gives what `alexvgg.run.train` calls to claim an attempt. It lives as long as the block, whose end is its own.

    Every rank calls this; rank 0 claims, shows that it lives, and hears from the storage whether it is to stop.
    """
    storage, folder = open_store(execution.storage_url), run_folder(run)
    claimed: Attempt | None = None

    def claim() -> Attempt:
        nonlocal claimed
        refusal, number = None, 0
        if world.rank == 0:
            try:
                claimed = _wait_for(storage, folder, execution, say)
                number = claimed.number
                beats.enter_context(repeating("beat", beat, BEAT_SECONDS))
            except InputError as error:
                refusal = str(error)
        number, refusal = json.loads(world.texts(json.dumps([number, refusal]))[0])
        if refusal is not None:
            raise InputError(refusal)
        claimed = Attempt(storage, folder, number)
        return claimed

    count = 0

    def beat() -> None:
        nonlocal count
        assert claimed is not None
        count += 1
        claimed.beat(count)
        claimed.hear(wishes)

    def end(outcome: Outcome, why: object = None) -> None:
        # Another rank knows a reason of its own; of its companions' ends it sees broken connections only.
        if claimed is not None and (world.rank == 0 or outcome == "failed"):
            claimed.end(outcome, None if why is None else str(why))

    with ExitStack() as beats:
        try:
            yield claim
        except BaseException as error:
            with suppress(Exception):  # of a storage that is down: what it says first counts
                end(_outcome(error), error)
            raise
        end("finished")


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, HOPELESS):
        return "failed"
    return "lost" if isinstance(error, Exception) and not isinstance(error, Stopped) else "stopped"


def _wait_for(storage: Store, folder: str, execution: Execution, say: Callable[[str], None]) -> Attempt:
    words = f"process {os.getpid()} on {socket.gethostname()}"
    newcomer = Newcomer(storage, folder, Claim(words, to_dict(execution), process=this_process()))
    said = False
    while (attempt := newcomer.take()) is None:
        if not said:
            say("another attempt at this run hasn't ended; looking whether it still lives, for at most half a minute")
        said = True
        time.sleep(LOOK_SECONDS)
    if step := newest_step(storage, folder):
        say(f"going on from the checkpoint of step {step}")
    return attempt
