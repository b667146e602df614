"""The exceptions that are meant for the person at the keyboard."""


class InputError(ValueError):
    """A request that can't be carried out. Its message is a sentence: what, why, and what to try.

    The command line prints it and exits with `exit_code`; nothing was started.
    """

    exit_code = 2


class NotFoundError(InputError):
    """What was named isn't there."""

    exit_code = 102
