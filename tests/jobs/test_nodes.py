"""What a node says of itself, and what doctor makes of a job that couldn't ask."""

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import smalldata
import torch
from ray.job_submission import JobStatus

from alexvgg.data.store import open_store
from jobs import doctor
from jobs.nodes import look

OURS = version("alexvgg")


def test_a_node_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    url = smalldata.pack(open_store(tmp_path.as_uri())).url
    none = (tmp_path / "none").as_uri()
    cases = {
        look("node a", 4, url, url, OURS): ("ok", f"alexvgg {OURS}, 4 GPUs"),
        look("node a", 8, url, url, OURS): ("failed", "torch sees 4 of the 8 GPUs"),
        look("node a", 4, url, url, "9.9.9"): ("failed", f"has alexvgg {OURS}; here it is 9.9.9"),
        look("node a", 4, url, none, OURS): ("failed", "dataset: there is no dataset at"),
    }
    for finding, (state, detail) in cases.items():
        assert (finding.name, finding.state) == ("node a", state)
        assert finding.detail.startswith(detail)
        assert (finding.next_step is None) == (state == "ok")


def test_a_cluster_without_this_package_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "Traceback\nModuleNotFoundError: No module named 'jobs'\n"
    jobs = SimpleNamespace(
        submit_job=lambda **_: "raysubmit_1", get_job_status=lambda _: JobStatus.FAILED, get_job_logs=lambda _: log
    )
    monkeypatch.setattr(doctor, "client", lambda _: jobs)
    (finding,) = doctor.check_nodes("http://ray-head:8265", "s3://b/s", "s3://b/d")
    assert (finding.state, finding.detail) == ("failed", "ModuleNotFoundError: No module named 'jobs'")
