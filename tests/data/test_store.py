"""One contract, three services; and what a network does to it."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ReadTimeoutError

from alexvgg.data import store as stores
from alexvgg.data.store import MissingKeyError, Store, StoreError, open_store
from alexvgg.errors import InputError

DATA = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture(params=["file", "localbucket", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> Store:
    if request.param == "file":
        return open_store(tmp_path.as_uri())
    return open_store(s3(request.getfixturevalue(request.param)) + f"/{tmp_path.name}")


def test_contract(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/one", b"one")
    store.put("a/two", DATA)
    assert store.get("a/one") == b"one"
    assert store.get_range("a/two", 300, 1000) == DATA[300:1300]
    assert store.get_range("a/two", 5, 0) == b""
    assert store.list("a/") == ["a/one", "a/two"]
    assert store.list("b") == []
    assert store.exists("a/one")
    assert not store.exists("a/three")
    assert store.put_new("a/three", b"3")
    assert not store.put_new("a/three", b"4")
    assert store.get("a/three") == b"3"
    store.delete("a/one")
    store.delete("a/one")
    assert store.list("a/") == ["a/three", "a/two"]


def test_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "upload"
    path.write_bytes(DATA)
    store.put("a/file", b"something else")
    store.put_file("a/file", path)
    assert store.get("a/file") == DATA
    assert store.size("a/file") == len(DATA)
    with pytest.raises(MissingKeyError, match="none does not exist"):
        store.size("none")
    monkeypatch.setattr(stores, "PART", 5 << 20)  # the least that S3 takes
    path.write_bytes(DATA * 2 + b"end")
    store.put_file("a/file", path)
    assert store.get("a/file") == DATA * 2 + b"end", "put together from parts"


def test_a_failed_upload_leaves_no_parts(moto: str, s3: Callable[[str], str], tmp_path: Path) -> None:
    store = open_store(s3(moto))
    assert isinstance(store, stores.S3Store)
    path = tmp_path / "upload"
    path.write_bytes(bytes(stores.PART + 1))
    events = store._s3.meta.events

    def refuse(**_: object) -> None:
        raise ReadTimeoutError(endpoint_url="http://x")

    events.register("before-send.s3.UploadPart", refuse)
    try:
        with pytest.raises(StoreError, match="writing s3://bucket/large: Read timeout"):
            store.put_file("large", path)
    finally:
        events.unregister("before-send.s3.UploadPart", refuse)
    assert not store.exists("large")
    assert "Uploads" not in store._s3.list_multipart_uploads(Bucket="bucket")


def test_what_is_not_there(store: Store) -> None:
    store.put("short", b"12345")
    for read in (lambda: store.get("none"), lambda: store.get_range("none", 0, 3)):
        with pytest.raises(MissingKeyError, match="none does not exist"):
            read()
    with pytest.raises(StoreError, match="short"):
        store.get_range("short", 2, 100)
    with pytest.raises(StoreError, match="short"):
        store.get_range("short", 90, 10)


def test_one_of_many_writers_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda n: store.put_new("commit", str(n).encode()), range(16)))
    assert sum(wins) == 1
    assert store.get("commit") == str(wins.index(True)).encode()


@pytest.mark.parametrize("url", ["https://x/y", "pipe:ls", "s3://", "file://host/x", "folder"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="no storage URL"):
        open_store(url)


def test_keys_stay_inside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves"):
        open_store(tmp_path.as_uri()).get("../secret")


def test_missing_bucket_and_absent_service_are_sentences(
    localbucket: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3(localbucket)
    with pytest.raises(InputError, match=r"there is no such bucket .* Check the bucket's name"):
        open_store("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match="can't reach"):
        open_store("s3://bucket/x")


class Faulty:
    """A TCP proxy that breaks the first connections' answers off after some bytes of their body."""

    def __init__(self, endpoint: str) -> None:
        self.target = urlsplit(endpoint)
        self.cut_after: list[int] = []  # for each GET of an object to come: bytes of the body that pass
        self.ranges: list[str] = []
        self.on_cut: Callable[[], None] = lambda: None
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection((self.target.hostname, self.target.port)) as server:
            request = client.recv(65536)
            if not request:
                return
            ask = re.sub(rb"\r\nConnection: [^\r]*", b"", request).replace(
                b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
            )
            server.sendall(ask)
            found = re.search(rb"\r\nRange: ([^\r]*)", request)
            reading = request.startswith(b"GET /bucket/") and b"list-type" not in request
            if reading:
                self.ranges.append(found[1].decode() if found else "")
            allowed = self.cut_after.pop(0) if reading and self.cut_after else None
            answer = b""
            while block := server.recv(65536):
                answer += block
                if allowed is None:
                    client.sendall(block)
                elif b"\r\n\r\n" in answer:
                    body = answer.index(b"\r\n\r\n") + 4
                    if len(answer) - body >= allowed:
                        client.sendall(answer[: body + allowed])
                        self.on_cut()
                        return


@dataclass
class Wire:
    """The same bucket directly and through the proxy."""

    direct: Store
    store: Store
    proxy: Faulty


@pytest.fixture
def wire(moto: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    direct, proxy = open_store(s3(moto)), Faulty(moto)
    direct.put("data", DATA)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    monkeypatch.setattr(stores.time, "sleep", lambda _: None)
    yield Wire(direct, open_store("s3://bucket"), proxy)
    proxy.server.close()


@pytest.mark.parametrize(("start", "length"), [(0, None), (100_000, 4_000_000)])
def test_a_body_that_breaks_off_is_continued(wire: Wire, start: int, length: int | None) -> None:
    wire.proxy.cut_after = [2_000_000, 0, 1_000_000]
    got = wire.store.get("data") if length is None else wire.store.get_range("data", start, length)
    assert got == DATA[start:][:length]
    assert len(wire.proxy.ranges) == 4
    resumed = [int(r.removeprefix("bytes=").partition("-")[0]) for r in wire.proxy.ranges[1:]]
    assert start < resumed[0] <= start + 2_000_000, "bytes that had arrived were asked for again"
    assert resumed[1] == resumed[0]
    assert resumed[2] > resumed[1]


def test_an_object_replaced_in_mid_body_is_an_error(wire: Wire) -> None:
    wire.proxy.on_cut = lambda: wire.direct.put("data", DATA[::-1])
    wire.proxy.cut_after = [1_000_000]
    with pytest.raises(StoreError, match="was replaced while it was being read"):
        wire.store.get("data")


def test_it_gives_up_after_five_tries_without_a_byte(wire: Wire) -> None:
    wire.proxy.cut_after = [0] * 5
    with pytest.raises(StoreError, match="gave up after 5 tries without a byte"):
        wire.store.get("data")
    assert len(wire.proxy.ranges) == 5
