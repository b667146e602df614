"""Packing on several nodes, from the command through Ray's Jobs API to the storage."""

from pathlib import Path

from made import imagefolder
from processes import Command

from alexvgg.data.packing.pack import PackOptions, pack
from alexvgg.data.packing.source import open_source
from alexvgg.data.store import Store, open_store

OPTIONS = PackOptions(shard_bytes=12_000, colour_images=20)


def test_nodes_pack_what_one_machine_packs(alexvgg: Command, storage: Store, tmp_path: Path) -> None:
    source = imagefolder(tmp_path / "src")
    one = open_store((tmp_path / "one").as_uri())
    expected = pack(open_source(source, 1), one, OPTIONS, 1, lambda _: None)
    target = open_store(f"{storage.url}/packed")
    options = ("--shard-bytes", "12000", "--colour-images", "20", "--threads", "2")
    out = alexvgg("data", "pack", str(source), target.url, *options, "--nodes", "2").stdout
    assert f"fingerprint {expected.fingerprint}" in out
    assert {key: target.get(key) for key in target.list("")} == {key: one.get(key) for key in one.list("")}
    again = alexvgg("data", "pack", str(source), target.url, *options, "--nodes", "2").stdout
    assert "the dataset is complete already" in again
