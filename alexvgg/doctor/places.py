"""What a profile names: storage, dataset, MLflow, and whether their clocks agree with this machine's."""

import os
import secrets
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from alexvgg.data.decode import decode
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.doctor.finding import Finding, attempt

RANGE = (100, 50)  # first byte and length of the ranged read
SKEW_SECONDS, MOST_SKEW_SECONDS = 10.0, 300.0  # S3 refuses a request at 900
CLOCK = "Let both machines keep time by NTP (`timedatectl`): signatures and the order of events depend on it."


def service_url(url: str) -> str | None:
    """Where the service behind a storage URL listens; None for a folder."""
    if not url.startswith("s3://"):
        return None
    from alexvgg.data.s3 import endpoint

    return endpoint()


def check_storage(url: str) -> Iterator[Finding]:
    """Write, read, read a range, write conditionally, list, delete: on a small object of its own."""
    opened: list[Store] = []

    def connect() -> str:
        opened.append(open_store(url))
        return url

    reached = attempt("storage", connect, "Check the URL (`alexvgg config show`) and the AWS environment.")
    yield reached
    if not opened:
        return
    (store,), key, data = opened, f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(1000)
    start, length = RANGE

    def put() -> str:
        began = time.monotonic()
        store.put(key, data)
        return f"{1000 * (time.monotonic() - began):.0f} ms"

    def get() -> str:
        if store.get(key) != data or store.list(key) != [key]:
            raise RuntimeError("what was read isn't what was written")
        return "the same bytes, and listed"

    def ranged() -> str:
        if store.get_range(key, start, length) != data[start : start + length]:
            raise RuntimeError("a range of an object isn't what was written there")
        return f"{length} bytes from byte {start}"

    def conditional() -> str:
        if store.put_new(key, b"other") or store.get(key) != data:
            raise RuntimeError("an object was overwritten that was only to be created")
        return "an object that exists isn't overwritten"

    def delete() -> str:
        store.delete(key)
        if store.exists(key):
            raise RuntimeError("an object is still there that was deleted")
        return "the object is gone"

    rights = "These credentials need to get, put, list and delete objects below the storage's URL."
    yield attempt("storage write", put, rights)
    yield attempt("storage read", get, rights)
    yield attempt("storage ranged read", ranged, "Use a service that keeps to Range, as AWS S3 and MinIO do.")
    yield attempt(
        "storage conditional write", conditional, "Keep runs on AWS S3, MinIO or another that has If-None-Match."
    )
    yield attempt("storage delete", delete, rights)


def check_dataset(url: str) -> Iterator[Finding]:
    """The whole index, and one image down to its pixels."""

    def index() -> str:
        d = open_dataset(open_store(url))
        return (
            f"{d.name}: {len(d.train)} training and {len(d.val)} validation images, {len(d.classes)} classes, "
            f"fingerprint {d.fingerprint[:12]}…"
        )

    def image() -> str:
        d = open_dataset(open_store(url))
        split, size = d.val, int(d.val.sizes[0])
        data = d.store.get_range(split.shards[int(split.shard_of[0])], int(split.offsets[0]), size)
        if zlib.crc32(data) != split.crc32[0]:
            raise RuntimeError(f"the bytes of {split.keys[0]} aren't those that were indexed")
        height, width, _ = decode(data).shape
        return f"{split.keys[0]}, {width}x{height} pixels"

    opened = attempt("dataset", index, "Pack one (`alexvgg data pack`), or correct the URL (`alexvgg config show`).")
    yield opened
    if opened.state == "ok":
        yield attempt("dataset image", image, f"`alexvgg data verify {url}` names all that is damaged.")


def check_mlflow(url: str) -> Finding:
    """A search through the API: `/health` would answer where nothing else does."""

    def search() -> str:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        names = [e.name for e in MlflowClient(url).search_experiments(max_results=10)]
        return f"{url} has {'the experiment alexvgg' if 'alexvgg' in names else 'no experiment alexvgg yet'}"

    step = "A server behind a name needs `mlflow server --allowed-hosts NAME`; with a login, MLFLOW_TRACKING_USERNAME."
    return attempt("mlflow", search, step)


def check_clock(name: str, url: str) -> Finding:
    """The Date of any HTTP answer, errors included, against this machine's time."""
    request = urllib.request.Request(url, method="HEAD")
    before = time.time()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except (OSError, HTTPException) as error:
        return Finding(f"clock of {name}", "skipped", str(error))
    if date is None:
        return Finding(f"clock of {name}", "skipped", "its answers bear no date")
    return judge_skew(name, parsedate_to_datetime(date).timestamp() - (before + time.time()) / 2)


def judge_skew(name: str, seconds: float) -> Finding:
    """`seconds` that the service's clock is ahead of this one. Dates are cut to whole seconds."""
    detail = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) > MOST_SKEW_SECONDS:
        return Finding(f"clock of {name}", "failed", detail, CLOCK)
    if abs(seconds) > SKEW_SECONDS:
        return Finding(f"clock of {name}", "warning", detail, CLOCK)
    return Finding(f"clock of {name}", "ok", f"within {SKEW_SECONDS:.0f} s of this machine's")
