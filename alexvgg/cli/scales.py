"""`--test-scales Q,…`"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


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


def test_scales_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command receives a tuple, or None for each run's own scales."""
    return click.option(
        "--test-scales",
        type=Scales(),
        metavar="Q,…",
        help="Q's to average, e.g. 256,384,512; the run's own by default.",
    )(command)
