"""`alexvgg compare`"""

import json

import click

from alexvgg.cli.names import find_run, run_names
from alexvgg.cli.options import json_option, place_options
from alexvgg.cli.place import open_place


@click.command()
@click.argument("runs", nargs=-1, shell_complete=run_names, required=True, metavar="RUN RUN…")
@click.option("--baseline", metavar="RUN", help="The run that the others are held against; the first by default.")
@place_options("storage")
@json_option
def compare(
    runs: tuple[str, ...], baseline: str | None, profile: str | None, storage: str | None, as_json: bool
) -> None:
    """Show what two or more runs have different: settings, results, code and packages, lineage.

    The beginning of a run's name is enough if no other run begins so.

    \b
    Examples:
      alexvgg compare vgg_d-s256 vgg_e-s256
      alexvgg compare vgg_e-s256 vgg_e-s384 vgg_e-jitter --baseline vgg_e-s384 --json
    """
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError
    from alexvgg.results.compare import compare, to_json, to_text
    from alexvgg.runs import list_runs
    from alexvgg.tracking.describing import read_provenance

    store = open_store(open_place(profile, storage=storage).storage)
    known = list_runs(store)
    names = [*([baseline] if baseline is not None else []), *runs]
    chosen = list({r.name: r for r in (find_run(known, name, store.url) for name in names)}.values())
    if len(chosen) < 2:
        raise InputError(f"comparing needs two runs, and there is only {chosen[0].name}; name another one")
    comparison = compare(chosen, [read_provenance(store, r.name) for r in chosen], known)
    click.echo(json.dumps(to_json(comparison), indent=2) if as_json else to_text(comparison))
