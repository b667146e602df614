"""The exceptions that are meant for the person at the keyboard, and what their sentences have in common."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from alexvgg.exits import Exit

MOST_NAMES = 40  # in a sentence


class InputError(ValueError):
    """A request that can't be carried out. Its message is a sentence: what, why, and what to try.

    The command line prints it and exits with `exit_code`; nothing was started.
    """

    exit_code = Exit.REFUSED


class NotFoundError(InputError):
    """What was named isn't there."""

    exit_code = Exit.NOT_FOUND


class StoreError(RuntimeError):
    """The storage failed for good: what, where, and why."""


class DamagedError(StoreError):
    """What lies in the storage isn't what was written, so that trying again reads the same."""


class ServiceError(RuntimeError):
    """Ray or MLflow refused a request, or couldn't carry it out."""


@contextmanager
def reading(document: str) -> Iterator[None]:
    """Inside, a stored document is made sense of. Raises InputError that names it if there is none in it."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{document}: {error}") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{document} isn't what alexvgg writes: {error!r}") from None


def did_you_mean(word: str, known: Iterable[str], all_of_them: str = "there are") -> str:
    """The end of a sentence about an unknown word: a close one, or all there are."""
    known = list(known)
    if (close := nearest(word, known)) is not None:
        return f"; did you mean {close!r}?"
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"; {all_of_them} {', '.join(known[:MOST_NAMES]) or 'none'}{more}"


def resolve(name: str, known: Iterable[str], where: str = "in the storage") -> str:
    """The one of `known` that a name stands for, cut short or not. Raises NotFoundError if there is none or several."""
    names = sorted(known)
    found = [name] if name in names else [n for n in names if n.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"{name!r} may be {', '.join(found)}; write more of the one's name that you mean")
    raise NotFoundError(f"there is no {name!r} {where}{did_you_mean(name, names)}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that may have been meant by an unknown word."""
    by_lower = {name.lower(): name for name in known}
    return next((by_lower[name] for name in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)), None)
