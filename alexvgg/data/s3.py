"""Any S3-compatible service, by boto3. All trying again is decided here, by one rule."""

import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from alexvgg.data.store import MissingKeyError, Span, StoreError
from alexvgg.errors import InputError

READ_BLOCK = 1 << 20  # bytes; a connection that breaks costs at most the block it was in
GIVE_UP_SECONDS = 120.0  # without a single new byte
LONGEST_PAUSE = 5.0  # seconds between two tries
CONNECTIONS = 64  # one for each lane

T = TypeVar("T")

_client_lock = threading.Lock()


def _client() -> Any:
    """boto3's client for the endpoint that the environment names; shared between threads, not across a fork."""
    with _client_lock:
        return _client_of(os.getpid(), os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@functools.cache
def _client_of(process: int, endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=5,
            read_timeout=15,
            retries={"total_max_attempts": 1},  # trying again is decided here: boto3 would, but never within a body
            max_pool_connections=CONNECTIONS,
            # Newer checksums are refused by some S3-compatible services; every sample has its own crc32 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", *EXPIRED)
PASSING = (
    "SlowDown",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ConditionalRequestConflict",
    "OperationAborted",
    "429",
)


class _Patience:
    """Decides, error after error, whether to try again: as long as something arrives every GIVE_UP_SECONDS.

    Pauses double from 0.1 s, each cut by a random half, so that many ranks don't come back at the same moment.
    """

    def __init__(self, store: "S3Store", doing: str) -> None:
        self._store, self._doing = store, doing
        self._since, self._pause = time.monotonic(), 0.1
        self.tries = 0

    def progress(self) -> None:
        """Something arrived: the patience is whole again."""
        self._since, self._pause = time.monotonic(), 0.1

    def after(self, error: Exception, where: str = "") -> None:
        """Wait, or raise what `error` means if trying again is no use or has lasted too long."""
        from botocore.exceptions import ClientError

        self.tries += 1
        doing = f"{self._doing}{where}"
        if isinstance(error, ClientError):
            code, answer = _code(error), error.response
            if code in ("NoSuchKey", "404"):
                raise MissingKeyError(f"{self._store.url}: {doing}: it does not exist") from None
            if code in EXPIRED and self.tries == 1:
                self._store.renew()  # credentials of a profile or an environment that was refreshed meanwhile
            elif code in REFUSED:
                raise StoreError(
                    f"{self._store.url}: {doing}: {code}: {answer['Error'].get('Message', '')}. Renew the "
                    "AWS credentials of this host; what was trained so far is kept in the last checkpoint."
                ) from None
            elif answer["ResponseMetadata"]["HTTPStatusCode"] < 500 and code not in PASSING:
                raise StoreError(f"{self._store.url}: {doing}: {error}") from error
        if time.monotonic() - self._since > GIVE_UP_SECONDS:
            raise StoreError(
                f"{self._store.url}: {doing}: {error}; gave up after {self.tries} tries, the last "
                f"{GIVE_UP_SECONDS:.0f} s without a byte"
            ) from error
        self._store.count_retry()
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _code(error: Exception) -> str | None:
    """The service's own error code; None if the error isn't the service's."""
    from botocore.exceptions import ClientError

    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else None


def _transient() -> tuple[type[Exception], ...]:
    from botocore.exceptions import ClientError, CredentialRetrievalError, HTTPClientError, IncompleteReadError
    from urllib3.exceptions import HTTPError

    network = (HTTPClientError, IncompleteReadError, HTTPError, OSError, _WrongLengthError)
    return (ClientError, CredentialRetrievalError, *network)


class _WrongLengthError(Exception):
    """A body is shorter than was announced, or of another length than was asked for."""


class _Download:
    """One object or range of it as a stream that goes on where it broke off.

    boto3 repeats a request, but never a body. `If-Match` makes sure that all parts are of the same object.
    """

    def __init__(self, store: "S3Store", key: str, start: int, end: int | None) -> None:
        self.position, self.end = start, end
        self._store, self._key, self._name = store, key, f"{store.url}/{key}"
        self._etag: str | None = None
        self._body: Any = None
        self._patience = _Patience(store, f"reading {key}")

    def read(self, length: int | None = None) -> bytes:
        """The next `length` bytes, exactly; all of the object if None."""
        if length is None:
            first = self._block(READ_BLOCK)  # after this, the end is known
            assert self.end is not None
            length, parts = self.end, [first]
        else:
            parts = [self._block(min(length, READ_BLOCK))]
        missing = length - len(parts[0])
        while missing:
            parts.append(self._block(min(missing, READ_BLOCK)))
            missing -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip_to(self, position: int) -> None:
        while self.position < position:
            self._block(min(position - self.position, READ_BLOCK))

    def close(self) -> None:
        """Close the connection, unless all was read: then it is back in the pool already."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _block(self, length: int) -> bytes:
        while True:
            try:
                if self._body is None:
                    self._request()
                block: bytes = self._body.read(length)
                if not block and self.position != self.end:
                    raise _WrongLengthError(f"the answer ended before byte {self.end}")
            except _transient() as error:
                self.close()
                self._check(error)
                self._patience.after(error, f" at byte {self.position}")
            else:
                self.position += len(block)
                self._patience.progress()
                return block

    def _request(self) -> None:
        request = {}
        if self.position or self.end is not None:
            request["Range"] = f"bytes={self.position}-{'' if self.end is None else self.end - 1}"
        if self._etag is not None:
            request["IfMatch"] = self._etag
        answer = self._store.get_object(self._key, **request)
        if self._etag not in (None, answer["ETag"]):  # some services take no notice of If-Match when reading
            raise self._replaced()
        self._etag, self._body = answer["ETag"], answer["Body"]
        offered = self.position + answer["ContentLength"]
        if self.end is None:
            self.end = offered
        if offered != self.end:
            size = int(str(answer.get("ContentRange", "/0")).rpartition("/")[2])
            if size and size < self.end:
                raise StoreError(f"{self._name} has {size} bytes, {self.end - size} too few")
            raise _WrongLengthError(f"the answer would end at byte {offered}, not {self.end}")

    def _replaced(self) -> StoreError:
        return StoreError(f"{self._name} was replaced while it was being read, at byte {self.position}")

    def _check(self, error: Exception) -> None:
        code = _code(error)
        if code in ("PreconditionFailed", "412"):
            raise self._replaced() from None
        if code in ("InvalidRange", "416"):
            raise StoreError(f"{self._name} is shorter than {self.position + 1} bytes") from None
        if code in ("NoSuchKey", "404"):
            raise MissingKeyError(f"{self._name} does not exist") from None


class S3Store:
    """A prefix in a bucket, through boto3. Endpoint, region and credentials come from the usual AWS environment."""

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self.url, self.bucket, self.prefix = url.rstrip("/"), bucket, prefix + "/" if prefix else ""
        self.retries = 0
        self._conditional = False  # does the service keep to If-None-Match? It was not seen yet
        self._lock = threading.Lock()
        self._s3 = _client()
        try:
            self._s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            reason = {"404": "there is no such bucket", "403": "access is denied"}.get(code, code)
            raise InputError(
                f"can't use {url}: {reason} at {self._s3.meta.endpoint_url}. Check the bucket's name, AWS_PROFILE or "
                "the AWS_… credentials, and AWS_ENDPOINT_URL_S3 for a service other than AWS."
            ) from None
        except BotoCoreError as error:
            raise InputError(f"can't reach {url} at {self._s3.meta.endpoint_url}: {error}") from None

    def renew(self) -> None:
        """Read the credentials again."""
        _client_of.cache_clear()
        self._s3 = _client()

    def count_retry(self) -> None:
        with self._lock:
            self.retries += 1

    def get_object(self, key: str, **request: Any) -> Any:
        """boto3's answer to one GET."""
        return self._s3.get_object(Bucket=self.bucket, Key=self.prefix + key, **request)

    def get(self, key: str) -> bytes:
        download = _Download(self, key, 0, None)
        try:
            return download.read()
        finally:
            download.close()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return next(self.stream(key, [(start, length)]))

    def stream(self, key: str, spans: Sequence[Span]) -> Iterator[bytes]:
        end = spans[-1][0] + spans[-1][1]
        download = _Download(self, key, spans[0][0], end)
        try:
            for start, length in spans:
                download.skip_to(start)
                yield download.read(length) if length else b""
        finally:
            download.close()

    def put(self, key: str, data: bytes) -> None:
        self._call(f"writing {key}", lambda: self._put(key, data))

    def put_new(self, key: str, data: bytes) -> bool:
        """See Store. Raises InputError if the service has no conditional writes.

        Some services refuse them, others take no notice of the condition and overwrite: so the first object that is
        written like this is written once more, which must be refused.
        """
        created = self._put_if_none(key, data)
        if created and not self._conditional and self._put_if_none(key, data):
            raise self._unconditional(key, "it takes no notice of If-None-Match: *")
        self._conditional = True
        return created

    def _put_if_none(self, key: str, data: bytes) -> bool:
        """If an answer is lost, what lies there then tells whether the write had arrived."""
        from botocore.exceptions import ClientError

        sent = 0

        def write() -> bool:
            nonlocal sent
            sent += 1
            try:
                self._put(key, data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) == "NotImplemented":
                    raise self._unconditional(key, "it refuses If-None-Match: *") from None
                if _code(error) not in ("PreconditionFailed", "412"):
                    raise
                return sent > 1 and self.get(key) == data
            return True

        return self._call(f"writing {key}", write)

    def _unconditional(self, key: str, how: str) -> InputError:
        return InputError(
            f"can't write {key} to {self.url}: the service at {self._s3.meta.endpoint_url} has no conditional writes "
            f"({how}), so two writers could overwrite each other's work. It can hold datasets; keep runs on a service "
            "that has them, such as AWS S3."
        )

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, **condition)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except MissingKeyError:
            return False
        return True

    def size(self, key: str) -> int:
        def head() -> int:
            return int(self._s3.head_object(Bucket=self.bucket, Key=self.prefix + key)["ContentLength"])

        return self._call(f"looking for {key}", head)

    def list(self, prefix: str) -> list[str]:
        def pages() -> list[str]:
            found = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            return sorted(entry["Key"][len(self.prefix) :] for page in found for entry in page.get("Contents", ()))

        return self._call(f"listing {prefix}", pages)

    def delete(self, key: str) -> None:
        self._call(f"deleting {key}", lambda: self._s3.delete_object(Bucket=self.bucket, Key=self.prefix + key))

    def _call(self, doing: str, act: Callable[[], T]) -> T:
        patience = _Patience(self, doing)
        while True:
            try:
                return act()
            except _transient() as error:
                patience.after(error)


def create_bucket(bucket: str) -> None:
    """Create the bucket if this account doesn't have it."""
    client = _client()
    if bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
