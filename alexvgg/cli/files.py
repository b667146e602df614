"""Options that name files."""

from pathlib import Path
from typing import Any

import click


class OutputFile(click.Path):
    """A file to be written: that it can be is tried before the work whose result it shall hold."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)  # type: ignore[assignment]  # path_type says so
        try:
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()
        except OSError as error:
            there = path.absolute().parent.is_dir()
            why = f"{path} can't be written: {error.strerror}" if there else f"there is no folder {path.parent}"
            self.fail(why, param, ctx)
        return path
