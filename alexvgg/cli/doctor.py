"""`alexvgg doctor`"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from alexvgg.cli.commands import terminal_width
from alexvgg.cli.options import insecure_option, json_option, profile_option
from alexvgg.cli.place import open_place
from alexvgg.exits import Exit

if TYPE_CHECKING:
    from alexvgg.doctor.finding import Finding
    from alexvgg.profiles import Profile

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}
INDENT = 37  # columns before a finding's detail


@click.command()
@profile_option
@insecure_option
@click.option("--nodes", is_flag=True, help="Let every node try its GPUs, storage and dataset, too, in a Ray job.")
@json_option
def doctor(profile: str | None, nodes: bool, as_json: bool) -> None:
    """Try all that a submission needs, and say what to do about what fails.

    Package versions, GPUs and NCCL, disk, and of the profile: ports, Ray with its token and version, the storage's
    reads and conditional writes, the dataset's index and one image, MLflow, clocks. Exits with 1 if anything fails.

    \b
    Examples:
      alexvgg doctor
      alexvgg doctor --profile lab --nodes
      alexvgg doctor --profile lab --json
    """
    found = []
    for finding in _findings(profile, nodes):
        found.append(finding)
        if not as_json:
            click.echo(_lines(finding))
    failed = any(f.state == "failed" for f in found)
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "findings": [vars(f) for f in found]}, indent=2))
    sys.exit(Exit.FAILED if failed else Exit.DONE)


def _findings(name: str | None, nodes: bool) -> Iterator[Finding]:
    from alexvgg.doctor.finding import Finding
    from alexvgg.doctor.machine import check_disk, check_free_ports, check_gpus
    from alexvgg.doctor.versions import check_versions
    from alexvgg.errors import InputError
    from alexvgg.profiles import LOCAL, chosen_profile
    from cluster import local
    from cluster.services import PORTS

    yield from check_versions()
    yield from check_gpus()
    yield from check_disk()
    chosen = chosen_profile(name)
    if chosen == LOCAL and local.find() is None:
        if lost := local.lost():
            step = "`alexvgg cluster up` starts what is missing, and `alexvgg cluster down` stops the rest."
            yield Finding("local cluster", "failed", f"{', '.join(lost)} is down, and others of it are up", step)
            return
        yield check_free_ports(PORTS)
        detail = "it isn't up, so Ray, storage, dataset, MLflow and clocks aren't checked"
        step = "Start it: `alexvgg cluster up --nodes 4`, or name another place with --profile."
        yield Finding("local cluster", "skipped", detail, step)
        return
    try:
        place = open_place(name)
    except InputError as error:
        yield Finding(
            f"profile {chosen}", "failed", str(error), f"`alexvgg config show --profile {chosen}` lists its settings."
        )
        return
    yield from _of_place(place, nodes)


def _of_place(place: Profile, nodes: bool) -> Iterator[Finding]:
    from alexvgg.doctor.finding import Finding
    from alexvgg.doctor.machine import check_port
    from alexvgg.doctor.places import check_clock, check_dataset, check_mlflow, check_storage, service_url

    services = {"dashboard": place.dashboard, "storage": service_url(place.storage), "mlflow": place.mlflow}
    answering = {}
    for service, url in services.items():
        if url is not None:
            port = check_port(service, url)
            if service == "storage" and port.state == "failed":
                port = replace(port, state="warning")  # a proxy may lead there: it is tried, whatever its port says
            yield port
            if port.state == "ok":
                answering[service] = url
    if "dashboard" in answering:
        from jobs.doctor import check_nodes, check_ray  # only now: importing Ray, it reads where its token lies

        dashboard = answering["dashboard"]
        ray = list(check_ray(place, dashboard))
        yield from ray
        if nodes and ray[0].state == "ok" and place.dataset is not None:
            yield from check_nodes(dashboard, place.storage, place.dataset)
            nodes = False
    if nodes:
        step = "--nodes asks them through Ray and lets them read the dataset: mend or name these first."
        yield Finding("nodes", "skipped", "Ray doesn't answer, or the profile has no dataset", step)
    yield from check_storage(place.storage)
    if place.dataset is not None:
        yield from check_dataset(place.dataset)
    if "mlflow" in answering:
        yield check_mlflow(answering["mlflow"])
    for setting, example in (("dashboard", "http://…"), ("dataset", "s3://…"), ("mlflow", "http://…")):
        if getattr(place, setting) is None:
            step = f'Name one: {setting} = "{example}" in alexvgg.toml'
            yield Finding(setting, "skipped", "this profile has none", step)
    for service, url in answering.items():
        yield check_clock(service, url)


def _lines(finding: Finding) -> str:
    """A finding for people; on a terminal wrapped to its width."""
    width = terminal_width() or 10_000
    state = click.style(f"{finding.state:<8}", fg=COLOURS[finding.state])
    texts = [finding.detail, *([f"→ {finding.next_step}"] if finding.next_step else [])]
    lines = [line for text in texts for line in textwrap.wrap(text, max(40, width - INDENT), break_on_hyphens=False)]
    return "\n".join([f"{state} {finding.name:<27} {lines[0]}", *(" " * INDENT + line for line in lines[1:])])
