"""Types of parameters: how what stands on the command line is read, and why it is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jobs.submission import Nodes

UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
         "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip


MOST_BYTES = 1 << 63
MOST_LINK = 1e9  # of its number before the unit


class Bytes(click.ParamType[int]):
    """A number of bytes: 1000000, 512MiB, 1.5GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+) *([a-zA-Z]*)", str(value))
        if found is None or found[2].upper() not in UNITS:
            self.fail(f"{value!r} is no number of bytes; write for example 512MiB or 2GB", param, ctx)
        size = float(found[1]) * UNITS[found[2].upper()]
        if not 1 <= size < MOST_BYTES:
            self.fail("it must be at least one byte, and less than 2^63", param, ctx)
        return int(size)


class Number(click.FloatRange):
    """A number in a range, and neither infinite nor NaN, which no JSON has."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class Link(click.ParamType[float]):
    """A link's bits a second: 25Gb, 100Mb, 10Gb/s."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *([GMT])b(?:it)?(?:/s|ps)?", str(value))
        if found is None or not 0 < float(found[1]) < MOST_LINK:
            self.fail(f"{value!r} is no link; write for example 25Gb or 100Mb, in bits a second", param, ctx)
        return float(found[1]) * {"M": 1e6, "G": 1e9, "T": 1e12}[found[2]]


class NodeRange(click.ParamType["Nodes"]):
    """A number of nodes, or the least and the most of an elastic run: 4, 2:8."""

    name = "n|min:max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Nodes:
        if isinstance(value, tuple):
            return value
        least, _, most = str(value).partition(":")
        if not (least.isdecimal() and (most or least).isdecimal() and 1 <= int(least) <= int(most or least)):
            self.fail(f"{value!r} is no number of nodes; write for example 4, or 2:8 for 2 to 8", param, ctx)
        return int(least), int(most or least)


class Scales(click.ParamType[tuple[int, ...]]):
    """Test scales with commas between them."""

    name = "Q,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            scales = tuple(int(q) for q in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} isn't a list of numbers; write e.g. 256,384,512", param, ctx)
        if len(set(scales)) < len(scales):
            self.fail(f"a test scale stands twice in {value}; name each once", param, ctx)
        return scales


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
