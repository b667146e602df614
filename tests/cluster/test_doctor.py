"""Doctor on a real cluster: everything works, and Ray refuses who has no token."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.store import create_bucket, open_store
from cluster.services import LocalCluster
from jobs.doctor import check_token

ALEXVGG = str(Path(sys.executable).with_name("alexvgg"))


def test_all_is_well(local_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in local_cluster.environment().items():
        if key.startswith("AWS_"):
            monkeypatch.setenv(key, value)
    create_bucket("s3://alexvgg")
    if not open_store("s3://alexvgg/datasets/digits").exists("dataset.json"):
        pack_digits(open_store("s3://alexvgg/datasets/digits"))
    command = [ALEXVGG, "doctor", "--nodes", "--json"]
    done = subprocess.run(command, cwd=local_cluster.state.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert {f["state"] for f in findings.values()} <= {"ok", "skipped", "warning"}
    for name in (
        "ray", "ray token", "ray version", "ray nodes", "storage conditional write", "storage ranged read",
        "dataset image", "mlflow", "clock of storage", "clock of mlflow", "clock of dashboard",
    ):  # fmt: skip
        assert findings[name]["state"] == "ok", findings[name]
    nodes = local_cluster.nodes
    asked = [f["detail"] for name, f in findings.items() if name.startswith("node 127.")]
    assert asked == [f"alexvgg {version('alexvgg')}, 0 GPUs, storage and dataset can be used"] * (nodes + 1)
    assert findings["ray nodes"]["detail"] == f"{nodes} of {nodes} have a CPU for a worker, beside the head"
    assert check_token(local_cluster.dashboard_url).detail == "the dashboard refuses who has none"
