"""A proxy in front of an S3 service that does to its answers what networks and services do to them.

    with FaultProxy(endpoint) as proxy:
        proxy.play([Drop(1000), Answer(503, "SlowDown"), None, Reset()])   # the next four reads of objects
        proxy.play(lambda request: Stall(2.0) if request.path.endswith(".tar") and request.nth == 3 else None)

A list is dealt to reads of objects (GET of a key, not listings) in the order in which they arrive, `None` lets one
pass, and after its end all pass. A function sees every request. `proxy.requests` says what was asked, `proxy.happened`
which faults took place. Connections are kept alive on the client's side as long as no fault ends them.
"""

import contextlib
import http.client
import io
import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import unquote, urlsplit

BLOCK = 64 << 10
TICK_SECONDS = 0.02  # how often a trickle sends something


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str  # /bucket/key, decoded
    query: str
    range: tuple[int, int | None] | None  # first and last byte as the Range header says
    headers: dict[str, str]  # by lower-case name
    number: int  # of requests before it, since the script began
    nth: int  # of requests before it with the same method and path
    connection: int  # which of the client's connections it came over

    @property
    def reads_object(self) -> bool:
        return self.method == "GET" and self.path.count("/") >= 2 and not self.path.endswith("/") and not self.query


@dataclass(frozen=True)
class Fault:
    """`hook` is called at the moment at which the fault happens, before anything else does."""

    hook: Callable[[], object] = field(default=lambda: None, repr=False, kw_only=True)


@dataclass(frozen=True)
class Drop(Fault):
    """The connection ends (FIN) when `after` bytes of the body were sent.

    `after`, here and below: None is before the status line, when the service has carried the request out already; a
    place behind the body's end is never reached, and the fault doesn't happen.
    """

    after: int | None = 0


@dataclass(frozen=True)
class Reset(Fault):
    """The connection ends by RST. Up to `after` bytes arrive: a RST overtakes what the client hasn't read yet."""

    after: int | None = 0


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing is sent for some seconds, then the answer goes on."""

    seconds: float
    after: int | None = 0


@dataclass(frozen=True)
class Trickle(Fault):
    """From there on the body comes slowly."""

    bytes_per_second: int
    after: int = 0

    @property
    def slice_bytes(self) -> int:
        return max(1, round(self.bytes_per_second * TICK_SECONDS))


@dataclass(frozen=True)
class Sip(Fault):
    """What the client sends is taken slowly."""

    bytes_per_second: int


@dataclass(frozen=True)
class Flip(Fault):
    """The next byte of the body arrives with one bit inverted."""

    after: int = 0


@dataclass(frozen=True)
class WrongLength(Fault):
    """Content-Length is wrong by `by` bytes; the body is whole, and the connection ends behind it."""

    by: int


@dataclass(frozen=True)
class Answer(Fault):
    """The service is not asked: this S3 error is the answer, e.g. 503 SlowDown, 500 InternalError, 403 ExpiredToken."""

    status: int
    code: str


@dataclass(frozen=True)
class Ignore(Fault):
    """The service takes no notice of a header (lower-case), e.g. of If-Match, If-None-Match or Range."""

    header: str


Script = Callable[[Request], Fault | None]


class FaultProxy:
    """Listens on a free port of 127.0.0.1 from when it is built until `close`. Safe to use from several threads."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        assert target.hostname is not None
        self.target = (target.hostname, target.port or 80)
        self.requests: list[Request] = []
        self.happened: list[Fault] = []
        self.body_bytes = 0  # of answers, on their way to clients
        self.closing = threading.Event()
        self._lock = threading.RLock()
        self._script: Script = lambda _: None
        self._since: Counter[tuple[str, str]] = Counter()  # requests since the script began, by method and path
        self._connections: list[socket.socket] = []
        self._errors: list[BaseException] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def play(self, script: Script | Iterable[Fault | None]) -> None:
        """Use this script from the next request on, and count from there."""
        with self._lock:
            self._script = script if callable(script) else _dealt_to_reads(script)
            self._since.clear()

    @property
    def reads(self) -> list[Request]:
        """The reads of objects so far."""
        return [request for request in self.requests if request.reads_object]

    def close(self) -> None:
        """Stop listening and end all connections. Raises what went wrong in the proxy itself."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            _end(connection)
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def connected(self, connection: socket.socket) -> int:
        """The number of a client's new connection."""
        with self._lock:
            self._connections.append(connection)
            return len(self._connections) - 1

    def fault_for(self, method: str, target: str, headers: dict[str, str], connection: int) -> Fault | None:
        """Note a request and let the script decide."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        span = (int(found[1]), int(found[2]) if found[2] else None) if found else None
        with self._lock:
            number, nth = self._since.total(), self._since[method, path]
            request = Request(method, path, parts.query, span, headers, number, nth, connection)
            self._since[method, path] += 1
            self.requests.append(request)
            return self._script(request)

    def happens(self, fault: Fault) -> None:
        with self._lock:
            self.happened.append(fault)
        fault.hook()

    def sends(self, size: int) -> None:
        with self._lock:
            self.body_bytes += size

    def failed(self, error: BaseException) -> None:
        self._errors.append(error)


def _dealt_to_reads(faults: Iterable[Fault | None]) -> Script:
    coming = iter(faults)
    return lambda request: next(coming, None) if request.reads_object else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Relay)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        assert error is not None
        if not isinstance(error, OSError):  # a client that went away is its own business
            self.proxy.failed(error)


class _Relay(BaseHTTPRequestHandler):
    """One connection of a client. Each request goes to the service over a connection of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.proxy = self.server.proxy
        self.number = self.proxy.connected(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `proxy.requests` is the log."""

    def relay(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.proxy.fault_for(self.command, self.path, headers, self.number)
        body = self._take(int(headers.get("content-length", 0)), fault)
        if isinstance(fault, Answer):
            self.proxy.happens(fault)
            self._refuse(fault)
            return
        service = http.client.HTTPConnection(*self.proxy.target)
        try:
            service.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            unseen = {"connection", "expect"}  # 100 Continue was said already
            if isinstance(fault, Ignore):
                self.proxy.happens(fault)
                unseen.add(fault.header)
            for name, value in self.headers.items():  # Host too, as it was signed
                if name.lower() not in unseen:
                    service.putheader(name, value)
            service.endheaders(body)
            self._pass_on(service.getresponse(), fault)
        finally:
            service.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815

    def _refuse(self, fault: Answer) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>from the fault proxy</Message></Error>".encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _pass_on(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        if isinstance(fault, Drop | Reset | Stall) and fault.after is None and not self._goes_on(fault):
            return
        whole = None if answer.length is not None or self.command == "HEAD" else answer.read()  # it came in chunks
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() == "content-length" and isinstance(fault, WrongLength):
                self.proxy.happens(fault)
                value = str(int(value) + fault.by)
                self.close_connection = True
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if whole is not None:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer if whole is None else io.BytesIO(whole), fault)

    def _take(self, size: int, fault: Fault | None) -> bytes:
        if not isinstance(fault, Sip):
            return self.rfile.read(size)
        self.proxy.happens(fault)
        taken = bytearray()
        while (left := size - len(taken)) and not self.proxy.closing.wait(min(left, BLOCK) / fault.bytes_per_second):
            taken += self.rfile.read(min(left, BLOCK))
        return bytes(taken)

    def _send(self, body: BinaryIO, fault: Fault | None) -> None:
        """The body until the fault, the fault, and the rest."""
        if not isinstance(fault, Drop | Reset | Stall | Trickle | Flip) or fault.after is None:
            while block := body.read(BLOCK):
                self._write(block)
            return
        left = fault.after
        while left and (block := body.read(min(left, BLOCK))):
            self._write(block)
            left -= len(block)
        following = body.read(1)
        if not following or not self._goes_on(fault):  # nothing follows: the fault's place lies behind the end
            return
        self._write(bytes([following[0] ^ 1]) if isinstance(fault, Flip) else following)
        while block := body.read(fault.slice_bytes if isinstance(fault, Trickle) else BLOCK):
            if isinstance(fault, Trickle) and self.proxy.closing.wait(len(block) / fault.bytes_per_second):
                return
            self._write(block)

    def _write(self, block: bytes) -> None:
        self.proxy.sends(len(block))
        self.wfile.write(block)

    def _goes_on(self, fault: Fault) -> bool:
        """Let a fault happen. False if it ends the connection."""
        self.proxy.happens(fault)
        if isinstance(fault, Drop | Reset):
            if isinstance(fault, Reset):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.rfile.close()
                self.connection.close()  # now, as the server would send a FIN first
            self.close_connection = True
            return False
        if isinstance(fault, Stall):
            self.close_connection = self.proxy.closing.wait(fault.seconds)
            return not self.close_connection
        return True


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
