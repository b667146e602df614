"""Names: those that shells complete, and which run one means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from alexvgg.runs import RunRecord


def recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For arguments that are the name of a recipe."""
    from alexvgg.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For options that name a net as a submission does."""
    from alexvgg.recipes import RECIPES

    return [name for name in dict.fromkeys(r.target for r in RECIPES.values()) if name.startswith(incomplete)]


def run_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For arguments that name a run: those in the profile's storage."""
    from alexvgg import runs
    from alexvgg.cli.place import open_place
    from alexvgg.data.store import open_store

    try:
        storage = open_store(open_place(ctx.params.get("profile"), storage=ctx.params.get("storage")).storage)
        names = runs.run_names(storage)
    except Exception:  # whatever it is, it is said when the command runs
        return []
    return [name for name in names if name.startswith(incomplete)]


def tables_and_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For arguments that may also be a table."""
    from alexvgg.cli.table import NAMES

    return [*(name for name in NAMES if name.startswith(incomplete)), *recipes(ctx, param, incomplete)]


def find_run(runs: Sequence[RunRecord], name: str, where: str) -> RunRecord:
    """The run of that name; names may be cut short. Raises NotFoundError if there is none, or several are meant."""
    from alexvgg.errors import resolve

    by_name = {r.name: r for r in runs}
    return by_name[resolve(name, by_name, f"in {where}")]
