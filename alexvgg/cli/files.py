"""Options that name files."""

from pathlib import Path
from typing import Any

import click


class OutputFile(click.Path):
    """A file to be written: that its folder exists is checked before the work whose result it shall hold."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)  # type: ignore[assignment]  # path_type says so
        if not path.absolute().parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path
