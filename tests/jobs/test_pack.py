"""Packing as a Ray job: the same bytes as on one machine, only what is missing, and what is sent to the Jobs API."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import ilsvrc, tar_of

from alexvgg.data.packing.pack import PackOptions, pack
from alexvgg.data.packing.source import open_source
from alexvgg.data.store import open_store
from alexvgg.errors import InputError
from jobs.pack import PackJob, submit

OPTIONS = PackOptions(shard_bytes=12_000, colour_images=20)


class Jobs:
    """The Jobs API, as far as submitting goes."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(**s, start_time=i) for i, s in enumerate(self.sent)]

    def submit_job(self, **request: Any) -> str:
        self.sent.append(request)
        return str(request["submission_id"])


def test_what_is_submitted(tmp_path: Path) -> None:
    jobs, source = Jobs(), ilsvrc(tmp_path / "src")
    ids = [submit(jobs, source, "s3://b/x", OPTIONS, threads=8, nodes=4) for _ in range(2)]  # type: ignore[arg-type]
    assert len(set(ids)) == 2, "two may be sent at once"
    assert all(name.startswith("pack-") for name in ids)
    assert jobs.sent[0]["metadata"] == {"alexvgg": "pack", "nodes": "4"}
    *command, job = shlex.split(jobs.sent[0]["entrypoint"])
    assert command == ["python", "-m", "jobs.pack"]
    assert json.loads(job) == asdict(PackJob(str(source), "s3://b/x", OPTIONS, 8, 4))


def test_shards_need_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tar_of({}))
    with pytest.raises(InputError, match="leave --nodes away"):
        submit(Jobs(), tmp_path, "s3://b/x", OPTIONS, threads=8, nodes=4)  # type: ignore[arg-type]


def test_tasks_pack_what_one_machine_packs(tmp_path: Path) -> None:
    source, folder = ilsvrc(tmp_path / "src"), tmp_path / "ray"
    summary = pack(open_source(source, 1), open_store((tmp_path / "one").as_uri()), OPTIONS, 1, lambda _: None)
    for path in (tmp_path / "one").rglob("*0000.tar*"):  # those are there already
        (folder / path.relative_to(tmp_path / "one")).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(tmp_path / "one")).write_bytes(path.read_bytes())
    (folder / "pack.json").write_bytes((tmp_path / "one" / "pack.json").read_bytes())
    job = PackJob(str(source), folder.as_uri(), OPTIONS, threads=2, nodes=2)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.pack", json.dumps(asdict(job))],
        env={**os.environ, "RAY_ADDRESS": "local"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"fingerprint {summary.fingerprint}" in done.stdout
    assert "46 images in 10 shards, 2 of which are there already" in done.stdout
    assert "packed 8 of 8 shards" in done.stdout
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        p.name: p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()
    }
