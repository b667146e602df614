"""Tars read member by member with nothing taken for granted: where the first damage is, and why."""

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from alexvgg.data.store import Store

BLOCK = 512
END_MARK = bytes(2 * BLOCK)
READ_AHEAD = 8 << 20  # bytes of one ranged read


class DamagedTarError(ValueError):
    """The tar can't be followed past byte `offset`."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


def read_members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Each member's header and bytes, in order. Raises DamagedTarError at the first damage, and for a cut tar.

    Python's reader takes a damaged header, and a cut between two members, for the end of the tar: the end mark must
    therefore lie where it stopped, and nothing behind that.
    """
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                file.seek(member.offset_data)
                data = file.read(member.size if member.isreg() else 0)
                end = tar.offset
                if member.isreg() and len(data) < member.size:
                    at = member.offset_data + len(data)
                    raise DamagedTarError(at, f"it ends at byte {at}, inside {member.name}: it was cut off")
                yield member, data
            end = tar.offset
    except tarfile.TarError as error:
        raise DamagedTarError(end, f"there is no intact header at byte {end} ({error})") from error
    _check_end(file, end)


def _check_end(file: BinaryIO, end: int) -> None:
    file.seek(end)
    mark = file.read(len(END_MARK))
    if any(mark):
        raise DamagedTarError(end, f"the header at byte {end} is damaged")
    if len(mark) < len(END_MARK):
        raise DamagedTarError(end, f"it ends at byte {end + len(mark)} without an end mark: it was cut off")
    at = end + len(mark)
    while block := file.read(READ_AHEAD):
        if any(block):
            raise DamagedTarError(at, f"there is more behind its end mark at byte {end}: tars were put together")
        at += len(block)


def open_object(store: Store, key: str, size: int) -> BinaryIO:
    """An object of `size` bytes as a file that is read by ranges, ahead, holding READ_AHEAD bytes of it."""
    return io.BufferedReader(_Object(store, key, size), READ_AHEAD)


class _Object(io.RawIOBase):
    def __init__(self, store: Store, key: str, size: int) -> None:
        self._store, self._key, self._size, self._position = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._size - self._position))
        if length:
            buffer[:length] = self._store.get_range(self._key, self._position, length)
        self._position += length
        return length
