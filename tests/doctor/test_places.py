"""What doctor tries on a storage, a dataset and a clock."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import smalldata

from alexvgg.data.store import FileStore, create_bucket, open_store
from alexvgg.doctor.places import check_clock, check_dataset, check_storage, judge_skew, service_url

STORAGE = ["storage", "storage write", "storage read", "storage ranged read", "storage conditional write",
           "storage delete"]  # fmt: skip


def test_an_s3_service_that_has_all(localbucket: str, s3: Callable[[str], str]) -> None:
    url = s3(localbucket)
    assert [(f.name, f.state) for f in check_storage(url)] == [(name, "ok") for name in STORAGE]
    assert open_store(url).list("doctor") == []
    assert service_url(url) == localbucket
    clock = check_clock("storage", localbucket)
    assert clock.state == "ok"
    assert clock.detail == "within 10 s of this machine's"


def test_a_bucket_that_is_not_there(localbucket: str, s3: Callable[[str], str]) -> None:
    s3(localbucket)
    (finding,) = check_storage("s3://nowhere")
    assert finding.state == "failed"
    assert "no such bucket" in finding.detail
    assert finding.next_step is not None
    create_bucket("s3://nowhere")


def test_storage_that_overwrites_what_it_should_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: FileStore, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    monkeypatch.setattr(FileStore, "put_new", overwrite)
    states = {f.name: f.state for f in check_storage(tmp_path.as_uri())}
    assert states == {**dict.fromkeys(STORAGE, "ok"), "storage conditional write": "failed"}


def test_nothing_is_left_in_a_folder(tmp_path: Path) -> None:
    assert {f.state for f in check_storage(tmp_path.as_uri())} == {"ok"}
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_speaks_no_http_has_no_clock() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1000)

        threading.Thread(target=greet, daemon=True).start()
        finding = check_clock("mlflow", f"http://127.0.0.1:{server.getsockname()[1]}")
    assert finding.state == "skipped"


def test_a_dataset_down_to_the_pixels(tmp_path: Path) -> None:
    store = smalldata.pack(open_store(tmp_path.as_uri()))
    index, image = check_dataset(store.url)
    assert index.detail.startswith("made: 12 training and 6 validation images, 3 classes")
    assert (image.state, image.detail) == ("ok", "012, 40x30 pixels")
    tar = bytearray(store.get("val-0.tar"))
    tar[600] ^= 1
    store.put("val-0.tar", bytes(tar))
    _, image = check_dataset(store.url)
    assert image.state == "failed"
    assert "alexvgg data verify" in str(image.next_step)


@pytest.mark.parametrize(
    ("seconds", "state", "detail"),
    [
        (0.7, "ok", "within 10 s of this machine's"),
        (-40, "warning", "40 s behind this machine's"),
        (700, "failed", "700 s ahead of this machine's"),
    ],
)
def test_clocks(seconds: float, state: str, detail: str) -> None:
    finding = judge_skew("storage", seconds)
    assert (finding.state, finding.detail) == (state, detail)
