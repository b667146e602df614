"""Following a tar, against Python's own reader of intact ones; and an object as a file, against the bytes."""

import io
import random
import tarfile
from pathlib import Path

import pytest

from alexvgg.data import tars
from alexvgg.data.store import open_store
from alexvgg.data.tars import DamagedTarError, body, members, open_object

NAMES = ["short.jpg", "folder/ä ö.jpg", "l" * 90 + "/" + "o" * 90 + ".jpg", "empty.cls"]


def tar_of(form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size = 0 if name.startswith("empty") else 700 * i + 512
            tar.addfile(info, io.BytesIO(bytes([i]) * info.size))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "short.jpg"
        tar.addfile(link)
    return file.getvalue()


def read_all(tar: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    file = io.BytesIO(tar)
    return [(member, body(file, member)) for member in members(file)]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_every_form_of_tar(form: int) -> None:
    names = [*NAMES, "link.jpg"]
    found = read_all(tar_of(form))
    assert [member.name for member, _ in found] == ["folder", *names]
    for i, (member, data) in enumerate(found[1:-1]):
        assert data == bytes([i]) * member.size
        assert tar_of(form)[member.offset_data :][: member.size] == data
    assert found[-1][1] == b"", "a link has no bytes of its own"
    assert [m.name for m in members(io.BytesIO(tar_of(form)))] == ["folder", *names], "bodies needn't be read"


@pytest.mark.parametrize(
    ("damage", "offset", "what"),
    [
        (lambda tar: b"", 0, "no intact header"),
        (lambda tar: b"x" * 2000, 0, "no intact header"),
        (lambda tar: tar[:100], 0, "no intact header"),
        (lambda tar: bytes(10_240), None, None),
        (lambda tar: tar + tar, None, "tars were put together"),
        (lambda tar: tar.rstrip(b"\0") + b"\0" * 300, None, "cut off"),
    ],
)
def test_damage_is_named(damage: object, offset: int | None, what: str | None) -> None:
    data = damage(tar_of(tarfile.PAX_FORMAT))  # type: ignore[operator]
    if what is None:
        assert read_all(data) == []
        return
    with pytest.raises(DamagedTarError, match=what) as error:
        read_all(data)
    if offset is not None:
        assert error.value.offset == offset


def test_an_object_is_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "READ_AHEAD", 1000)
    data = random.Random(0).randbytes(20_000)
    store = open_store(tmp_path.as_uri())
    store.put("object", data)
    file, expected = open_object(store, "object", len(data)), io.BytesIO(data)
    choices = random.Random(1)
    for _ in range(300):
        if choices.random() < 0.5:
            place = choices.randrange(21_000)
            assert file.seek(place) == expected.seek(place)
        length = choices.choice([0, 1, 3, 512, 1000, 1001, 5000])
        assert file.read(length) == expected.read(length)
        assert file.tell() == expected.tell()
    assert file.seek(-5, io.SEEK_END) == expected.seek(-5, io.SEEK_END)
    assert file.read() == expected.read()
