"""Bytes by key under a URL: `s3://bucket/prefix` (any S3-compatible service, by boto3) or `file:///folder`."""

import functools
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from alexvgg.errors import InputError

READ_BLOCK = 1 << 20
STALLED_TRIES = 5  # in a row without a single new byte
PART = 32 << 20  # bytes of one part of a file's upload


class MissingKeyError(KeyError):
    """There is no object of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class StoreError(RuntimeError):
    """The storage failed for good: what was read or written, where, and why."""


class Store(Protocol):
    """Keys are relative to `url` and use `/`. All methods are safe to call from several threads."""

    url: str

    def get(self, key: str) -> bytes:
        """The whole object. Raises MissingKeyError."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`. Raises MissingKeyError, or StoreError if the object is shorter."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object; readers see the old or the new one, never a part."""

    def put_file(self, key: str, path: Path) -> None:
        """`put` of a file's bytes, which needn't fit into memory. The file must not be changed while this goes on."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Write the object if there is none of that name; False if there is. Atomic: one of two writers wins."""

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """The object's size in bytes. Raises MissingKeyError."""

    def list(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""


def open_store(url: str) -> Store:
    """The store at `url`. Raises InputError for other schemes and for a bucket that doesn't exist."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return FileStore(url, Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(url, parts.netloc, parts.path.strip("/"))
    raise InputError(f"{url!r} is no storage URL; write s3://bucket/prefix or file:///folder")


class FileStore:
    """A folder. Writes go to a temporary file first, so that a key appears whole or not at all."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url.rstrip("/"), root

    def _path(self, key: str) -> Path:
        path = self.root / key
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"key {key!r} leaves {self.url}")
        return path

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise MissingKeyError(f"{self.url}/{key} does not exist") from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                data = file.read(length)
        except FileNotFoundError:
            raise MissingKeyError(f"{self.url}/{key} does not exist") from None
        if len(data) != length:
            raise StoreError(f"{self.url}/{key} ends at byte {start + len(data)}, {length - len(data)} bytes too early")
        return data

    def _write(self, key: str, data: bytes) -> tuple[str, Path]:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return temporary, path

    def put(self, key: str, data: bytes) -> None:
        temporary, path = self._write(key, data)
        Path(temporary).replace(path)

    def put_file(self, key: str, path: Path) -> None:
        temporary, target = self._write(key, b"")
        shutil.copyfile(path, temporary)
        Path(temporary).replace(target)

    def put_new(self, key: str, data: bytes) -> bool:
        temporary, path = self._write(key, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            Path(temporary).unlink()
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise MissingKeyError(f"{self.url}/{key} does not exist") from None

    def list(self, prefix: str) -> list[str]:
        files = (p for p in self.root.rglob("*") if p.is_file() and not p.name.startswith(".writing-"))
        return sorted(k for k in (p.relative_to(self.root).as_posix() for p in files) if k.startswith(prefix))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)


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
            retries={"mode": "standard", "max_attempts": 6},
            max_pool_connections=64,
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

    def get(self, key: str) -> bytes:
        return self._read(key, 0, None)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._read(key, start, length) if length else b""

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        """One object or range of it, continued from the last byte received when a connection drops or stalls.

        boto3 retries a request but never a body. `If-Match` makes sure that both halves are of the same object.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        got, stalled, etag = bytearray(), 0, None
        while True:
            before = len(got)
            try:
                request: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key}
                if start or length is not None or got:
                    request["Range"] = f"bytes={start + len(got)}-{'' if length is None else start + length - 1}"
                if etag is not None:
                    request["IfMatch"] = etag
                response = self._s3.get_object(**request)
                etag = response["ETag"]
                length = before + response["ContentLength"] if length is None else length
                while block := response["Body"].read(READ_BLOCK):
                    got += block
                if len(got) == length:
                    return bytes(got)
                reason = f"{self.url}/{key} ended after {len(got)} of {length} bytes"
                if before == len(got):  # a clean, empty answer: the object itself is too short
                    raise StoreError(reason)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("NoSuchKey", "404"):
                    raise MissingKeyError(f"{self.url}/{key} does not exist") from None
                if code in ("PreconditionFailed", "412"):
                    raise StoreError(f"{self.url}/{key} was replaced while it was being read") from None
                if code == "InvalidRange":
                    raise StoreError(f"{self.url}/{key} is shorter than {start + len(got) + 1} bytes") from None
                raise StoreError(f"reading {self.url}/{key} at byte {start + len(got)}: {error}") from error
            except (BotoCoreError, HTTPError, OSError) as error:
                reason = f"reading {self.url}/{key} at byte {start + len(got)}: {error}"
            stalled = 0 if len(got) > before else stalled + 1
            if stalled == STALLED_TRIES:
                raise StoreError(f"{reason}; gave up after {STALLED_TRIES} tries without a byte")
            time.sleep(random.uniform(0.5, 1.0) * 0.2 * 2**stalled)

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        if path.stat().st_size <= PART:
            self.put(key, path.read_bytes())
            return
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._put_parts({"Bucket": self.bucket, "Key": self.prefix + key}, path)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"writing {self.url}/{key}: {error}") from error

    def _put_parts(self, target: dict[str, str], path: Path) -> None:
        """A multipart upload with each part's bytes in memory.

        boto3's upload_file sends a file in pieces of 16 KiB, each of which must get hold of the interpreter lock:
        beside threads that pack the next shards that took 1.2 to 2 times as long (two cores, localbucket).
        """
        target = {**target, "UploadId": self._s3.create_multipart_upload(**target)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            with path.open("rb", buffering=0) as file:
                while part := file.read(PART):
                    number = len(parts) + 1
                    etag = self._s3.upload_part(**target, PartNumber=number, Body=part)["ETag"]
                    parts.append({"PartNumber": number, "ETag": etag})
            self._s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        except BaseException:
            self._s3.abort_multipart_upload(**target)  # or its parts would lie there, unseen and paid for
            raise

    def put_new(self, key: str, data: bytes) -> bool:
        return self._put(key, data, IfNoneMatch="*")

    def _put(self, key: str, data: bytes, **condition: str) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "412"):
                return False
            raise StoreError(f"writing {self.url}/{key}: {error}") from error
        except BotoCoreError as error:
            raise StoreError(f"writing {self.url}/{key}: {error}") from error
        return True

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._s3.head_object(Bucket=self.bucket, Key=self.prefix + key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return False
            raise StoreError(f"looking for {self.url}/{key}: {error}") from error
        return True

    def size(self, key: str) -> int:
        from botocore.exceptions import ClientError

        try:
            return int(self._s3.head_object(Bucket=self.bucket, Key=self.prefix + key)["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                raise MissingKeyError(f"{self.url}/{key} does not exist") from None
            raise StoreError(f"looking for {self.url}/{key}: {error}") from error

    def list(self, prefix: str) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
        return sorted(entry["Key"][len(self.prefix) :] for page in pages for entry in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.bucket, Key=self.prefix + key)


def create_bucket(url: str) -> None:
    """Create the bucket of an s3:// URL if it doesn't exist; a folder needs no creating."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        client = _client()
        if parts.netloc not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=parts.netloc)
