"""Groups of commands, and how what goes wrong in any of them is told."""

import errno
import shutil
import sys
from typing import Any

import click
from click.core import ParameterSource

from alexvgg.data.store import MissingKeyError
from alexvgg.errors import InputError, ServiceError, StoreError
from alexvgg.exits import Exit


class Commands(click.Group):
    """A group whose commands end in one sentence and an exit code of `alexvgg.exits`, never in a traceback, when a
    request can't be carried out, storage, Ray or system refuse something for good, or Ctrl-C is pressed.

    Help lists them by importance, not by letter, and wraps their summaries where click would cut them off.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"alexvgg: {error}", err=True)
            sys.exit(error.exit_code)
        except (StoreError, MissingKeyError, ServiceError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:  # click's own to end quietly
                raise
            click.echo(f"alexvgg: {_sentence(error)}", err=True)
            sys.exit(Exit.FAILED)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(Exit.INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def given(option: str) -> bool:
    """Whether the command line has the option, so that its value isn't a default."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def terminal_width() -> int | None:
    """In columns; None if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _sentence(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.ENOSPC:
        where = "the disk" if error.filename is None else f"the disk of {error.filename}"
        return f"{where} is full: free some room, then give the command again"
    return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
