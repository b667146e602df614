"""Bytes by key under a URL: `s3://bucket/prefix` (any S3-compatible service, by boto3) or `file:///folder`."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from alexvgg.errors import DamagedError, InputError, StoreError

Span = tuple[int, int]  # start and length in bytes
WRITE_AHEAD = 1 << 20  # bytes of a file that are written at once


class MissingKeyError(KeyError):
    """There is no object of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Writer(Protocol):
    """An object that is being written."""

    def write(self, data: bytes, /) -> int:
        """Takes all of `data`."""

    def tell(self) -> int:
        """How many bytes were written."""


class Store(Protocol):
    """Keys are relative to `url` and use `/`. All methods are safe to call from several threads.

    What a service refuses for the moment is tried again as long as something arrives now and then; `retries` counts
    those tries. After that, or for what no trying mends, StoreError says what, where and why.
    """

    url: str
    retries: int

    def get(self, key: str) -> bytes:
        """The whole object. Raises MissingKeyError."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`. Raises MissingKeyError, or DamagedError if the object is shorter."""

    def stream(self, key: str, spans: Sequence[Span]) -> Iterator[bytes]:
        """The bytes of each span as they arrive, in one read from the first to the last; spans ascend.

        Raises like `get_range`.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object; readers see the old or the new one, never a part."""

    def writer(self, key: str) -> AbstractContextManager["Writer"]:
        """Write or replace an object as its bytes come, which needn't fit into memory.

        It is there, whole, when the block is left; if that raises, nothing was written.
        """

    def put_new(self, key: str, data: bytes) -> bool:
        """Write the object if there is none of that name; False if there is. Atomic: one of two writers wins."""

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """The object's size in bytes. Raises MissingKeyError."""

    def list(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""


def check_url(url: str) -> None:
    """Raise InputError if it is no storage URL."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        if parts.query or parts.fragment:
            raise InputError(f"{url!r}: write ? and # of a folder's name as %3F and %23")
    elif parts.scheme != "s3" or not parts.netloc:
        raise InputError(f"{url!r} isn't a storage URL; write s3://bucket/prefix or file:///folder")


def open_store(url: str) -> Store:
    """The store at `url`. Raises InputError for other schemes and for a bucket that doesn't exist."""
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileStore(url, Path(unquote(parts.path)))
    from alexvgg.data.s3 import S3Store

    return S3Store(url, parts.netloc, parts.path.strip("/"))


class FileStore:
    """A folder. Writes go to a temporary file first, so that a key appears whole or not at all."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root, self.retries = url.rstrip("/"), root, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.url,)

    def _path(self, key: str) -> Path:
        if ".." in key.split("/") or key.startswith("/"):  # a dataset's own index names keys
            raise InputError(f"key {key!r} leaves {self.url}")
        return self.root / key

    @contextmanager
    def _at(self, key: str) -> Iterator[Path]:
        """The key's file; what the system then refuses is a StoreError."""
        try:
            yield self._path(key)
        except OSError as error:
            raise StoreError(f"{self.url}/{key}: {error.strerror}") from error

    @contextmanager
    def _existing(self, key: str) -> Iterator[Path]:
        """The key's file, to be read."""
        with self._at(key) as path:
            try:
                yield path
            except FileNotFoundError:
                raise MissingKeyError(f"{self.url}/{key} does not exist") from None

    def get(self, key: str) -> bytes:
        with self._existing(key) as path:
            return path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return next(self.stream(key, [(start, length)]))

    def stream(self, key: str, spans: Sequence[Span]) -> Iterator[bytes]:
        with self._existing(key) as path, path.open("rb", buffering=0) as file:
            for start, length in spans:
                data = os.pread(file.fileno(), length, start)
                if len(data) != length:
                    missing = length - len(data)
                    raise DamagedError(f"{self.url}/{key} ends at byte {start + len(data)}, {missing} bytes too early")
                yield data

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[Path]:
        """An empty file beside `path`; it is gone afterwards, unless it became that."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        except OSError as error:
            raise StoreError(
                f"nothing can be written in {path.parent}: {error.strerror}. Make {self.url} a folder with room, in "
                "which this user may write, or name another one."
            ) from error
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def put(self, key: str, data: bytes) -> None:
        with self._at(key) as path, self._temporary(path) as temporary:
            temporary.write_bytes(data)
            temporary.replace(path)

    @contextmanager
    def writer(self, key: str) -> Iterator["Writer"]:
        with self._at(key) as path, self._temporary(path) as temporary:
            with temporary.open("wb", WRITE_AHEAD) as file:
                yield file
            temporary.replace(path)

    def put_new(self, key: str, data: bytes) -> bool:
        with self._at(key) as path, self._temporary(path) as temporary:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # claims and records: an empty one after a power cut would mean something
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            return True

    def exists(self, key: str) -> bool:
        with self._at(key) as path:
            return path.is_file()

    def size(self, key: str) -> int:
        with self._existing(key) as path:
            return path.stat().st_size

    def list(self, prefix: str) -> list[str]:
        found = []
        # os.walk passes over folders that are removed meanwhile, as Path.rglob doesn't.
        for parent, _, names in os.walk(self._path(prefix.rpartition("/")[0])):
            files = (Path(parent, name) for name in names if not name.startswith(".writing-"))
            found += [path.relative_to(self.root).as_posix() for path in files if path.is_file()]
        return sorted(key for key in found if key.startswith(prefix))

    def delete(self, key: str) -> None:
        with self._at(key) as path:
            path.unlink(missing_ok=True)


def create_bucket(url: str) -> None:
    """Create the bucket of an s3:// URL if it doesn't exist; a folder needs no creating."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from alexvgg.data import s3

        s3.create_bucket(parts.netloc)
