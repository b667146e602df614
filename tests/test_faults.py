"""Each fault as a client without retries sees it, in front of two S3 services."""

import http.client
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from faults import Answer, Drop, Fault, FaultProxy, Flip, Ignore, Request, Reset, Stall, Trickle, WrongLength

from alexvgg.data import patience
from alexvgg.data.store import Store, open_store

DATA = bytes(range(256)) * 4000  # 1 MB
# By its scope moto knows which of AWS' services is meant; nobody checks the signature.
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@pytest.fixture(params=["localbucket", "moto"])
def proxy(
    request: pytest.FixtureRequest, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy that this process's S3 clients use; bucket/data holds DATA."""
    endpoint = request.getfixturevalue(request.param)
    open_store(s3(endpoint)).put("data", DATA)
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    return open_store("s3://bucket")


class Client:
    """One connection that never retries."""

    def __init__(self, proxy: FaultProxy) -> None:
        address = urlsplit(proxy.url)
        self.http = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)

    def get(self, **headers: str) -> http.client.HTTPResponse:
        self.http.request("GET", "/bucket/data", headers={"Authorization": SIGNED, **headers})
        return self.http.getresponse()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    client = Client(proxy)
    yield client
    client.http.close()


def always(fault: Fault) -> Callable[[Request], Fault]:
    return lambda _: fault


def received(answer: http.client.HTTPResponse) -> tuple[bytes, type[BaseException] | None]:
    """What arrives of a body, and how it ends."""
    got = bytearray()
    try:
        while block := answer.read(10_000):
            got += block
    except (http.client.HTTPException, OSError) as error:
        return bytes(got), type(error)
    return bytes(got), None


def test_without_a_fault_all_requests_share_one_connection(proxy: FaultProxy, client: Client) -> None:
    for _ in range(5):
        assert received(client.get()) == (DATA, None)
    assert len(proxy.requests) == 5
    assert len({request.connection for request in proxy.requests}) == 1
    assert [request.nth for request in proxy.requests] == [0, 1, 2, 3, 4]
    assert proxy.body_bytes == 5 * len(DATA)


@pytest.mark.parametrize("after", [0, 1, 65_536, 300_001])
def test_a_drop_ends_the_body_after_exactly_so_many_bytes(proxy: FaultProxy, client: Client, after: int) -> None:
    proxy.play(always(Drop(after)))
    answer = client.get()
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert received(answer)[0] == DATA[:after]
    assert proxy.happened == [Drop(after)]
    client.http.close()
    proxy.play([])
    assert received(client.get()) == (DATA, None), "the next connection is intact"


def test_a_drop_before_the_answer(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Drop(None)))
    with pytest.raises(http.client.RemoteDisconnected):
        client.get()


def test_a_reset_is_no_clean_end(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Reset(500_000)))
    got, end = received(client.get())
    assert end is ConnectionResetError
    assert got == DATA[: len(got)]
    assert len(got) <= 500_000
    client.http.close()
    proxy.play(always(Reset(None)))
    with pytest.raises(ConnectionResetError):
        client.get()


@pytest.mark.parametrize("after", [None, 0, 700_000])
def test_a_stall_delays_and_goes_on(proxy: FaultProxy, client: Client, after: int | None) -> None:
    proxy.play(always(Stall(0.3, after)))
    began = time.monotonic()
    answer = client.get()
    if after is None:
        assert time.monotonic() - began >= 0.3
    assert received(answer) == (DATA, None)
    assert time.monotonic() - began >= 0.3
    assert received(client.get())[0] == DATA
    assert len({request.connection for request in proxy.requests}) == 1, "a stall doesn't end the connection"


def test_a_trickle_is_slow_from_its_place_on(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Trickle(100_000, after=len(DATA) - 30_000)))
    began = time.monotonic()
    assert received(client.get()) == (DATA, None)
    assert time.monotonic() - began > 0.25


def test_one_bit_is_flipped(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Flip(123_456)))
    got, end = received(client.get())
    assert end is None
    assert [i for i, (a, b) in enumerate(zip(got, DATA, strict=True)) if a != b] == [123_456]
    assert (got[123_456] ^ DATA[123_456]).bit_count() == 1


def test_a_length_that_is_too_long_or_too_short(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(WrongLength(10)))
    answer = client.get()
    assert answer.headers["Content-Length"] == str(len(DATA) + 10)
    assert received(answer)[0] == DATA
    client.http.close()
    proxy.play(always(WrongLength(-10)))
    assert received(client.get()) == (DATA[:-10], None)


def test_an_error_in_the_services_place(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Answer(503, "SlowDown")))
    answer = client.get()
    assert answer.status == 503
    assert b"<Code>SlowDown</Code>" in answer.read()
    proxy.play([])
    assert received(client.get()) == (DATA, None)
    assert len({request.connection for request in proxy.requests}) == 1


def test_a_header_that_the_service_does_not_see(proxy: FaultProxy, client: Client) -> None:
    assert received(client.get(Range="bytes=5-9"))[0] == DATA[5:10]
    proxy.play(always(Ignore("range")))
    assert received(client.get(Range="bytes=5-9"))[0] == DATA
    assert proxy.requests[-1].range == (5, 9)


def test_a_fault_behind_the_end_does_not_happen(proxy: FaultProxy, client: Client) -> None:
    proxy.play(always(Drop(len(DATA))))
    assert received(client.get()) == (DATA, None)
    assert proxy.happened == []


def test_a_list_is_dealt_to_reads_of_objects_only(proxy: FaultProxy, store: Store) -> None:
    proxy.play([None, Answer(503, "SlowDown")])
    store.put("other", b"1")
    assert "data" in store.list("")
    assert store.exists("data")
    assert proxy.happened == []
    assert store.get("other") == b"1"
    assert store.get_range("data", 10, 5) == DATA[10:15]
    assert [fault.status for fault in proxy.happened if isinstance(fault, Answer)] == [503]
    assert [request.range for request in proxy.reads] == [None, (10, 14), (10, 14)]


def test_a_function_sees_what_is_asked_for(proxy: FaultProxy, store: Store) -> None:
    seen: list[Request] = []
    proxy.play(seen.append)
    store.put("a key/with ä", b"123")
    store.get_range("a key/with ä", 1, 2)
    assert [(r.method, r.path, r.number) for r in seen] == [
        ("PUT", "/bucket/a key/with ä", 0), ("GET", "/bucket/a key/with ä", 1),
    ]  # fmt: skip
    assert seen[1].range == (1, 2)


def test_an_answer_that_is_lost_was_carried_out(proxy: FaultProxy, store: Store) -> None:
    proxy.play(lambda request: Drop(None) if request.method == "PUT" and request.nth == 0 else None)
    store.put("lost", b"written")
    assert sum(request.method == "PUT" for request in proxy.requests) == 2
    assert store.get("lost") == b"written"


def test_many_clients_at_once(proxy: FaultProxy, store: Store) -> None:
    proxy.play(lambda request: Drop(50_000) if request.number % 3 == 0 else None)
    with ThreadPoolExecutor(8) as pool:
        reads = list(pool.map(lambda i: store.get_range("data", i * 1000, 100_000), range(24)))
    assert reads == [DATA[i * 1000 :][:100_000] for i in range(24)]
    assert proxy.happened


def test_the_hook_runs_at_that_moment(proxy: FaultProxy, client: Client) -> None:
    sent: list[int] = []
    proxy.play(always(Drop(400_000, hook=lambda: sent.append(proxy.body_bytes))))
    received(client.get())
    assert sent == [400_000]


def test_a_broken_hook_is_not_swallowed(localbucket: str, s3: Callable[[str], str]) -> None:
    s3(localbucket)
    proxy = FaultProxy(localbucket)
    client = Client(proxy)
    proxy.play(always(Drop(0, hook=lambda: 1 / 0)))
    received(client.get())
    client.http.close()
    with pytest.raises(ZeroDivisionError):
        proxy.close()
