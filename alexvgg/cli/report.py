"""`alexvgg report`"""

from __future__ import annotations

import time
from pathlib import Path

import click

from alexvgg.cli.files import OutputFile
from alexvgg.cli.place import find_run, open_place, profile_option, say


@click.command()
@click.argument("target", required=False, metavar="[RUN|CAMPAIGN]")
@click.option("-o", "--output", type=OutputFile(), default="report.html", help="The file.")
@profile_option
@click.option("--mlflow/--no-mlflow", default=True, help="Also log it to MLflow, if the profile has one.")
def report(target: str | None, output: Path, profile: str | None, mlflow: bool) -> None:
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
    from alexvgg.errors import InputError
    from alexvgg.recipes import GEOMETRIES, choose
    from alexvgg.results.lineage import ancestors, parents_first
    from alexvgg.results.report.page import Material, leaves, page
    from alexvgg.results.sync import attach
    from alexvgg.runs import list_fusions, list_runs

    place = open_place(profile)
    dataset, storage = open_dataset(open_store(place.dataset)), open_store(place.storage)
    stored = list_runs(storage)
    started = [r for r in stored if r.spec and r.journal and r.spec.data.fingerprint == dataset.fingerprint]
    if not started:
        raise InputError(f"no run on {dataset.name} has started in {storage.url}; `alexvgg submit` trains one")
    chosen = parents_first(started)
    if target is not None:
        campaigns = [c for c in overview(storage).campaigns if c.name == target]
        known = {r.name for r in started}
        names = [w.name for c in campaigns for w in c.works if w.name in known] or [target]
        lines = [ancestors(find_run(started, name, storage.url), started) for name in names]
        chosen = parents_first({r.name: r for line in lines for r in line}.values())
    options = f" --profile {profile}" if profile else ""
    geometry = choose(GEOMETRIES, place.geometry, "geometry")
    material = Material(chosen, list_fusions(storage), storage, dataset, geometry, options, stored)
    output.write_text(page(material, time.time()), encoding="utf-8")
    click.echo(output)
    say(f"{len(chosen)} run{'s' if len(chosen) != 1 else ''}, {output.stat().st_size / 1e6:.1f} MB")
    if mlflow and place.mlflow is not None:
        attach(place.mlflow, [r.name for r in leaves(chosen)], output)
        say(f"logged to MLflow at {place.mlflow}")
