"""`alexvgg report`"""

from __future__ import annotations

import time
from pathlib import Path

import click

from alexvgg.cli.options import flags_of, place_options
from alexvgg.cli.parameters import OutputFile
from alexvgg.cli.place import need, open_place
from alexvgg.cli.progress import say


@click.command()
@click.argument("target", required=False, metavar="[RUN|CAMPAIGN]")
@click.option("-o", "--output", type=OutputFile(), default="report.html", help="The file.")
@place_options("storage", "dataset", "geometry")
@click.option("--mlflow/--no-mlflow", default=True, help="Also log it to MLflow, if the profile has one.")
def report(
    target: str | None,
    output: Path,
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    geometry: str | None,
    mlflow: bool,
) -> None:
    """Write one HTML file with tables, curves, filters, answers, lineage and provenance.

    Of all runs on the profile's dataset; or of a run, or a campaign's runs, and those they come from. The file loads
    nothing from anywhere.

    \b
    Examples:
      alexvgg report -o report.html
      alexvgg report vgg_e-jitter -o vgg_e.html
    """
    from alexvgg.campaign.overview import overview
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError, ServiceError, resolve
    from alexvgg.recipes import GEOMETRIES, choose
    from alexvgg.results.lineage import ancestors, parents_first
    from alexvgg.results.report.page import Material, leaves, page
    from alexvgg.results.sync import attach
    from alexvgg.runs import list_fusions, list_runs

    place = open_place(profile, storage=storage, dataset=dataset, geometry=geometry)
    images, store = open_dataset(open_store(need(profile, place, "dataset"))), open_store(place.storage)
    known = list_runs(store)
    started = [r for r in known if r.spec and r.journal and r.spec.data.fingerprint == images.fingerprint]
    chosen = parents_first(started)
    if target is not None:
        campaigns = {c.name: [w.name for w in c.works] for c in overview(store).campaigns}
        target = resolve(target, {*campaigns, *(r.name for r in known)}, f"in {store.url}")
        asked = [r for r in started if r.name in campaigns.get(target, [target])]
        chosen = parents_first({r.name: r for one in asked for r in ancestors(one, started)}.values())
    if not chosen:
        what = f"no run on {images.name}" if target is None else f"nothing of {target} on {images.name}"
        raise InputError(f"{what} has started in {store.url}; `alexvgg submit` trains, `alexvgg status` shows how far")
    options = flags_of(profile=profile, storage=storage, dataset=dataset), flags_of(geometry=geometry)
    size = choose(GEOMETRIES, place.geometry, "geometry")
    material = Material(chosen, list_fusions(store), store, images, size, *options, known)
    output.write_text(page(material, time.time()), encoding="utf-8")
    click.echo(output)
    say(f"{len(chosen)} run{'s' if len(chosen) != 1 else ''}, {output.stat().st_size / 1e6:.1f} MB")
    if mlflow and place.mlflow is not None:
        try:
            attach(place.mlflow, [r.name for r in leaves(chosen)], output)
            say(f"logged to MLflow at {place.mlflow}")
        except ServiceError as error:
            say(str(error))
