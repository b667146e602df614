"""`alexvgg table`"""

import json

import click

from alexvgg.cli.commands import given, terminal_width
from alexvgg.cli.options import flags_of, place_options
from alexvgg.cli.place import need, open_place

# Of results.paper, which takes long to import.
NAMES = ("table3", "table4", "table5", "table6", "table7", "alexnet", "ablations")
FORMAT_NAMES = ("text", "markdown", "csv", "html", "latex", "json")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@place_options("storage", "dataset", "geometry")
@click.option(
    "--format", "form", type=click.Choice(FORMAT_NAMES), default="text", show_default=True, help="How to print it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as --format json does.")
def table(
    name: str,
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    geometry: str | None,
    form: str,
    as_json: bool,
) -> None:
    """Show a table of the VGG paper, AlexNet's Table 2, or the ablations of both, with our numbers beside theirs.

    The ablations are what both papers' texts say of other nets. A table shows runs on the profile's dataset at its
    geometry only, and says if those aren't the paper's. An empty row names the command that fills it, or the next one
    on the way; behind a run stand settings that aren't the recipe's, and of how many it is the newest.

    \b
    Examples:
      alexvgg table table4
      alexvgg table table5 --json
      alexvgg table table3 --format markdown >> RESULTS.md
    """
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError
    from alexvgg.recipes import GEOMETRIES, choose
    from alexvgg.results.formats import FORMATS, to_json, to_text
    from alexvgg.results.table import comparability, fill
    from alexvgg.runs import list_fusions, list_runs

    if as_json and given("form") and form != "json":
        raise InputError(f"--json and --format {form} ask for two formats; give one of them")
    place = open_place(profile, storage=storage, dataset=dataset, geometry=geometry)
    images, store = open_dataset(open_store(need(profile, place, "dataset"))), open_store(place.storage)
    size = choose(GEOMETRIES, place.geometry, "geometry")
    options = flags_of(profile=profile, storage=storage, dataset=dataset), flags_of(geometry=geometry)
    rows = fill(name, list_runs(store), list_fusions(store), images, size, *options)
    note = comparability(images, size)
    if as_json or form == "json":
        click.echo(json.dumps(to_json(name, rows, note), indent=2))
    elif form == "text":
        click.echo(to_text(name, rows, note, terminal_width()))
    else:
        click.echo(FORMATS[form](name, rows, note))
