"""The exceptions that are meant for the person at the keyboard, and what their sentences have in common."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A request that can't be carried out. Its message is a sentence: what, why, and what to try.

    The command line prints it and exits with `exit_code`; nothing was started.
    """

    exit_code = 2


class NotFoundError(InputError):
    """What was named isn't there."""

    exit_code = 102


def did_you_mean(word: str, known: Iterable[str], all_of_them: str = "there are") -> str:
    """The end of a sentence about an unknown word: a close one, or all there are."""
    known = list(known)
    if close := difflib.get_close_matches(word, known, n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; {all_of_them} {', '.join(known) or 'none'}"
