"""What a check found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """`next_step` is what to do about a failure or a warning, or so that a check isn't skipped."""

    name: str
    state: State
    detail: str
    next_step: str | None = None


def attempt(name: str, act: Callable[[], str], next_step: str | None = None) -> Finding:
    """ok with what `act` returns, or failed with what it raises: one thing that fails mustn't hide the others."""
    try:
        return Finding(name, "ok", act())
    except Exception as error:
        return failed(name, error, next_step)


def failed(name: str, error: Exception, next_step: str | None = None) -> Finding:
    """Failed with an error's first line."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return Finding(name, "failed", reason[0], next_step)
