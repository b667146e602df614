"""`alexvgg reproduce`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.sending import plan_and_send, sending_options

if TYPE_CHECKING:
    from alexvgg.config import RunSpec
    from alexvgg.planning import Images, Start
    from alexvgg.recipes import Geometry
    from alexvgg.request import Request

TARGETS = ("table3", "table4", "table5", "table6", "table7", "alexnet", "ablations", "all")  # of campaign.tables


@click.command()
@click.argument("table", type=click.Choice(TARGETS))
@click.option("--rows", metavar="N,…", help="Only these rows of the table, from 1; default: all that can be trained.")
@sending_options
def reproduce(table: str, rows: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Fill a table: train every net of its rows, with all they start from, then evaluate and fuse what it shows.

    All are the papers' tables, without the ablations.

    What is finished is used, and nothing is trained twice. Runs that don't need each other train side by side if the
    cluster has the nodes. It goes on through lost workers, nodes and drivers; the same command goes on after a stop.

    \b
    Examples:
      alexvgg reproduce table4 --nodes 4
      alexvgg reproduce table4 --rows 1,5 --nodes 2 --wait
      alexvgg reproduce all --nodes 2:8 --profile lab --dry-run
    """
    from alexvgg.campaign.tables import plan_rows, rows_of
    from alexvgg.config import parse_settings

    chosen, overrides = rows_of(table, _numbers(rows)), parse_settings(settings)

    def planner(images: Images, geometry: Geometry, _: Start | None) -> tuple[list[RunSpec], list[Request]]:
        return plan_rows(chosen, images, geometry, overrides)

    plan_and_send(table, planner, **options)


def _numbers(rows: str | None) -> list[int] | None:
    from alexvgg.errors import InputError

    if rows is None:
        return None
    try:
        return [int(n) for n in rows.split(",")]
    except ValueError:
        raise InputError(f"--rows {rows!r} isn't a list of numbers; write e.g. 1,5") from None
