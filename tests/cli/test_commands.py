"""What a person sees of what goes wrong: a sentence and an exit code, no traceback."""

import click
import pytest
from click.testing import CliRunner

from alexvgg.cli.commands import Commands
from alexvgg.data.store import MissingKeyError
from alexvgg.errors import DamagedError, InputError, ServiceError, StoreError
from alexvgg.evaluation.posteriors import StaleError


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("no such run"), 2, "alexvgg: no such run\n"),
        (StoreError("s3://b: gave up"), 1, "alexvgg: s3://b: gave up\n"),
        (DamagedError("runs/a/final: its sha256"), 1, "alexvgg: runs/a/final: its sha256\n"),
        (StaleError("runs/a/eval: damaged"), 1, "alexvgg: runs/a/eval: damaged\n"),
        (MissingKeyError("s3://b/k does not exist"), 1, "alexvgg: s3://b/k does not exist\n"),
        (PermissionError(13, "Permission denied", "x.html"), 1, "alexvgg: x.html: Permission denied\n"),
        (OSError(28, "No space"), 1, "alexvgg: the disk is full: free some room, then give the command again\n"),
        (OSError(28, "…", "a"), 1, "alexvgg: the disk of a is full: free some room, then give the command again\n"),
        (ServiceError("Ray can't"), 1, "alexvgg: Ray can't\n"),
        (ConnectionError("nothing answers"), 1, "alexvgg: nothing answers\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_are_sentences(error: BaseException, code: int, told: str) -> None:
    @click.group(cls=Commands)
    def program() -> None:
        pass

    @program.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(program, ["fail"])
    assert (result.exit_code, result.stderr) == (code, told)


def test_help_keeps_the_order_and_whole_summaries() -> None:
    summary = "Words that go on and on " * 6

    @click.group(cls=Commands)
    def program() -> None:
        pass

    for name in ("second", "first"):
        program.add_command(click.Command(name, help=summary))
    text = CliRunner().invoke(program, ["--help"], terminal_width=80).stdout
    assert text.index("second") < text.index("first")
    assert "..." not in text.split("Commands:")[1]
    assert max(map(len, text.splitlines())) <= 80
