"""Tables that no paper has: cells of words and of numbers."""

from collections.abc import Iterable, Sequence
from html import escape


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells by `head`, `words` and `number`; empty without rows."""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    if not body:
        return ""
    return f'<div class="scroll"><table><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'


def head(text: str, *, of_words: bool = False, columns: int = 1) -> str:
    """A column's title, or that of several columns."""
    place = ' class="place"' if of_words else ""
    wide = f' colspan="{columns}"' if columns > 1 else ""
    return f'<th scope="col"{place}{wide}>{escape(text)}</th>'


def words(text: str) -> str:
    return f'<td class="place">{escape(text)}</td>'


def number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'
