"""Any S3-compatible service, by boto3."""

import functools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alexvgg.data.download import Download, pieces
from alexvgg.data.patience import PASSING, attempt, error_code
from alexvgg.data.store import MissingKeyError, Span, open_store
from alexvgg.data.upload import Upload
from alexvgg.errors import InputError

CONNECTIONS = 64  # one for each lane
CONNECT_SECONDS = 5  # for a connection, and for each piece of a body to leave
READ_SECONDS = 15  # for the next bytes of an answer
PIECE = 1 << 20  # bytes of a body that are sent at once
OPENING_SECONDS = 10.0  # of patience: whoever mistyped the endpoint shouldn't wait for minutes
REMEDY = (
    "Check the bucket's name, AWS_PROFILE or the AWS_… credentials, and for a service other than AWS "
    "AWS_ENDPOINT_URL_S3."
)

_client_lock = threading.Lock()


def _client() -> Any:
    """boto3's client for the endpoint that the environment names; shared between threads, not across a fork."""
    with _client_lock:
        return _client_of(os.getpid(), os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@functools.cache
def _client_of(process: int, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    client = boto3.Session().client(  # of its own: the default one keeps the first credentials it has read
        "s3",
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 1},  # Patience decides: boto3 would try again, but never within a body
            max_pool_connections=CONNECTIONS,
            # Newer checksums are refused by some S3-compatible services; every sample has its own crc32 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )
    client.meta.events.register("before-send.s3", _send_in_pieces)
    return client


class _Pieces:
    """A body as urllib3 sends it, piece after piece; botocore goes back to its start if it sends it once more."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = memoryview(body)

    def __iter__(self) -> Iterator[memoryview]:
        return (self._body[start : start + PIECE] for start in range(0, len(self._body), PIECE))

    def seek(self, _: int) -> None: ...


def _send_in_pieces(request: Any, **_: Any) -> None:
    """The connect timeout goes on while a body is sent, and ends it if it is one piece that takes longer than that.

    So 575 MB of weights would need 115 MB/s, more than S3 takes over one connection.
    """
    if isinstance(request.body, bytes | bytearray) and len(request.body) > PIECE:
        request.body = _Pieces(request.body)


class S3Store:
    """A prefix in a bucket, through boto3. Endpoint, region and credentials come from the usual AWS environment."""

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        self.url, self.bucket, self.prefix = url.rstrip("/"), bucket, prefix + "/" if prefix else ""
        self.retries = 0
        self._conditional = False  # does the service keep to If-None-Match? It was not seen yet
        self._lock = threading.Lock()
        self._s3 = _client()
        self._look_for_bucket()

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process, with a connection of its own."""
        return open_store, (self.url,)

    def _look_for_bucket(self) -> None:
        """Raises InputError for what no patience mends."""
        from botocore.exceptions import BotoCoreError, ClientError

        where = self._s3.meta.endpoint_url

        def head() -> None:
            try:
                self._s3.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                code = str(error_code(error))
                if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500 or code in PASSING:
                    raise
                reason = {"404": "there is no such bucket", "403": "access is denied"}.get(code, code)
                raise InputError(f"can't use {self.url}: {reason} at {where}. {REMEDY}") from None

        try:
            attempt(self, f"looking for the bucket at {where}", head, OPENING_SECONDS)
        except BotoCoreError as error:
            raise InputError(f"can't use {self.url} at {where}: {error}. {REMEDY}") from None

    def renew(self) -> None:
        """Read the credentials again."""
        _client_of.cache_clear()
        old, self._s3 = self._s3, _client()
        old.close()

    def count_retry(self) -> None:
        with self._lock:
            self.retries += 1

    def request(self, operation: str, key: str, **more: Any) -> Any:
        """boto3's answer to one request about an object."""
        return getattr(self._s3, operation)(Bucket=self.bucket, Key=self.prefix + key, **more)

    def get(self, key: str) -> bytes:
        download = Download(self, key, 0, None)
        try:
            return download.read()
        finally:
            download.close()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return next(self.stream(key, [(start, length)]))

    def stream(self, key: str, spans: Sequence[Span]) -> Iterator[bytes]:
        download = Download(self, key, spans[0][0], spans[-1][0] + spans[-1][1])
        try:
            yield from pieces(download, spans)
        finally:
            download.close()

    def put(self, key: str, data: bytes) -> None:
        with self.writer(key) as upload:  # in parts, so that a lost connection costs one of them
            upload.write(data)

    @contextmanager
    def writer(self, key: str) -> Iterator[Upload]:
        upload = Upload(self, key)
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def put_new(self, key: str, data: bytes) -> bool:
        """See Store. Raises InputError if the service has no conditional writes.

        Some services refuse them, others take no notice of the condition and overwrite: so the first object that is
        written like this is written once more, which must be refused.
        """
        created = self._put_if_none(key, data)
        if created and not self._conditional and self._put_if_none(key, data, ours=False):
            raise self._unconditional(key, "it takes no notice of If-None-Match: *")
        self._conditional = True
        return created

    def _put_if_none(self, key: str, data: bytes, *, ours: bool = True) -> bool:
        """If an answer is lost, what lies there then tells whether the write had arrived, if it can be `ours`."""
        from botocore.exceptions import ClientError

        sent = 0

        def write() -> bool:
            nonlocal sent
            sent += 1
            try:
                self.request("put_object", key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) == "NotImplemented":
                    raise self._unconditional(key, "it refuses If-None-Match: *") from None
                if error_code(error) not in ("PreconditionFailed", "412"):
                    raise
                return ours and sent > 1 and self.get(key) == data
            return True

        return attempt(self, f"writing {key}", write)

    def _unconditional(self, key: str, how: str) -> InputError:
        return InputError(
            f"can't write {key} to {self.url}: the service at {self._s3.meta.endpoint_url} has no conditional writes "
            f"({how}), so two writers could overwrite each other's work. It can hold datasets; keep runs on a service "
            "that has them, such as AWS S3."
        )

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except MissingKeyError:
            return False
        return True

    def size(self, key: str) -> int:
        def head() -> int:
            return int(self.request("head_object", key)["ContentLength"])

        try:
            return attempt(self, f"looking for {key}", head)
        except MissingKeyError:
            raise MissingKeyError(f"{self.url}/{key} does not exist") from None

    def list(self, prefix: str) -> list[str]:
        def pages() -> list[str]:
            found = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            return sorted(entry["Key"][len(self.prefix) :] for page in found for entry in page.get("Contents", ()))

        return attempt(self, f"listing {prefix}", pages)

    def delete(self, key: str) -> None:
        attempt(self, f"deleting {key}", lambda: self.request("delete_object", key))


def endpoint() -> str:
    """The URL of the service that the environment names."""
    return str(_client().meta.endpoint_url)


def create_bucket(bucket: str) -> None:
    """Create the bucket if this account doesn't have it."""
    client = _client()
    if bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
