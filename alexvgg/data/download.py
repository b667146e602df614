"""One object, or a range of it, from an S3 service: a stream that goes on where it broke off."""

from collections.abc import Iterator, Sequence
from typing import Any

from alexvgg.data.patience import Patience, Service, WrongLengthError, error_code, transient
from alexvgg.data.store import MissingKeyError, Span
from alexvgg.errors import DamagedError, StoreError

READ_BLOCK = 1 << 20  # bytes; a connection that breaks costs at most the block it was in


def pieces(download: "Download", spans: Sequence[Span]) -> Iterator[bytes]:
    """The bytes of each of some ascending spans, of which the download goes from the first's start to the last's end.

    They are cut from one buffer that is filled again and again: so they are still in the processor's cache when they
    are copied, and a piece takes no more memory than its own bytes.
    """
    begin = end = spans[0][0]  # of what the buffer holds
    stop = spans[-1][0] + spans[-1][1]
    buffer = memoryview(bytearray(min(stop - begin, max(READ_BLOCK, *(length for _, length in spans)))))
    for start, length in spans:
        while start + length > end:
            kept = max(0, end - start)
            buffer[:kept] = buffer[end - begin - kept : end - begin]
            begin = end - kept
            filled = min(len(buffer), stop - begin)
            download.fill(buffer[kept:filled])
            end = begin + filled
        yield bytes(buffer[start - begin : start - begin + length])


class Download:
    """One object or range of it as a stream that goes on where it broke off.

    boto3 repeats a request, but never a body. `If-Match` makes sure that all parts are of the same object.
    """

    def __init__(self, service: Service, key: str, start: int, end: int | None) -> None:
        self.position, self.end = start, end
        self._service, self._key, self._name = service, key, f"{service.url}/{key}"
        self._etag: str | None = None
        self._body: Any = None
        self._patience = Patience(service, f"reading {key}")

    def read(self) -> bytes:
        """All of it."""
        while self.end is None:
            try:
                self._request()
            except transient() as error:
                self._recover(error)
        data = bytearray(self.end - self.position)
        self.fill(memoryview(data))
        return bytes(data)

    def close(self) -> None:
        """Close the connection, unless all was read: then it is back in the pool already."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def fill(self, buffer: memoryview) -> None:
        """Put the next bytes into `buffer`, as many as it holds."""
        while len(buffer):
            try:
                received = self._receive(buffer)
            except transient() as error:
                self._recover(error)
            else:
                buffer = buffer[received:]

    def _receive(self, buffer: memoryview) -> int:
        if self._body is None:
            self._request()
        # http.client's own answer, under boto3's and urllib3's: theirs would receive into new memory and copy.
        answer = self._body._raw_stream
        received: int = answer._fp.readinto(buffer)
        if not received:
            raise WrongLengthError(f"the answer ended before byte {self.end}")
        self.position += received
        self._patience.progress()
        if self.position == self.end:
            answer.release_conn()
            self._body = None
        return received

    def _request(self) -> None:
        request = {}
        if self.position or self.end is not None:
            request["Range"] = f"bytes={self.position}-{'' if self.end is None else self.end - 1}"
        if self._etag is not None:
            request["IfMatch"] = self._etag
        answer = self._service.request("get_object", self._key, **request)
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
                raise DamagedError(f"{self._name} has {size} bytes, {self.end - size} too few")
            raise WrongLengthError(f"the answer would end at byte {offered}, not {self.end}")

    def _replaced(self) -> StoreError:
        return StoreError(f"{self._name} was replaced while it was being read, at byte {self.position}")

    def _recover(self, error: Exception) -> None:
        """Wait until it may be tried again; raises what `error` means if that is no use."""
        self.close()
        code = error_code(error)
        if code in ("PreconditionFailed", "412"):
            raise self._replaced() from None
        if code in ("InvalidRange", "416"):
            raise DamagedError(f"{self._name} is shorter than {self.position + 1} bytes") from None
        if code in ("NoSuchKey", "404"):
            raise MissingKeyError(f"{self._name} does not exist") from None
        self._patience.after(error, f" at byte {self.position}")
