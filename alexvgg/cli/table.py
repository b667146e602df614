"""`alexvgg table`"""

import json

import click

from alexvgg.cli.place import open_place, profile_option


@click.command()
@click.argument("name", type=click.Choice(["table3", "table4"]))
@profile_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def table(name: str, profile: str | None, as_json: bool) -> None:
    """Show a table of the VGG paper with our numbers beside its own.

    It shows runs on the profile's dataset at its geometry only. An empty row names the command that fills it.

    \b
    Example:
      alexvgg table table4
    """
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.recipes import GEOMETRIES, choose
    from alexvgg.results.table import comparability, fill, to_json, to_text
    from alexvgg.runs import list_runs

    place = open_place(profile)
    dataset = open_dataset(open_store(place.dataset))
    geometry = choose(GEOMETRIES, place.geometry, "geometry")
    rows = fill(name, list_runs(open_store(place.storage)), dataset.fingerprint, geometry)
    note = comparability(dataset.name, geometry)
    click.echo(json.dumps(to_json(name, rows, note), indent=2) if as_json else to_text(name, rows, note))
