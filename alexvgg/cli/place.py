"""Where a command works: what a profile, or what replaces parts of it, leads to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexvgg.cli.progress import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from alexvgg.data.store import Store
    from alexvgg.profiles import Profile, Setting, Source
    from cluster.services import LocalCluster

BUCKET = "s3://alexvgg"  # in the local cluster's object storage
DIGITS = f"{BUCKET}/datasets/digits"
NEVER_UP = "local cluster, which isn't up"  # the origin of what it would have
NONE_UP = "no local cluster of this folder is up"
START_ONE = (
    "start one with `alexvgg cluster up --nodes 4`, or go to the folder whose .alexvgg/ has yours; what only reads a "
    "storage takes its --storage URL instead"
)


def open_stores(profile: str | None, **changes: str | None) -> tuple[Store, Store]:
    """Storage and dataset, by URL or as the profile has them."""
    from alexvgg.data.store import open_store

    place = open_place(profile, **changes)
    return open_store(place.storage), open_store(need(profile, place, "dataset"))


def dataset_url(url: str | None, profile: str | None) -> str:
    """What `dataset_argument` says."""
    return reach(url, profile) if url is not None else need(profile, open_place(profile), "dataset")


def reach(url: str, profile: str | None = None) -> str:
    """`url`; if it lies in the local cluster's bucket, this process's environment becomes that of its S3 service."""
    if url == BUCKET or url.startswith(f"{BUCKET}/"):
        settings_here(profile)
    return url


def open_place(name: str | None, **changes: str | None) -> Profile:
    """The profile, with the given fields replaced. Raises InputError if nothing says where its storage is.

    Of a local cluster that isn't up it has no dashboard, but the folders in which its storage lies.
    """
    from alexvgg.errors import InputError
    from alexvgg.profiles import chosen_profile, to_profile

    settings = settings_here(name, **changes)
    there = {key: s for key, s in settings.items() if s.origin != NEVER_UP or key == "geometry"}
    if "storage" not in there and "storage" in settings:
        raise InputError(_not_up())
    if "storage" not in there:
        raise InputError(_lacks(chosen_profile(name), "storage"))
    return to_profile(there)


def need(name: str | None, place: Profile, setting: Literal["dataset", "dashboard", "mlflow"]) -> str:
    """A setting that not every command needs. Raises InputError if the place of that name hasn't it."""
    from alexvgg.errors import InputError
    from alexvgg.profiles import LOCAL, chosen_profile

    value: str | None = getattr(place, setting)
    if value is not None:
        return value
    chosen = chosen_profile(name)
    if chosen == LOCAL and setting != "dataset":
        raise InputError(_not_up())
    raise InputError(_lacks(chosen, setting))


def _lacks(profile: str, setting: str) -> str:
    from alexvgg.profiles import PREFIX

    variable = PREFIX + setting.upper()
    flags = {"storage": "--storage", "mlflow": "--url", "dataset": "--dataset; the URL alone for `alexvgg data`"}
    flag = f"on the command line ({flags[setting]}), " if setting in flags else ""
    return f"profile {profile} has no {setting}; name it {flag}with {variable}, or as {setting} = … in alexvgg.toml"


def _not_up() -> str:
    down = _down()
    return f"{down}; {START_ONE}" if down == NONE_UP else down


def _down() -> str:
    """What of the local cluster isn't up."""
    from cluster import local

    if not (lost := local.lost()):
        return NONE_UP
    return f"{', '.join(lost)} of this folder's local cluster is down, which `alexvgg cluster up` starts again"


def settings_here(name: str | None, **changes: str | None) -> dict[str, Setting]:
    """The profile's settings with their origins; of a local cluster that never was up, what it would have.

    This process's environment becomes that of the local cluster's services among them.
    """
    from alexvgg.profiles import LOCAL, chosen_profile, settings_of

    name = chosen_profile(name)
    if name != LOCAL:
        return settings_of(name, changes)
    cluster, environment = _local()
    settings = settings_of(name, changes, cluster)
    for setting, prefix in (("storage", "AWS_"), ("dataset", "AWS_"), ("dashboard", "RAY_")):
        if setting in cluster.values and settings[setting].origin == cluster.origin:
            os.environ.update({key: value for key, value in environment.items() if key.startswith(prefix)})
    return settings


def connect(name: str | None, **changes: str | None) -> tuple[Profile, JobSubmissionClient]:
    """`open_place`, and the Jobs API of its cluster."""
    place = open_place(name, **changes)
    dashboard = need(name, place, "dashboard")
    from jobs.client import client  # only now: Ray reads where its token lies when it is imported

    return place, client(dashboard)


def known_jobs(name: str | None, place: Profile) -> list[dict[str, str]] | None:
    """The cluster's jobs of this storage, and packings, oldest first; None, after saying so, if it doesn't answer."""
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError, ServiceError
    from alexvgg.profiles import LOCAL, chosen_profile

    if place.dashboard is None and chosen_profile(name) == LOCAL:
        say(f"Only what the storage says: {_down()}.")
        return None
    try:
        dashboard = need(name, place, "dashboard")
        from jobs.client import client, jobs_of

        jobs = jobs_of(client(dashboard))
    except (InputError, ServiceError) as error:
        say(f"Only what the storage says: {error}")
        return None
    storage = open_store(place.storage).url
    return [
        {"job": j.submission_id, "for": j.metadata["alexvgg"], "status": j.status.value, "message": j.message or ""}
        for j in jobs
        if j.metadata.get("storage") in (None, storage)
    ]


def alive(jobs: list[dict[str, str]] | None) -> dict[str, bool] | None:
    """Of `known_jobs`: whether each is still going, by its id."""
    if jobs is None:
        return None
    from jobs.client import ENDED

    return {j["job"]: j["status"] not in ENDED for j in jobs}


def bring_up(nodes: int, *, metrics: bool = False) -> LocalCluster:
    """The local cluster, up, with its bucket. This process's environment becomes that of its services."""
    from alexvgg.data.store import create_bucket
    from cluster import local

    found = local.up(nodes, metrics=metrics, say=say)
    os.environ.update(found.environment())
    create_bucket(BUCKET)
    return found


@contextmanager
def place_to_submit(name: str | None, nodes: int, *, dry_run: bool, **changes: str | None) -> Iterator[Profile]:
    """`open_place`, after bringing up the local cluster if that is what is asked for.

    A dry run starts and stores nothing: without a local cluster that holds the sample dataset, it plans against one in
    a temporary folder.
    """
    from alexvgg.data.shards import is_complete
    from alexvgg.data.store import open_store
    from alexvgg.profiles import LOCAL, Source, chosen_profile, settings_of, to_profile

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
            planned = {"storage": url, "dataset": url, "geometry": "small"}
            yield to_profile(settings_of(LOCAL, changes, Source("a dry run", planned)))
        return
    bring_up(nodes)  # what runs there has its environment, wherever its storage is
    if not is_complete(open_store(DIGITS)):
        _pack_digits(DIGITS)
    yield open_place(name, **changes)


def _with_dataset(name: str | None, **changes: str | None) -> Profile | None:
    """`open_place`, if that has a dataset."""
    from alexvgg.data.store import open_store
    from alexvgg.errors import InputError

    try:
        place = open_place(name, **changes)
        return place if open_store(need(name, place, "dataset")).exists("dataset.json") else None
    except InputError:  # no cluster, or no bucket in it yet
        return None


def _pack_digits(url: str) -> None:
    from alexvgg.data.packing.sample import pack_digits  # imports torch: only when there is something to pack
    from alexvgg.data.store import open_store

    pack_digits(open_store(url))


def _local() -> tuple[Source, Mapping[str, str]]:
    """What the local cluster gives, and the environment for it."""
    from alexvgg.profiles import Source
    from cluster import local

    if (found := local.find()) is not None:
        services = {
            "dashboard": found.dashboard_url, "storage": BUCKET, "dataset": DIGITS,
            "mlflow": found.mlflow_url, "geometry": "small",
        }  # fmt: skip
        return Source("local cluster", services), found.environment()
    if (folder := local.storage_folder()).exists():
        bucket = (folder / BUCKET.removeprefix("s3://")).as_uri()  # the service keeps objects as files
        places = {"storage": bucket, "dataset": DIGITS.replace(BUCKET, bucket), "geometry": "small"}
        return Source("local cluster, which is down", places), {}
    return Source(NEVER_UP, {"storage": BUCKET, "dataset": DIGITS, "geometry": "small"}), {}
