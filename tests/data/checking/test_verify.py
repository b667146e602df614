"""Every kind of damage, done to a small intact dataset, is named with shard, key and offset, and nothing else is."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from faults import Answer, Drop, FaultProxy, Reset
from smalldata import SPLITS, members_of, pack, picture, tar_of

from alexvgg.cli import main
from alexvgg.data import tars
from alexvgg.data.checking.check import Problem
from alexvgg.data.checking.verify import Report, summary, verify
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three shards of six samples, indexed and intact."""
    return pack(open_store(tmp_path.as_uri()))


def edit(store: Store, shard: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a shard's index."""
    document = json.loads(store.get(f"index/{shard}.json"))
    change(document)
    store.put(f"index/{shard}.json", json.dumps(document).encode())


def found(store: Store) -> list[tuple[str, str, str | None, int | None]]:
    return [(p.kind, p.where, p.key, p.offset) for p in verify(store).problems]


def offset_of(store: Store, shard: str, name: str) -> tuple[int, int]:
    """Offsets of a member's header and of its data."""
    with tarfile.open(fileobj=io.BytesIO(store.get(shard))) as tar:
        member = tar.getmember(name)
        return member.offset, member.offset_data


def flip(store: Store, shard: str, at: int) -> None:
    data = bytearray(store.get(shard))
    data[at] ^= 1
    store.put(shard, bytes(data))


def test_an_intact_dataset_has_no_problem(store: Store) -> None:
    report = verify(store)
    assert report.intact
    assert (report.shards, report.samples, report.duplicates) == (3, 18, [])
    assert report.bytes == sum(len(store.get(shard)) for shards in SPLITS.values() for shard in shards)


@pytest.mark.parametrize("ahead", [512, 700, 5000])
def test_samples_may_lie_across_reads(digits: Dataset, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(tars, "READ_AHEAD", ahead)
    assert verify(digits.store).intact


def test_a_flipped_bit_in_an_image(store: Store) -> None:
    _, at = offset_of(store, "train-1.tar", "009.jpg")
    flip(store, "train-1.tar", at + 100)
    assert found(store) == [("crc32", "train-1.tar", "009", at)]


@pytest.mark.parametrize("name", ["006.jpg", "006.cls", "009.jpg", "009.cls"])
def test_a_flipped_bit_in_a_header(store: Store, name: str) -> None:
    """The images behind it are still where the index says."""
    at, _ = offset_of(store, "train-1.tar", name)
    flip(store, "train-1.tar", at + 3)
    assert found(store) == [("tar", "train-1.tar", None, at)]


def test_any_flipped_bit_is_noticed_unless_it_means_nothing(store: Store) -> None:
    whole = store.get("val-0.tar")
    said_nothing = []
    for at in range(0, len(whole), 97):
        flip(store, "val-0.tar", at)
        if verify(store).intact:
            said_nothing.append(at)
        store.put("val-0.tar", whole)
    assert [at for at in said_nothing if at not in padding(whole)] == []
    assert len(said_nothing) > 20


def padding(tar: bytes) -> set[int]:
    """Where nothing stands: behind each member's bytes up to the next block, and two bytes behind each checksum."""
    nothing: set[int] = set()
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        for member in file:
            end = member.offset_data + member.size
            nothing |= {*range(end, -(-end // 512) * 512), member.offset + 154, member.offset + 155}
    return nothing


def test_a_shard_that_is_cut_names_every_lost_image(store: Store) -> None:
    whole = store.get("train-1.tar")
    _, at = offset_of(store, "train-1.tar", "009.jpg")
    store.put("train-1.tar", whole[: at + 10])
    places = {key: offset_of_in(whole, f"{key}.jpg") for key in ("009", "010", "011")}
    assert found(store) == [
        ("size", "train-1.tar", None, at + 10),
        ("tar", "train-1.tar", None, at + 10),
        *(("lost", "train-1.tar", key, place) for key, place in places.items()),
    ]


def offset_of_in(tar: bytes, name: str) -> int:
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        return file.getmember(name).offset_data


def test_a_tar_cut_anywhere_is_noticed(store: Store) -> None:
    whole = store.get("val-0.tar")
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, end + 512, 512), end + 513, end + 1023]:
        store.put("val-0.tar", whole[:cut])
        kinds = {p.kind for p in verify(store).problems}
        assert {"size", "tar"} <= kinds, f"cut at {cut}"


def test_a_missing_end_mark(store: Store) -> None:
    """Every sample is there, but a copy that broke off looks just like it."""
    whole = store.get("val-0.tar")
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    store.put("val-0.tar", whole[:end])
    edit(store, "val-0.tar", lambda index: index.update(size=end))
    report = verify(store)
    assert [(p.kind, p.offset) for p in report.problems] == [("tar", end)]
    assert "cut off" in report.problems[0].what


def test_tars_put_together(store: Store) -> None:
    store.put("val-0.tar", store.get("val-0.tar") * 2)
    report = verify(store)
    assert [p.kind for p in report.problems] == ["size", "tar"]
    assert "tars were put together" in report.problems[1].what


def test_an_image_that_the_index_does_not_have(store: Store) -> None:
    edit(
        store,
        "train-0.tar",
        lambda index: [index[name].pop(2) for name in ("keys", "offsets", "sizes", "labels", "crc32")],
    )
    _, at = offset_of(store, "train-0.tar", "002.jpg")
    assert found(store) == [("stray", "train-0.tar", "002", at), ("fingerprint", "dataset.json", None, None)]


def test_an_image_that_the_tar_does_not_have(store: Store) -> None:
    whole, at = store.get("train-0.tar"), offset_of(store, "train-0.tar", "002.jpg")[0]
    behind = offset_of(store, "train-0.tar", "003.jpg")[0]
    store.put("train-0.tar", whole[:at] + whole[behind:] + bytes(behind - at))
    problems = verify(store).problems
    assert {(p.kind, p.key) for p in problems} >= {
        ("lost", "002"),
        ("crc32", "002"),
        ("place", "003"),
        ("place", "005"),
    }
    assert {p.where for p in problems} == {"train-0.tar"}


def test_a_key_that_comes_twice(store: Store) -> None:
    tar = tar_of([*members_of("val-0.tar").items(), ("012.jpg", picture(30))])
    store.put("val-0.tar", tar)
    kinds = [(p.kind, p.key) for p in verify(store).problems if p.kind != "size"]
    assert kinds == [("stray", "012")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda store: store.delete("index/train-0.tar.json"), "it isn't there"),
        (lambda store: store.put("index/train-0.tar.json", b'{"shard": '), "can't be understood"),
        (lambda store: store.put("index/train-0.tar.json", b'{"shard": "x"}'), "can't be understood"),
        (lambda store: store.put("index/train-0.tar.json", store.get("index/val-0.tar.json")), "index of val-0.tar"),
        (lambda store: edit(store, "train-0.tar", lambda i: i["crc32"].pop()), "columns differ in length"),
        (lambda store: edit(store, "train-0.tar", lambda i: i["sizes"].__setitem__(1, "many")), "else than numbers"),
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_used(store: Store, change: Callable[[Store], object], what: str) -> None:
    change(store)
    report = verify(store)
    assert [(p.kind, p.where) for p in report.problems] == [("index", "index/train-0.tar.json")]
    assert what in report.problems[0].what
    assert report.samples == 18, "the tar is checked all the same"


def test_a_shard_that_is_not_there(store: Store) -> None:
    store.delete("train-1.tar")
    assert found(store) == [("missing", "train-1.tar", None, None)]


def test_labels(store: Store) -> None:
    edit(store, "train-0.tar", lambda index: index["labels"].__setitem__(1, 3))
    places = offset_of(store, "train-0.tar", "001.jpg")[1], offset_of(store, "train-0.tar", "001.cls")[1]
    report = verify(store)
    assert [(p.kind, p.key, p.offset) for p in report.problems] == [
        ("label", "001", places[0]), ("label", "001", places[1]), ("fingerprint", None, None),
    ]  # fmt: skip
    assert report.problems[0].what == "label 3 is not one of 3 classes (0 to 2)"
    assert report.problems[1].what == "the tar says label 1, the index 3"


def test_labels_in_the_tar(store: Store) -> None:
    members = members_of("train-0.tar") | {"003.cls": b"cat"}
    del members["004.cls"]
    members["other.cls"] = b"1"
    store.put("train-0.tar", tar_of(members.items()))
    kinds = {(p.kind, p.key) for p in verify(store).problems if p.kind not in ("size", "place")}
    assert kinds == {("label", "003"), ("label", "004"), ("stray", "other")}


def test_an_image_that_no_decoder_reads(store: Store) -> None:
    """It was so when it was packed: its checksum is right."""
    pack(store, {"train-0.tar": members_of("train-0.tar") | {"004.jpg": picture(4)[:300]}})
    _, at = offset_of(store, "train-0.tar", "004.jpg")
    assert found(store) == [("image", "train-0.tar", "004", at)]


def test_equal_images_in_one_split_are_counted_and_in_two_are_a_leak(store: Store) -> None:
    pack(store, {"train-1.tar": members_of("train-1.tar") | {"007.jpg": picture(0), "007.cls": b"2"}})
    report = verify(store)
    assert report.intact
    assert [[p.key for p in group] for group in report.duplicates] == [["000", "007"]]
    assert "1 images are there more than once (by content), 1 of them under several labels" in list(summary(report))
    pack(store, {"val-0.tar": members_of("val-0.tar") | {"014.jpg": picture(8)}})
    report = verify(store)
    _, at = offset_of(store, "train-1.tar", "008.jpg")
    assert [(p.kind, p.where, p.key, p.offset) for p in report.problems] == [("leak", "train-1.tar", "008", at)]
    assert "'014' in val-0.tar" in report.problems[0].what


def test_another_fingerprint(store: Store) -> None:
    about = json.loads(store.get("dataset.json"))
    for change in ({"fingerprint": "0" * 64}, {"flip": False}, {"mean_rgb": [1, 0, 0]}, {"samples": "0" * 64}):
        store.put("dataset.json", json.dumps({**about, **change}).encode())
        assert found(store) == [("fingerprint", "dataset.json", None, None)]


def test_another_mean_image(digits: Dataset, tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    for key in digits.store.list(""):
        store.put(key, digits.store.get(key))
    store.put("mean.npy", b"another")
    assert found(store) == [("fingerprint", "mean.npy", None, None)]
    store.delete("mean.npy")
    assert found(store) == [("missing", "mean.npy", None, None)]


def test_no_dataset_and_a_damaged_one_are_sentences(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no dataset"):
        verify(open_store((tmp_path / "none").as_uri()))
    about = json.loads(store.get("dataset.json"))
    del about["splits"], about["classes"]
    store.put("dataset.json", json.dumps(about).encode())
    with pytest.raises(InputError, match=r"dataset\.json lacks classes, splits"):
        verify(store)
    store.put("dataset.json", b"{")
    with pytest.raises(InputError, match=r"dataset\.json is damaged"):
        verify(store)


@pytest.mark.parametrize("service", ["localbucket", "moto", "swift"])
def test_over_a_bad_network(
    service: str, request: pytest.FixtureRequest, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = request.getfixturevalue(service)
    pack(open_store(f"{s3(endpoint)}/verify"))
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = open_store("s3://bucket/verify")
        proxy.play([Drop(100), Reset(100), Answer(503, "SlowDown"), Drop(None)])
        assert verify(store).intact
        assert len(proxy.happened) == 4
        proxy.play(
            lambda r: Answer(403, "AccessDenied") if r.path.endswith("/train-1.tar") and r.method == "GET" else None
        )
        assert found(store) == [("unreadable", "train-1.tar", None, None)]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["data", "verify", *arguments])


def test_the_command_names_what_is_wrong(store: Store, tmp_path: Path) -> None:
    assert run(store.url).exit_code == 0
    _, at = offset_of(store, "train-1.tar", "009.jpg")
    flip(store, "train-1.tar", at + 100)
    result = run(store.url, "--report", str(tmp_path / "report.json"))
    assert result.exit_code == 1
    first, last = result.stdout.splitlines()
    assert first.startswith(f"train-1.tar at offset {at} sample '009': the image isn't what was indexed")
    assert last.startswith(f"{store.url}: 1 problem; 18 samples, 3 shards")
    assert "3 of 3 shards" in result.stderr
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["intact"] is False
    assert document["problems"][0]["offset"] == at
    assert json.loads(run(store.url, "--json").stdout) == document
    assert run((tmp_path / "none").as_uri()).exit_code == 2


def test_many_problems_of_one_shard_are_cut_short_but_in_the_report() -> None:
    problems = [Problem("lost", "a.tar", str(i), i, "gone") for i in range(25)]
    lines = list(summary(Report("file:///x", "f", 1, 0, 0, problems, [])))
    assert len(lines) == 12
    assert lines[10] == "a.tar: and 15 more problems; a report (--report FILE) names all"
