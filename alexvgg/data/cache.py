"""Images kept on the node's own disk: shared by its ranks and by other jobs, safe to delete at any moment.

A shard's file has holes where nothing was kept; an image lies at its offset in the shard. There is no list of what is
there: bytes count if they have the crc32 of the dataset's index. So writing needs no order and no lock, and a file that
was damaged, cut or deleted only costs reading its images again.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zlib_ng.zlib_ng import crc32

from alexvgg.data.shards import Split
from alexvgg.data.store import Store

log = logging.getLogger(__name__)

STALE_SECONDS = 24 * 3600.0
BLOCK = 4096  # bytes that a disk gives at a time: an image between holes takes up to two more of them than it fills
CHECKS = 100  # the folder's size is looked at after each hundredth of the limit
FREE = 0.15  # of the disk, which is left to others: Kubernetes ends a node's pods when less than a tenth is free


class Cache:
    """Up to `limit` bytes under `folder`.

    When it is full, shards that no job has used for a day go; if there are none, what comes isn't kept. To drop the
    least recent would be worse: each epoch passes over all images, so they would go just before their next use.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._unchecked = limit // CHECKS  # bytes kept since the folder was measured; at first, as good as full
        self._full = self._warned = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._refused(error, "can't be used")

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self._folder, self._limit)

    def find(self, store: Store, split: Split, samples: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """(sample, its bytes) for those of a shard's samples that are kept here."""
        path = self._path(store, split, samples)
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return
        try:
            with suppress(OSError):
                os.utime(path)
            for sample in samples:
                with suppress(OSError):
                    data = os.pread(file, int(split.sizes[sample]), int(split.offsets[sample]))
                    if len(data) == split.sizes[sample] and crc32(data) == split.crc32[sample]:
                        yield sample, data
        finally:
            os.close(file)

    def keep(self, store: Store, split: Split, sample: int, data: bytes) -> None:
        """Keep an image if there is room. A disk that is full, or refuses, only means that nothing is kept for now."""
        try:
            if not self._room(len(data)):
                return
            file = os.open(self._path(store, split, (sample,)), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, data, int(split.offsets[sample]))
            finally:
                os.close(file)
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError, how: str = "takes no more images") -> None:
        """Say so, once."""
        with self._lock:
            first, self._warned, self._full = not self._warned, True, True
        if first:
            log.warning("the cache in %s %s: %s. Images are read from the storage.", self._folder, how, error.strerror)

    def _path(self, store: Store, split: Split, samples: Sequence[int]) -> Path:
        shard = split.shards[split.shard_of[samples[0]]]
        return self._folder / hashlib.sha256(f"{store.url}/{shard}".encode()).hexdigest()[:32]

    def _room(self, size: int) -> bool:
        """Looked at now and then, while it is full, too: shards become stale. Raises OSError."""
        with self._lock:
            self._unchecked += size + 2 * BLOCK
            if self._unchecked >= self._limit // CHECKS:
                self._unchecked, self._full = 0, True  # for other threads, if the next lines raise
                kept, disk = self._measure(), shutil.disk_usage(self._folder)
                if disk.free < FREE * disk.total:
                    raise OSError(errno.ENOSPC, f"less than {FREE:.0%} of the disk is free")
                self._full = kept > self._limit * (1 - 3 / CHECKS)  # others may be writing, too
            return not self._full

    def _measure(self) -> int:
        """Bytes on disk, after dropping stale shards if there are too many."""
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = []
            for path in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    files.append((stat.st_mtime, stat.st_blocks * 512, path))
            total = sum(size for _, size, _ in files)
            for used, size, path in sorted(files):
                if total <= self._limit * (1 - 4 / CHECKS) or time.time() - used < STALE_SECONDS:
                    break
                path.unlink(missing_ok=True)
                total -= size
            return total
