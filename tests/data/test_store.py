"""One contract, four services; and what a network does to it."""

import os
import pickle
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import swift as openstack
from botocore.exceptions import ClientError, ReadTimeoutError
from faults import Answer, Drop, FaultProxy, Ignore, Reset, Sip, WrongLength

from alexvgg.data import patience
from alexvgg.data import s3 as services
from alexvgg.data import upload as uploads
from alexvgg.data.store import MissingKeyError, Store, open_store
from alexvgg.errors import InputError, StoreError

DATA = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture(params=["file", "localbucket", "moto", "swift"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> Store:
    return store_of(request.param, request, tmp_path, s3)


@pytest.fixture(params=["file", "localbucket", "moto"])
def conditional(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> Store:
    """The stores that can write an object only if there is none."""
    return store_of(request.param, request, tmp_path, s3)


def store_of(kind: str, request: pytest.FixtureRequest, folder: Path, s3: Callable[[str], str]) -> Store:
    if kind == "file":
        return open_store(folder.as_uri())
    return open_store(s3(request.getfixturevalue(kind)) + f"/{folder.name}")


def test_a_folder_that_goes_while_it_is_listed(tmp_path: Path) -> None:
    """As old checkpoints do: a listing has what stays, whatever is deleted meanwhile."""
    store = open_store(tmp_path.as_uri())
    store.put("runs/a/spec.json", b"{}")
    listed = set()
    with ThreadPoolExecutor(1) as pool:

        def come_and_go() -> None:
            for n in range(300):
                store.put(f"runs/a/checkpoints/{n}/commit.json", b"{}")
                shutil.rmtree(tmp_path / "runs" / "a" / "checkpoints")

        going = pool.submit(come_and_go)
        while not going.done():
            listed.add("runs/a/spec.json" in store.list("runs/"))
        going.result()
    assert listed == {True}


def test_contract(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/one", b"one")
    store.put("a/two", DATA)
    store.put("a/spaces and ä", b"")
    assert store.get("a/one") == b"one"
    assert store.get("a/spaces and ä") == b""
    assert store.get_range("a/two", 300, 1000) == DATA[300:1300]
    assert store.get_range("a/two", 5, 0) == b""
    spans = [(7, 10), (17, 3), (2_000_000, 1_500_000), (4_000_000, 0), (len(DATA) - 1, 1)]
    assert list(store.stream("a/two", spans)) == [DATA[start : start + length] for start, length in spans]
    assert store.list("a/") == ["a/one", "a/spaces and ä", "a/two"]
    assert store.list("a/t") == ["a/two"]
    assert store.list("b") == []
    assert store.exists("a/one")
    assert store.size("a/two") == len(DATA)
    assert not store.exists("a/three")
    assert not store.exists("a"), "folders are no objects"
    again = open_store(f"{store.url}/")
    assert (again.url, again.get("a/one")) == (store.url, b"one")
    assert pickle.loads(pickle.dumps(store)).get("a/one") == b"one"
    store.delete("a/one")
    store.delete("a/one")
    assert store.list("a/") == ["a/spaces and ä", "a/two"]


@pytest.mark.parametrize("size", [0, 1000, 5 << 20, 11_000_000])
def test_an_object_written_as_its_bytes_come(store: Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(uploads, "PART", 5 << 20)  # the least that S3 takes
    content = (DATA * 3)[:size]
    store.put("a/file", b"something else")
    with store.writer("a/file") as out:
        for start in range(0, size, 700_001):
            assert out.tell() == start
            assert out.write(content[start : start + 700_001]) == len(content[start : start + 700_001])
        assert store.get("a/file") == b"something else", "a part can be seen"
        assert store.list("") == ["a/file"]
    assert store.get("a/file") == content
    assert store.size("a/file") == size


@pytest.mark.parametrize("size", [1000, 6_000_000])
def test_writing_that_stops_leaves_what_was_there(store: Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(uploads, "PART", 5 << 20)
    store.put("a/file", b"before")
    with pytest.raises(KeyboardInterrupt), store.writer("a/file") as out:  # noqa: PT012
        out.write((DATA * 2)[:size])
        raise KeyboardInterrupt
    assert store.get("a/file") == b"before"
    assert store.list("") == ["a/file"]


@pytest.mark.parametrize("refused", [("UploadPart",), ("UploadPart", "AbortMultipartUpload")])
def test_a_failed_upload_leaves_no_parts_if_they_can_be_removed(
    moto: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_SECONDS", 0.0)
    store = open_store(s3(moto))
    assert isinstance(store, services.S3Store)
    events = store._s3.meta.events

    def refuse(**_: object) -> None:
        raise ReadTimeoutError(endpoint_url="http://x")

    for operation in refused:
        events.register(f"before-send.s3.{operation}", refuse)
    try:
        with pytest.raises(StoreError, match="writing large: Read timeout"), store.writer("large") as out:
            out.write(bytes(uploads.PART + 1))
    finally:
        for operation in refused:
            events.unregister(f"before-send.s3.{operation}", refuse)
    assert not store.exists("large")
    assert ("Uploads" in store._s3.list_multipart_uploads(Bucket="bucket")) == (len(refused) > 1)


def test_what_is_not_there(store: Store) -> None:
    store.put("short", b"12345")
    for read in (lambda: store.get("none"), lambda: store.get_range("none", 0, 3), lambda: store.size("none")):
        with pytest.raises(MissingKeyError, match=r"none.* does not exist"):
            read()
    with pytest.raises(StoreError, match="short"):
        store.get_range("short", 2, 100)
    with pytest.raises(StoreError, match="short"):
        store.get_range("short", 90, 10)


def test_many_writers_of_one_object(store: Store) -> None:
    """Readers see one of the versions, whole."""
    versions = [bytes([n]) * 100_000 for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: store.put("latest", version), versions))
    assert store.get("latest") in versions


def test_a_new_object_replaces_none(conditional: Store) -> None:
    assert conditional.put_new("a/three", b"3")
    assert not conditional.put_new("a/three", b"4")
    assert not conditional.put_new("a/three", b"3"), "two that write the same: one of them did"
    assert conditional.get("a/three") == b"3"


def test_one_of_many_writers_wins(conditional: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda n: conditional.put_new("commit", str(n).encode()), range(16)))
    assert sum(wins) == 1
    assert conditional.get("commit") == str(wins.index(True)).encode()


def test_a_claim_is_on_the_disk_before_anyone_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr(os, "link", lambda *paths: (steps.append("link"), link(*paths)))
    assert open_store(tmp_path.as_uri()).put_new("runs/a/attempts/1.json", b"claimed")
    assert steps == [7, "link"]


def test_a_service_without_conditional_writes_is_named_and_nothing_is_written(
    swift: str, s3: Callable[[str], str], tmp_path: Path
) -> None:
    store = open_store(s3(swift) + f"/{tmp_path.name}")
    with pytest.raises(InputError, match=r"has no conditional writes \(it refuses If-None-Match: \*\).* AWS S3"):
        store.put_new("commit", b"1")
    with pytest.raises(InputError, match=r"has no conditional writes"):
        store.put_new("commit", DATA)
    assert not store.exists("commit")
    store.put("commit", b"1")


def test_swift_checks_signatures(swift: str, s3: Callable[[str], str]) -> None:
    """Else it would say nothing about ours."""
    open_store(s3(swift)).put("data", b"1")
    stranger = boto3.Session(openstack.ACCESS_KEY, "wrong", region_name="us-east-1").client("s3", endpoint_url=swift)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.get_object(Bucket="bucket", Key="data")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{swift}/bucket/data?AWSAccessKeyId={openstack.ACCESS_KEY}", timeout=10)


@pytest.mark.parametrize("url", ["https://x/y", "pipe:ls", "s3://", "file://host/x", "folder"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="isn't a storage URL"):
        open_store(url)


@pytest.mark.parametrize("key", ["../secret", "shards/../../secret", "..", "/etc/hostname"])
def test_keys_stay_inside_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="leaves"):
        open_store(tmp_path.as_uri()).get(key)


def test_a_folder_may_have_its_shards_on_other_disks(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"shard")
    (tmp_path / "folder/train-0..1.tar").symlink_to(tmp_path / "elsewhere")
    store = open_store((tmp_path / "folder").as_uri())
    assert store.get_range("train-0..1.tar", 1, 2) == b"ha"
    assert store.list("train") == ["train-0..1.tar"]
    (tmp_path / "elsewhere").unlink()
    assert store.list("train") == [], "that disk is away"


def test_who_reads_while_an_object_is_replaced_reads_the_old_one(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put("latest", b"the old one")
    with (tmp_path / "latest").open("rb") as reader:
        store.put("latest", b"the new one")
        assert reader.read() == b"the old one"


def test_missing_bucket_and_absent_service_are_sentences(
    localbucket: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3(localbucket)
    with pytest.raises(InputError, match=r"there is no such bucket .* Check the bucket's name"):
        open_store("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setattr(services, "OPENING_SECONDS", 0.2)
    with pytest.raises(StoreError, match=r"looking for the bucket at http://127\.0\.0\.1:1: .*gave up after"):
        open_store("s3://bucket/x")


def test_a_folder_that_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a file where a folder is needed")
    store = open_store(tmp_path.as_uri())
    with pytest.raises(StoreError, match="/a/b: Not a directory"):
        store.get("a/b")
    for root, key in ((store, "a/b"), (open_store("file:///proc/nope"), "b")):
        told = rf"nothing can be written in .*/(a|nope): .* Make {root.url} a folder with room, in which this user may"
        for put in (root.put, root.put_new):
            with pytest.raises(StoreError, match=told):
                put(key, b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="/folder: Is a directory"), store.writer("folder") as out:
        out.write(b"1")
    (tmp_path / "folder").rmdir()
    store.put("whole", b"1")
    writing = store.writer("part")
    writing.__enter__().write(b"2")
    assert not writing.__exit__(RuntimeError, RuntimeError("midway"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "whole"]


def test_a_folders_name_may_have_any_characters(tmp_path: Path) -> None:
    folder = tmp_path / "my project #1? 100%"
    open_store(folder.as_uri()).put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"
    for url in (f"file://{tmp_path}/run#2", f"file://{tmp_path}/run?2"):
        with pytest.raises(InputError, match=r"write \? and # of a folder's name as %3F and %23"):
            open_store(url)


@dataclass
class Wire:
    """The same bucket directly and through the proxy."""

    direct: Store
    store: Store
    proxy: FaultProxy


@pytest.fixture(params=["localbucket", "moto", "swift"])
def wire(request: pytest.FixtureRequest, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    endpoint = request.getfixturevalue(request.param)
    direct = open_store(s3(endpoint))
    direct.put("data", DATA)
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setattr(patience.time, "sleep", lambda _: None)
        yield Wire(direct, open_store("s3://bucket"), proxy)


@pytest.mark.parametrize(("start", "length"), [(0, None), (100_000, 4_000_000)])
def test_a_body_that_breaks_off_is_continued(wire: Wire, start: int, length: int | None) -> None:
    wire.proxy.play([Drop(2_000_000), Drop(0), Reset(1_000_000)])
    got = wire.store.get("data") if length is None else wire.store.get_range("data", start, length)
    assert got == DATA[start:][:length]
    assert len(wire.proxy.reads) == 4
    resumed = [request.range[0] for request in wire.proxy.reads[1:] if request.range is not None]
    assert start < resumed[0] <= start + 2_000_000, "bytes that had arrived were asked for again"
    assert resumed[1] == resumed[0]
    assert resumed[1] <= resumed[2] <= resumed[1] + 1_000_000


def test_an_object_replaced_in_mid_body_is_an_error(wire: Wire) -> None:
    wire.proxy.play([Drop(1_000_000, hook=lambda: wire.direct.put("data", DATA[::-1]))])
    with pytest.raises(StoreError, match="was replaced while it was being read"):
        wire.store.get("data")


def test_it_gives_up_after_a_time_without_a_byte(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_SECONDS", 0.3)
    wire.proxy.play(lambda request: Drop(0) if request.reads_object else None)
    with pytest.raises(
        StoreError, match=r"reading data at byte 0: .* gave up after \d+ tries, the last 0 s without a byte"
    ):
        wire.store.get("data")
    assert len(wire.proxy.reads) > 3
    assert wire.store.retries == len(wire.proxy.reads) - 1


def test_sending_may_take_longer_than_connecting(
    localbucket: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 575 MB of weights do; the systems' own buffers take some megabytes at once."""
    monkeypatch.setattr(services, "CONNECT_SECONDS", 0.5)
    direct = open_store(s3(localbucket))
    with FaultProxy(localbucket) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = open_store(direct.url)
        proxy.play(lambda request: Sip(8_000_000) if request.method in ("PUT", "POST") else None)
        assert store.put_new("new", DATA * 3)
        store.put("old", DATA * 3)
        assert (store.retries, len(proxy.happened)) == (0, 3), "conditions are tried with a second write"
    assert direct.get("new") == direct.get("old") == DATA * 3


def test_weights_of_many_parts_arrive_whole(
    moto: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PART", 5 << 20)
    direct = open_store(s3(moto))
    with FaultProxy(moto) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setattr(patience.time, "sleep", lambda _: None)
        store = open_store(direct.url)
        proxy.play(lambda request: Drop(None) if request.method == "PUT" and request.nth == 1 else None)
        store.put("weights", DATA * 3)
        assert (store.retries, len(proxy.happened)) == (1, 1), "a lost connection costs one part"
    assert direct.get("weights") == DATA * 3


@pytest.mark.parametrize("answer", [Answer(503, "SlowDown"), Answer(500, "InternalError")])
def test_a_burst_of_errors_is_outlived(wire: Wire, answer: Answer) -> None:
    wire.proxy.play([answer] * 40)
    assert wire.store.get("data") == DATA
    wire.proxy.play(lambda request: answer if request.number < 10 else None)
    wire.store.put("data", DATA[::-1])
    assert wire.store.list("data") == ["data"]
    assert wire.direct.get("data") == DATA[::-1]


def test_a_service_that_is_restarted_is_waited_for(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile nobody listens at its port: the system refuses connections at once."""
    wire.proxy.close()
    asked = 0

    def sleep(_seconds: float) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(patience.time, "sleep", sleep)
    monkeypatch.setattr(patience, "GIVE_UP_SECONDS", 0.3)
    for refused in (lambda: wire.store.get("data"), lambda: wire.store.list(""), lambda: wire.store.put("data", b"")):
        asked = 0
        with pytest.raises(StoreError, match=r"gave up after \d+ tries"):
            refused()
        assert asked > 1


@pytest.mark.parametrize("wire", ["localbucket", "moto"], indirect=True)
def test_an_error_while_conditions_are_tried_is_no_lack_of_them(wire: Wire) -> None:
    """The first object is written twice, to see whether the service keeps to If-None-Match."""
    wire.proxy.play(lambda request: Answer(503, "SlowDown") if request.method == "PUT" and request.nth == 1 else None)
    assert wire.store.put_new("first", b"1")
    assert len([r for r in wire.proxy.requests if r.method == "PUT"]) == 3


@pytest.mark.parametrize("wire", ["localbucket", "moto"], indirect=True)  # Swift has no conditional writes
def test_a_write_whose_answer_was_lost_still_won(wire: Wire) -> None:
    wire.proxy.play(lambda request: Drop(None) if request.method == "PUT" and request.nth == 0 else None)
    assert wire.store.put_new("commit", b"mine")
    wire.proxy.play(lambda request: Drop(None) if request.method == "PUT" and request.nth == 0 else None)
    assert not wire.store.put_new("commit", b"theirs")
    assert wire.direct.get("commit") == b"mine"


def test_a_wrong_length_is_outlived(wire: Wire) -> None:
    wire.proxy.play([WrongLength(-1000), WrongLength(1000), None])
    assert wire.store.get_range("data", 5, 2_000_000) == DATA[5:2_000_005]


def test_renewed_credentials_are_used(swift: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(s3(swift))
    assert isinstance(store, services.S3Store)
    store.put("data", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert store.get("data") == b"1", "credentials are read when they are needed"
    store.renew()
    with pytest.raises(StoreError, match="SignatureDoesNotMatch"):
        store.get("data")
    monkeypatch.undo()
    services._client_of.cache_clear()


def test_expired_credentials_are_read_again_and_then_an_error(wire: Wire) -> None:
    wire.proxy.play([Answer(403, "ExpiredToken")])
    assert wire.store.get("data") == DATA, "what was renewed in the environment isn't used"
    wire.proxy.play(lambda _: Answer(403, "ExpiredToken"))
    with pytest.raises(StoreError, match=r"reading data at byte 0: ExpiredToken: .* Renew the AWS credentials"):
        wire.store.get("data")
    assert len(wire.proxy.reads) == 4


def test_credentials_that_expire_late_and_after_other_errors_are_read_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.proxy.play([Answer(503, "SlowDown"), Answer(403, "ExpiredToken")])
    assert wire.store.get("data") == DATA
    wire.proxy.play([Answer(403, "ExpiredToken")])
    monkeypatch.setattr(patience, "GIVE_UP_SECONDS", -1.0)
    assert wire.store.get("data") == DATA, "renewing costs no patience"


@pytest.mark.parametrize("wire", ["localbucket", "moto"], indirect=True)
def test_a_service_that_would_overwrite_is_named(wire: Wire) -> None:
    wire.proxy.play(lambda _: Ignore("if-none-match"))
    with pytest.raises(InputError, match=r"has no conditional writes \(it takes no notice of If-None-Match"):
        wire.store.put_new("overwritten", b"1")


@pytest.mark.parametrize("wire", ["localbucket", "moto"], indirect=True)
def test_an_intact_service_is_asked_only_once(wire: Wire) -> None:
    for key in ("asked/1", "asked/2", "asked/3"):
        assert wire.store.put_new(key, b"1")
    puts = [request.path for request in wire.proxy.requests if request.method == "PUT"]
    assert puts == [f"/bucket/asked/{n}" for n in (1, 1, 2, 3)]
