"""Options that say where: a profile, and what replaces parts of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from alexvgg.data.store import Store
    from alexvgg.profiles import Profile, Setting, Source
    from alexvgg.runs import RunRecord

BUCKET = "s3://alexvgg"  # in the local cluster's object storage
DIGITS = f"{BUCKET}/datasets/digits"
NOT_UP = (
    "no local cluster of this folder is up; start one with `alexvgg cluster up --nodes 4`, or go to the folder whose "
    ".alexvgg/ has yours"
)


def profile_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--profile NAME`"""
    return click.option("--profile", help="A [profile.NAME] of alexvgg.toml; the local cluster by default.")(command)


def storage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--profile`, and `--storage` and `--dataset`, which together make one needless."""
    command = click.option("--dataset", help="Dataset URL instead of the profile's.")(command)
    command = click.option("--storage", help="Storage URL instead of the profile's.")(command)
    return profile_option(command)


def open_stores(profile: str | None, storage: str | None, dataset: str | None) -> tuple[Store, Store]:
    """Storage and dataset, by URL or as the profile has them. With both URLs no profile is needed."""
    from alexvgg.data.store import open_store

    if storage is None or dataset is None:
        place = open_place(profile, storage=storage, dataset=dataset)
        storage, dataset = place.storage, place.dataset
    return open_store(storage), open_store(dataset)


def insecure_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--insecure`, for commands that talk to Ray; it sets what `jobs.client` looks at, so they needn't pass it on."""

    def allow(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ["ALEXVGG_INSECURE"] = "1"

    about = "Talk to Ray on another machine even if it asks nobody for a token."
    return click.option("--insecure", is_flag=True, expose_value=False, callback=allow, help=about)(command)


def dataset_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """`[URL]` and `--profile`: the dataset at URL, or the profile's."""
    return click.argument("url", required=False)(profile_option(command))


def dataset_url(url: str | None, profile: str | None) -> str:
    """What `dataset_argument` says."""
    return url if url is not None else open_place(profile).dataset


def find_run(runs: Sequence[RunRecord], name: str, where: str) -> RunRecord:
    """The run of that name; names may be cut short. Raises NotFoundError if there is none, or several are meant."""
    from alexvgg.errors import resolve

    by_name = {r.name: r for r in runs}
    return by_name[resolve(name, by_name, f"in {where}")]


def say(message: str) -> None:
    """Progress and hints go to stderr, so that stdout stays data."""
    click.echo(message, err=True)


def open_place(name: str | None, **changes: str | None) -> Profile:
    """The profile, with the given fields replaced.

    Of a local cluster that isn't up it has no dashboard, but the folders in which its storage lies. Raises InputError
    if there never was one.
    """
    from alexvgg.profiles import LOCAL, chosen_profile, settings_of, to_profile

    name = chosen_profile(name)
    return to_profile(settings_of(name, changes, _local() if name == LOCAL else None))


def settings_here(name: str | None) -> dict[str, Setting]:
    """The profile's settings with their origins; of a local cluster that isn't up, those that don't need it."""
    from alexvgg.errors import InputError
    from alexvgg.profiles import LOCAL, Source, chosen_profile, settings_of

    name = chosen_profile(name)
    if name != LOCAL:
        return settings_of(name)
    try:
        return settings_of(name, built_in=_local())
    except InputError:
        places = {"storage": BUCKET, "dataset": DIGITS, "geometry": "small"}
        return settings_of(name, built_in=Source("local cluster, which isn't up", places))


def connect(name: str | None, **changes: str | None) -> tuple[Profile, JobSubmissionClient]:
    """`open_place`, and the Jobs API of its cluster."""
    from alexvgg.errors import InputError

    place = open_place(name, **changes)
    if not place.dashboard:
        raise InputError(NOT_UP)
    from jobs.client import client  # only now: Ray reads where its token lies when it is imported

    return place, client(place.dashboard)


def known_jobs(place: Profile) -> list[dict[str, str]] | None:
    """Our jobs on the cluster, oldest first; None, after saying so, if the cluster doesn't answer."""
    from alexvgg.errors import InputError

    if not place.dashboard:
        say("Only what the storage says: the local cluster isn't up.")
        return None
    from jobs.client import client, jobs_of

    try:
        jobs = jobs_of(client(place.dashboard))
    except InputError as error:
        say(f"Only what the storage says: {error}")
        return None
    return [
        {"job": j.submission_id, "for": j.metadata["alexvgg"], "status": j.status.value, "message": j.message or ""}
        for j in jobs
    ]


def alive(jobs: list[dict[str, str]] | None) -> dict[str, bool] | None:
    """Of `known_jobs`: whether each is still going, by its id."""
    if jobs is None:
        return None
    from jobs.client import ENDED

    return {j["job"]: j["status"] not in ENDED for j in jobs}


@contextmanager
def place_to_submit(name: str | None, nodes: int, *, dry_run: bool, **changes: str | None) -> Iterator[Profile]:
    """`open_place`, after bringing up the local cluster if that is what is asked for.

    A dry run starts and stores nothing: without a local cluster that holds the sample dataset, it plans against one in
    a temporary folder.
    """
    from alexvgg.data.shards import is_complete
    from alexvgg.data.store import create_bucket, open_store
    from alexvgg.profiles import LOCAL, Source, chosen_profile, settings_of, to_profile
    from cluster import local

    if chosen_profile(name) != LOCAL:
        yield open_place(name, **changes)
        return
    images = "" if changes.get("dataset") else ", scikit-learn's digits"
    size = "" if changes.get("geometry") else ", the small geometry (crop 32, width 1/8)"
    say(f"No profile: this machine{images}{size}.")
    say("For ImageNet, pack it to S3 and name its URLs in a [profile.NAME] of alexvgg.toml; then add --profile NAME.")
    if dry_run:
        if (there := _with_dataset(name, **changes)) is not None:
            yield there
            return
        with tempfile.TemporaryDirectory() as folder:
            url = Path(folder).as_uri()
            _pack_digits(url)
            planned = {"dashboard": "", "storage": url, "dataset": url, "geometry": "small"}
            yield to_profile(settings_of(LOCAL, changes, Source("a dry run", planned)))
        return
    local.up(nodes, say=say)
    _local()  # the environment that its storage needs
    create_bucket(DIGITS)
    if not is_complete(open_store(DIGITS)):
        _pack_digits(DIGITS)
    yield open_place(name, **changes)


def _with_dataset(name: str | None, **changes: str | None) -> Profile | None:
    """`open_place`, if that has a dataset."""
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError

    try:
        place = open_place(name, **changes)
        return place if open_store(place.dataset).exists("dataset.json") else None
    except InputError:  # no cluster, or no bucket in it yet
        return None


def _pack_digits(url: str) -> None:
    from alexvgg.data.packing.sample import pack_digits  # imports torch: only when there is something to pack
    from alexvgg.data.store import open_store

    pack_digits(open_store(url))


def _local() -> Source:
    """What the local cluster gives, and this process's environment for it. Raises InputError if there never was one."""
    from alexvgg.errors import InputError
    from alexvgg.profiles import Source
    from cluster import local

    found = local.find()
    if found is None:
        folder = local.storage_folder()
        if not folder.exists():
            raise InputError(NOT_UP)
        bucket = (folder / BUCKET.removeprefix("s3://")).as_uri()  # the service keeps objects as files
        places = {"dashboard": "", "storage": bucket, "dataset": DIGITS.replace(BUCKET, bucket), "geometry": "small"}
        return Source("local cluster, which isn't up", places)
    os.environ.update(found.environment())
    return Source(
        "local cluster",
        {
            "dashboard": found.dashboard_url, "storage": BUCKET, "dataset": DIGITS,
            "mlflow": found.mlflow_url, "geometry": "small",
        },
    )  # fmt: skip
