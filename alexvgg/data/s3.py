"""Any S3-compatible service, by boto3."""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from alexvgg.data.download import Download, pieces
from alexvgg.data.patience import Patience, error_code, transient
from alexvgg.data.store import MissingKeyError, Span
from alexvgg.errors import InputError

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
            retries={"total_max_attempts": 1},  # Patience decides: boto3 would try again, but never within a body
            max_pool_connections=CONNECTIONS,
            # Newer checksums are refused by some S3-compatible services; every sample has its own crc32 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


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
                if error_code(error) == "NotImplemented":
                    raise self._unconditional(key, "it refuses If-None-Match: *") from None
                if error_code(error) not in ("PreconditionFailed", "412"):
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
        patience = Patience(self, doing)
        while True:
            try:
                return act()
            except transient() as error:
                patience.after(error)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(PART):
        yield part


def create_bucket(bucket: str) -> None:
    """Create the bucket if this account doesn't have it."""
    client = _client()
    if bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
