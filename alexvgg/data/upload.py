"""One object on its way to an S3 service, in parts of which one is in memory at a time."""

from contextlib import suppress
from typing import Any

from alexvgg.data.patience import Service, attempt, transient

PART = 32 << 20  # bytes


class Upload:
    """Takes an object's bytes as they come; `finish` makes them the object, `abort` leaves nothing behind.

    boto3's upload_file would send a file in pieces of 16 KiB, each of which must get hold of the interpreter lock:
    beside threads that pack the next shards that took about twice as long (tests/bench/pack.py).
    """

    def __init__(self, service: Service, key: str) -> None:
        self._service, self._key, self._doing = service, key, f"writing {key}"
        self._part, self._sent = bytearray(), 0
        self._id: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []

    def tell(self) -> int:
        """How many bytes were written."""
        return self._sent + len(self._part)

    def write(self, data: bytes) -> int:
        """Takes all of `data`, and sends what is a whole part."""
        rest = memoryview(data)
        while len(rest):
            room = PART - len(self._part)
            self._part += rest[:room]
            rest = rest[room:]
            if len(self._part) == PART:
                self._send()
        return len(data)

    def finish(self) -> None:
        """Make what was written the object."""
        if not self._id:
            self._ask("put_object", Body=self._part)
            return
        if self._part:
            self._send()
        self._ask("complete_multipart_upload", MultipartUpload={"Parts": self._parts}, **self._id)

    def abort(self) -> None:
        """Remove the parts, or they would lie there, unseen and paid for. Whatever stopped the upload may stop that."""
        if self._id:
            with suppress(*transient()):
                self._service.request("abort_multipart_upload", self._key, **self._id)

    def _send(self) -> None:
        if not self._id:
            self._id = {"UploadId": self._ask("create_multipart_upload")["UploadId"]}
        number = len(self._parts) + 1
        sent = self._ask("upload_part", PartNumber=number, Body=self._part, **self._id)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._sent += len(self._part)
        self._part = bytearray()

    def _ask(self, operation: str, **more: Any) -> Any:
        return attempt(self._service, self._doing, lambda: self._service.request(operation, self._key, **more))
