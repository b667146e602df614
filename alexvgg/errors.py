"""The one exception that is meant for the person at the keyboard."""


class InputError(ValueError):
    """A request that can't be carried out. Its message is a sentence: what, why, and what to try.

    The command line prints it and exits with 2; nothing was started.
    """
