"""`alexvgg mlflow …`"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.names import find_run, run_names
from alexvgg.cli.options import json_option, place_options
from alexvgg.cli.place import need, open_place


@click.group(cls=Commands)
def mlflow() -> None:
    """MLflow beside the storage, which is the truth."""


@mlflow.command()
@click.argument("runs", nargs=-1, shell_complete=run_names, metavar="[RUN…]")
@place_options("storage")
@click.option("--url", help="The MLflow server instead of the profile's.")
@json_option
def sync(runs: tuple[str, ...], profile: str | None, storage: str | None, url: str | None, as_json: bool) -> None:
    """Make MLflow say what the storage says: of all runs, or of those named.

    It adds the points that MLflow missed while it was down, makes runs that it lost, and ends those that died. Doing
    it twice changes nothing.

    \b
    Examples:
      alexvgg mlflow sync
      alexvgg mlflow sync vgg_e-s256-3f2a91c4 --json
    """
    from alexvgg.data.store import open_store
    from alexvgg.profiles import check_no_login, check_url
    from alexvgg.results.sync import sync
    from alexvgg.runs import list_fusions, list_runs

    place = open_place(profile, storage=storage)
    server = url or need(profile, place, "mlflow")
    check_no_login("mlflow", server)
    check_url("--url", server)
    store = open_store(place.storage)
    known, fusions = list_runs(store), list_fusions(store)
    if runs:
        known, fusions = [find_run(known, name, store.url) for name in runs], []
    done, width = [], max((len(name) for name in (*(r.name for r in known), *(f["name"] for f in fusions))), default=0)
    for one in sync(server, store, known, fusions, time.time()):
        done.append(one)
        if not as_json:
            click.echo(f"{one.run:<{width}}  {one.action:<9}  {one.status:<8}  {one.points:>5} points added")
    if as_json:
        click.echo(json.dumps([asdict(one) for one in done], indent=2))
    elif not done:
        click.echo(f"no run in {store.url} has started yet")
