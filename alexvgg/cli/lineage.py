"""`alexvgg lineage`"""

import json

import click

from alexvgg.cli.names import find_run, run_names
from alexvgg.cli.options import place_options
from alexvgg.cli.place import open_place


@click.command()
@click.argument("run", shell_complete=run_names)
@place_options("storage")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the origin and hash of every layer.")
def lineage(run: str, profile: str | None, storage: str | None, as_json: bool) -> None:
    """Show what a run started from and what started from it, with the layers that were copied.

    The beginning of a run's name is enough if no other run begins so.

    \b
    Examples:
      alexvgg lineage vgg_e-jitter
      alexvgg lineage vgg_e-s256-3f2a91c4 --json
    """
    from alexvgg.data.store import open_store
    from alexvgg.results.lineage import family, to_json, to_text
    from alexvgg.runs import list_runs
    from alexvgg.tracking.describing import read_transplant

    store = open_store(open_place(profile, storage=storage).storage)
    runs = list_runs(store)
    chosen = find_run(runs, run, store.url)
    origins = {r.name: read_transplant(store, r.name) for r in family(chosen, runs)}
    click.echo(json.dumps(to_json(chosen, runs, origins), indent=2) if as_json else to_text(chosen, runs, origins))
