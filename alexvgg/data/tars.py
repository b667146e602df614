"""Tars followed from header to header, with nothing taken for granted: where the first damage is, and why."""

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from alexvgg.data.store import Store

BLOCK = 512
READ_AHEAD = 8 << 20  # bytes of one ranged read


class DamagedTarError(ValueError):
    """The tar can't be followed past byte `offset`."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class _Header(tarfile.TarInfo):
    """A tar's header. tarfile takes a damaged one, or none, for the end of the tar; here only zeros are the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # undocumented, but not private
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it was cut off") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a plain tar that begins where the file stands; nothing is decompressed.

    Between two of them the file may be read and moved at will; in the end it stands within the end mark, which is two
    blocks of zeros, behind the first. Raises DamagedTarError where it can't go on.
    """
    end = file.tell()
    try:
        with tarfile.TarFile(fileobj=file, mode="r", tarinfo=_Header) as archive:
            for member in archive:
                end = archive.offset
                yield member
    except tarfile.TarError as error:
        raise DamagedTarError(end, f"there is no intact header at byte {end} ({error})") from error


def members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """`headers` of a file that is one tar. When this is through, the file was read, and stands, to its end.

    Raises DamagedTarError also for an end mark that was cut, and for anything but zeros behind it.
    """
    yield from headers(file)
    at = end = file.tell()
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise DamagedTarError(end, f"it ends at byte {end + len(block)}, within its end mark: it was cut off")
    while block:
        if block.count(0) != len(block):
            raise DamagedTarError(at, f"there is more behind its end mark at byte {end}: tars were put together")
        at += len(block)
        block = file.read(READ_AHEAD)


def body(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """A plain file's bytes; of anything else none. Raises DamagedTarError if the tar ends within them."""
    if not member.isreg():
        return b""
    file.seek(member.offset_data)
    data = file.read(member.size)
    if len(data) < member.size:
        at = member.offset_data + len(data)
        raise DamagedTarError(at, f"it ends at byte {at}, inside {member.name}: it was cut off")
    return data


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
