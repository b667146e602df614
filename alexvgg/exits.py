"""What the exit codes of all commands mean. They don't change between releases."""

from enum import IntEnum


class Exit(IntEnum):
    """How a process ended, as a shell, a scheduler or Kubernetes sees it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "Exit":
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "something failed, or what was checked is wrong"
    REFUSED = 2, "the request can't be carried out; nothing was started"
    JOB_FAILED = 100, "the job or campaign failed"
    NOT_FOUND = 102, "what was named isn't there, or several may be meant"
    JOB_STOPPED = 103, "the job or campaign was stopped"
    INTERRUPTED = 130, "interrupted by Ctrl-C; a job that was followed goes on, a training has written a checkpoint"
    TERMINATED = 143, "stopped by SIGTERM after a checkpoint; the same command goes on from there"


def exit_codes_text() -> str:
    """For the end of `alexvgg --help`."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {code.meaning}" for code in Exit)
