"""What the exit codes of all commands mean. They don't change between releases."""

EXIT_CODES = {
    0: "done",
    1: "something failed, or what was checked is wrong",
    2: "the request can't be carried out; nothing was started",
    100: "the job or campaign failed",
    102: "what was named isn't there",
    103: "the job or campaign was stopped",
    130: "interrupted by Ctrl-C; a job that was followed goes on",
    143: "stopped by SIGTERM after a checkpoint; the same command goes on from there",
}


def exit_codes_text() -> str:
    """For the end of `alexvgg --help`."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
