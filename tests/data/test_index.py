"""The index of tars, ours and others': it agrees with stock webdataset and misses no damage."""

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from made import image, tar_of
from webdataset.tariterators import base_plus_ext

from alexvgg.data import tars
from alexvgg.data.index import SAMPLE_FILE, digest_of, index_shard
from alexvgg.data.store import open_store
from alexvgg.errors import InputError

WHOLE = tar_of(
    {f"{i:03d}.{end}": body for i in range(5) for end, body in (("jpg", bytes([i]) * 700), ("cls", b"%d" % i))}
)
END = len(WHOLE.rstrip(b"\0")) // 512 * 512 + 512  # where the end mark begins


def test_index_says_where_each_image_lies() -> None:
    index = index_shard("x.tar", WHOLE)
    assert index.keys == [f"{i:03d}" for i in range(5)]
    assert index.labels == list(range(5))
    assert index.size == len(WHOLE)
    for i, (offset, size) in enumerate(zip(index.offsets, index.sizes, strict=True)):
        assert WHOLE[offset : offset + size] == bytes([i]) * 700


def test_an_object_is_indexed_in_one_pass_over_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "READ_AHEAD", 1024)
    store, asked = open_store(tmp_path.as_uri()), []
    store.put("x.tar", WHOLE)
    get_range = store.get_range

    def note(key: str, start: int, length: int) -> bytes:
        asked.append((start, length))
        return get_range(key, start, length)

    monkeypatch.setattr(store, "get_range", note)
    found = index_shard("x.tar", tars.open_object(store, "x.tar", len(WHOLE)))
    assert found == index_shard("x.tar", WHOLE)
    assert asked == [(start, 1024) for start in range(0, len(WHOLE), 1024)]


@pytest.mark.parametrize("end", sorted({*range(0, END + 1024, 512), *range(1, END + 1024, 97), END + 1023}))
def test_a_tar_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(InputError, match=r"x\.tar"):
        index_shard("x.tar", WHOLE[:end])


def test_cut_padding_after_the_end_mark_loses_nothing() -> None:
    assert index_shard("x.tar", WHOLE[: END + 1024]).keys == index_shard("x.tar", WHOLE).keys


@pytest.mark.parametrize("header", range(0, END, 512))
def test_a_damaged_header_is_refused(header: int) -> None:
    if WHOLE[header + 257 : header + 262] != b"ustar":
        return  # a block of a body
    damaged = bytearray(WHOLE)
    damaged[header + 3] ^= 1
    with pytest.raises(InputError, match=r"x\.tar is no intact tar"):
        index_shard("x.tar", bytes(damaged))


def test_joined_tars_are_refused() -> None:
    with pytest.raises(InputError, match="tars were put together"):
        index_shard("x.tar", WHOLE + WHOLE)


def linked() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return file.getvalue()


def huge() -> bytes:
    info = tarfile.TarInfo("1.jpg")
    info.size = 1 << 30
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("tar", "sentence"),
    [
        (tar_of({"1.jpg": b"x"}), "'1' has only one of image and label"),
        (tar_of({"1.cls": b"3"}), "'1' has only one of image and label"),
        (tar_of({"1.jpg": b"x", "1.json": b"{}"}), "'1' has only one of image and label"),
        (tar_of({"1.jpg": b"x", "1.cls": b"cat"}), "the label of '1' is b'cat', not a number"),
        (tar_of({"1.jpg": b"x", "1.json": b'{"label": "cat"}'}), "'1' has only one of image and label"),
        (tar_of({"1.jpg": b"x", "1.json": b"[3]"}), "'1' has only one of image and label"),
        (tar_of({"1.jpg": b"x", "1.cls": b"3", "1.png": b"x"}), "'1' has a second image"),
        (tar_of({"a/1.jpg": b"x", "a/1.cls": b"3", "2.jpg": b"", "a/1.JPG": b"y"}), "'a/1' has a second image"),
        (linked(), r"1\.jpg is a link"),
        (huge(), r"1\.jpg has 1073741824 bytes, over the limit"),
        (b"\x1f\x8b" + bytes(2000), "no intact tar"),
    ],
)
def test_what_is_wrong_with_samples_is_named(tar: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=rf"x\.tar.*{sentence}"):
        index_shard("x.tar", tar)


def test_only_json_describes_a_label() -> None:
    members = {"1.jpg": b"x", "1.json": b'{"label": 1}', "1.txt": b'{"label": 2}'}
    assert index_shard("x.tar", tar_of(members)).labels == [1]


FOREIGN = {
    "./train.v1/n01/a.b/0001.JPEG": image(1),
    "./train.v1/n01/a.b/0001.json": b'{"label": 7, "filename": "0001.JPEG"}',
    "2.webp": image(2, "WEBP"), "2.cls": b"3\n", "2.json": b'{"label": 9}', "2.seg.png": b"a mask",
    "d/3.PnG": image(3, "PNG"), "d/3.CLS": b" 2 ", "d/3.txt": b"a caption",
    "__meta__.json": b"[]", "no_ending": b"", "d/.4.jpg": b"",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_foreign_samples_are_those_of_stock_webdataset(format: int, tmp_path: Path) -> None:
    long = "" if format == tarfile.USTAR_FORMAT else "x" * 300
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of({**FOREIGN, f"{long}5.jpg": image(5), f"{long}5.cls": b"1"}, format=format))
    ours = index_shard("x.tar", path.read_bytes())
    assert ours.labels == [7, 3, 2, 1]
    assert ours.unreadable == []
    stock = [
        s for s in webdataset.WebDataset(str(path), shardshuffle=False) if {"jpg", "jpeg", "png", "webp"} & s.keys()
    ]
    assert ours.keys == [s["__key__"] for s in stock]
    for sample, offset, size in zip(stock, ours.offsets, ours.sizes, strict=True):
        body = next(sample[end] for end in ("jpg", "jpeg", "png", "webp") if end in sample)
        assert path.read_bytes()[offset : offset + size] == body


@given(st.text("ab./_", min_size=1, max_size=12))
def test_keys_end_where_stock_webdataset_ends_them(name: str) -> None:
    found = SAMPLE_FILE.fullmatch(name)
    assert (found.groups() if found else (None, None)) == base_plus_ext(name)


def test_images_that_no_decoder_opens_are_listed() -> None:
    bodies = {"cmyk": image(1, mode="CMYK"), "grey": image(2, mode="L"), "png": image(3, "PNG"), "cut": image(4)[:20]}
    tar = tar_of({f"{k}.{end}": b for k, body in bodies.items() for end, b in (("jpeg", body), ("cls", b"0"))})
    assert index_shard("x.tar", tar).unreadable == ["cut"]


def test_the_digest_changes_with_every_part_of_a_sample() -> None:
    index = index_shard("x.tar", WHOLE)
    other_label = index_shard("x.tar", WHOLE.replace(b"4" + bytes(511), b"3" + bytes(511)))
    other_image = index_shard("x.tar", WHOLE.replace(bytes([2]) * 700, bytes([9]) * 700))
    renamed = index_shard("y.tar", WHOLE)
    assert other_label.labels != index.labels
    prints = [digest_of({"train": [i], "val": []}) for i in (index, other_label, other_image)]
    assert len(set(prints)) == 3
    assert digest_of({"train": [renamed], "val": []}) == prints[0], "where images lie is not what they are"
