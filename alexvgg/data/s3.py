"""Any S3-compatible service, by boto3. All trying again is decided here, by one rule."""

import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from alexvgg.data.store import MissingKeyError, Span, StoreError
from alexvgg.errors import InputError

READ_BLOCK = 1 << 20  # bytes; a connection that breaks costs at most the block it was in
GIVE_UP_SECONDS = 120.0  # without a single new byte
LONGEST_PAUSE = 5.0  # seconds between two tries
CONNECTIONS = 64  # one for each lane
PART = 32 << 20  # bytes of one part of a file's upload

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

    return boto3.Session().client(  # of its own: the default one keeps the first credentials it has read
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
NOT_IMPLEMENTED = 501  # the one server error that no patience mends


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
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            if code in ("NoSuchKey", "404"):
                raise MissingKeyError(f"{self._store.url}: {doing}: it does not exist") from None
            if code in EXPIRED and self.tries == 1:
                self._store.renew()  # credentials of a profile or an environment that was refreshed meanwhile
            elif code in REFUSED:
                raise StoreError(
                    f"{self._store.url}: {doing}: {code}: {answer['Error'].get('Message', '')}. Renew the "
                    "AWS credentials of this host; what was trained so far is kept in the last checkpoint."
                ) from None
            elif (status < 500 and code not in PASSING) or status == NOT_IMPLEMENTED:
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

    def read(self) -> bytes:
        """All of it."""
        parts = [self.block()]  # after this, the end is known
        while self.position != self.end:
            parts.append(self.block())
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection, unless all was read: then it is back in the pool already."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def block(self) -> bytes:
        """The next bytes, up to READ_BLOCK; none only at the end."""
        while True:
            try:
                if self._body is None:
                    self._request()
                assert self.end is not None
                block: bytes = self._body.read(min(READ_BLOCK, self.end - self.position))
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
        self._body = answer["Body"]
        if self._etag not in (None, answer["ETag"]):  # some services take no notice of If-Match when reading
            raise self._replaced()
        self._etag = answer["ETag"]
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
        old, self._s3 = self._s3, _client()
        old.close()

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
        # In blocks, which are many times as fast as reading each span from the connection.
        block, at = b"", spans[0][0]  # the bytes from `at` on
        download = _Download(self, key, at, spans[-1][0] + spans[-1][1])
        try:
            for start, length in spans:
                parts, wanted, end = [], start, start + length
                while wanted < end:
                    if wanted >= at + len(block):
                        at, block = at + len(block), download.block()
                    elif part := block[wanted - at : end - at]:
                        parts.append(part)
                        wanted += len(part)
                yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            download.close()

    def put(self, key: str, data: bytes) -> None:
        self._call(f"writing {key}", lambda: self._put(key, data))

    def put_file(self, key: str, path: Path) -> None:
        """See Store. A multipart upload with each part's bytes in memory.

        boto3's upload_file sends a file in pieces of 16 KiB, each of which must get hold of the interpreter lock:
        beside threads that pack the next shards that took about twice as long (tests/bench/pack.py).
        """
        if path.stat().st_size <= PART:
            self.put(key, path.read_bytes())
            return
        doing, target = f"writing {key}", {"Bucket": self.bucket, "Key": self.prefix + key}
        target["UploadId"] = self._call(doing, lambda: self._s3.create_multipart_upload(**target))["UploadId"]
        try:
            with path.open("rb", buffering=0) as file:
                parts = [self._put_part(doing, target, n, part) for n, part in enumerate(_parts(file), start=1)]
            whole = {"Parts": parts}
            self._call(doing, lambda: self._s3.complete_multipart_upload(**target, MultipartUpload=whole))
        except BaseException:
            self._s3.abort_multipart_upload(**target)  # or its parts would lie there, unseen and paid for
            raise

    def _put_part(self, doing: str, target: dict[str, str], number: int, part: bytes) -> dict[str, Any]:
        sent = self._call(doing, lambda: self._s3.upload_part(**target, PartNumber=number, Body=part))
        return {"PartNumber": number, "ETag": sent["ETag"]}

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

        try:
            return self._call(f"looking for {key}", head)
        except MissingKeyError:
            raise MissingKeyError(f"{self.url}/{key} does not exist") from None

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


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(PART):
        yield part


def create_bucket(bucket: str) -> None:
    """Create the bucket if this account doesn't have it."""
    client = _client()
    if bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
