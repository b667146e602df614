"""Text in columns, as wide as it is or as a terminal allows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

GAP = "  "


@dataclass(frozen=True)
class Column:
    """A head and the texts below it. Where there is no room, those that are most `spare` go first, and 0 never."""

    head: str
    cells: Sequence[str]
    left: bool = False
    spare: int = 0

    @property
    def width(self) -> int:
        return max(map(len, (self.head, *self.cells)))

    def lines(self) -> list[str]:
        """Its texts, all of one width."""
        return [text.ljust(self.width) if self.left else text.rjust(self.width) for text in (self.head, *self.cells)]


def aligned(columns: Sequence[Column], width: int | None = None) -> list[str]:
    """A line of heads and one for each row; if all don't fit into `width`, without the spare ones, and the widest cut
    short."""
    shown = list(columns)
    while (excess := _excess(shown, width)) > 0 and (most := max(c.spare for c in shown)) > 0:
        shown = [c for c in shown if c.spare < most]
    if excess > 0:
        widest = max(shown, key=lambda c: c.width)
        room = max(1, widest.width - excess)
        cut = [text if len(text) <= room else text[: room - 1] + "…" for text in widest.cells]
        shown[shown.index(widest)] = replace(widest, cells=cut)
    return [GAP.join(row).rstrip() for row in zip(*(c.lines() for c in shown), strict=True)]


def _excess(columns: Sequence[Column], width: int | None) -> int:
    """How many characters of a line have no room."""
    return 0 if width is None else sum(c.width for c in columns) + len(GAP) * (len(columns) - 1) - width
