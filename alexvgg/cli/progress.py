"""Progress on stderr: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from alexvgg.data.progress import Say


def say(message: str) -> None:
    """Progress and hints go to stderr, so that stdout stays data."""
    click.echo(message, err=True)


class Bars:
    """Says lines above a bar for each thing that takes long; `alexvgg.data.progress.ShowsProgress`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, message: str) -> None:
        self._progress.console.print(message, highlight=False, markup=False)

    def show(self, verb: str, done: int, total: int, what: str) -> None:
        if verb not in self._tasks:
            self._tasks[verb] = self._progress.add_task(verb, total=total, what=what)
        self._progress.update(self._tasks[verb], completed=done, what=what)


@contextmanager
def telling(*, aloud: bool = True) -> Iterator[Say]:
    """What a long command tells its progress to; of several ranks only one tells it aloud."""
    if not aloud:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)
