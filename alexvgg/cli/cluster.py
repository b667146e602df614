"""`alexvgg cluster …`"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.options import json_option
from alexvgg.cli.place import bring_up
from alexvgg.cli.progress import say
from alexvgg.cli.render import render
from alexvgg.exits import Exit

if TYPE_CHECKING:
    from cluster.services import LocalCluster


@click.group(cls=Commands)
def cluster() -> None:
    """Run Ray, MLflow and an S3 service on this machine, on loopback addresses; describe clusters elsewhere."""


cluster.add_command(render)


@cluster.command()
@click.option(
    "--nodes", type=click.IntRange(min=1), default=4, show_default=True, help="Ray nodes beside the head, at least."
)
@click.option("--metrics", is_flag=True, help="Start Prometheus and Grafana, too, where their programs exist.")
def up(nodes: int, metrics: bool) -> None:
    """Start the local cluster, or what is missing of it. Its state lies in .alexvgg/ of this folder.

    \b
    Examples:
      alexvgg cluster up --nodes 4
      alexvgg cluster up --nodes 4 --metrics
    """
    found = bring_up(nodes, metrics=metrics)
    _show(found)
    click.echo(
        f"Train on it with `alexvgg submit --model vgg_e --nodes {found.nodes}`; stop it with `alexvgg cluster down`."
    )


@cluster.command()
@json_option
def status(as_json: bool) -> None:
    """Show what of the local cluster runs, and where. Exits with 1 unless it is up.

    \b
    Example:
      alexvgg cluster status
    """
    from cluster import local

    services, found = local.status(), local.find()
    if as_json:
        click.echo(json.dumps([vars(s) for s in services], indent=2))
        sys.exit(Exit.FAILED if found is None else Exit.DONE)
    for s in services:
        click.echo(f"{s.name:<10} {'up' if s.alive else 'down':<5} {s.address}")
    if found is None:
        say(f"The local cluster isn't {'whole' if local.lost() else 'up'}. Start it with `alexvgg cluster up`.")
        sys.exit(Exit.FAILED)
    click.echo()
    _show(found)
    if shutil.which("alexvgg") is None:
        activate = Path(sys.executable).with_name("activate")
        click.echo(f"First:             `. {activate}`, so that the shell knows alexvgg.")
    click.echo(f"Train another net: `alexvgg submit --model vgg_d --scale jitter --nodes {found.nodes}`.")
    click.echo("See each run:      `alexvgg status`; all results: `alexvgg report`.")
    click.echo("Stop the cluster:  `alexvgg cluster down`.")


@cluster.command()
def down() -> None:
    """Stop the local cluster; data, results and MLflow's runs stay in .alexvgg/.

    \b
    Example:
      alexvgg cluster down
    """
    from cluster import local

    local.down(say=say)


def _show(found: LocalCluster) -> None:
    from cluster import local
    from cluster.network import describe

    token = found.token.relative_to(Path.cwd())
    click.echo(f"Ray dashboard  {found.dashboard_url}  (it asks for the token in {token})")
    click.echo(f"MLflow         {found.mlflow_url}")
    for name in found.monitors:
        click.echo(f"{name.capitalize():<14} {found.url(name)}")
    click.echo(f"Network        {describe(local.network(found))}")
