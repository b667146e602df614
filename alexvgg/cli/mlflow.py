"""`alexvgg mlflow …`"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.names import run_names
from alexvgg.cli.place import find_run, open_place, profile_option


@click.group(cls=Commands)
def mlflow() -> None:
    """MLflow beside the storage, which is the truth."""


@mlflow.command()
@click.argument("runs", nargs=-1, shell_complete=run_names, metavar="[RUN…]")
@profile_option
@click.option("--url", help="The MLflow server instead of the profile's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sync(runs: tuple[str, ...], profile: str | None, url: str | None, as_json: bool) -> None:
    """Make MLflow say what the storage says: of all runs, or of those named.

    It adds the points that MLflow missed while it was down, makes runs that it lost, and ends those that died. Doing
    it twice changes nothing.

    \b
    Examples:
      alexvgg mlflow sync
      alexvgg mlflow sync vgg_e-s256-3f2a91c4 --json
    """
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError
    from alexvgg.profiles import check_no_login
    from alexvgg.results.sync import sync
    from alexvgg.runs import list_fusions, list_runs

    place = open_place(profile)
    server = url or place.mlflow
    if server is None:
        raise InputError("this profile has no MLflow server; name one with --url, or as mlflow = … in alexvgg.toml")
    check_no_login("mlflow", server)
    storage = open_store(place.storage)
    known, fusions = list_runs(storage), list_fusions(storage)
    if runs:
        known, fusions = [find_run(known, name, storage.url) for name in runs], []
    done = []
    for one in sync(server, storage, known, fusions, time.time()):
        done.append(one)
        if not as_json:
            click.echo(f"{one.run:<30}{one.action:<11}{one.status:<10}{one.points:>7} points added")
    if as_json:
        click.echo(json.dumps([asdict(one) for one in done], indent=2))
    elif not done:
        click.echo(f"no run in {storage.url} has started yet")
