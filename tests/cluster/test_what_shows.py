"""What one short run shows to others, and what it doesn't: numbers in Prometheus, and no secret anywhere."""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import command_line, processes_with, wait_for

from cluster import processes
from cluster.grafana import PANELS
from cluster.services import LocalCluster

SECRETS = {
    "AWS_ACCESS_KEY_ID": "canary-of-the-access-key", "AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key",
    "AWS_SESSION_TOKEN": "canary-of-the-session-token", "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow",
    "MLFLOW_TRACKING_TOKEN": "canary-of-mlflows-token",
}  # fmt: skip
SUBMIT = ("submit", "--model", "vgg_a", "--nodes", "2", "--set", "train.epochs=3", "--set", "test_scales=[[256]]")
PREPARE = """
from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.store import create_bucket, open_store
create_bucket("s3://canary")
pack_digits(open_store("s3://canary/digits"))
"""


@dataclass
class ShortRun:
    """A short run, submitted from a shell full of secrets: what was said, and every command line meanwhile."""

    cluster: LocalCluster
    project: Path
    name: str = ""
    said: str = ""
    command_lines: set[str] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "AWS", "MLFLOW"))}
        return kept | self.cluster.environment() | SECRETS

    def alexvgg(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "alexvgg", *arguments, "--profile", "canary"]
        done = subprocess.run(command, cwd=self.project, env=self.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        self.said += done.stdout + done.stderr
        family = processes_with(f"{processes.MARK}={self.cluster.state}:")
        self.command_lines.update(command_line(p) for p in family)
        return done.stdout


@pytest.fixture(scope="module")
def short_run(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    run = ShortRun(local_cluster, tmp_path_factory.mktemp("canary"))
    places = {
        "dashboard": local_cluster.dashboard_url, "mlflow": local_cluster.mlflow_url, "storage": "s3://canary/runs",
        "dataset": "s3://canary/digits", "geometry": "small",
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in places.items()]
    (run.project / "alexvgg.toml").write_text("\n".join(["[profile.canary]", *lines]))
    subprocess.run([sys.executable, "-c", PREPARE], env=run.environment(), check=True)
    run.name = json.loads(run.alexvgg(*SUBMIT, "--dry-run", "--json"))["runs"][-1]["name"]
    run.alexvgg(*SUBMIT)
    run.alexvgg(*SUBMIT, "--wait")  # the same again follows it
    run.alexvgg("status")
    run.alexvgg("logs")
    return run


def files_with(secret: str, folder: Path) -> Iterator[Path]:
    """Every file below `folder` that holds `secret`."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                found = secret.encode() in path.read_bytes()
            except OSError:  # gone meanwhile
                continue
            if found:
                yield path


def test_secrets_stay_where_they_were_given(short_run: ShortRun) -> None:
    cluster = short_run.cluster
    token = cluster.token.read_text()
    asking = urllib.request.Request(f"{cluster.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asking) as answer:
        jobs = answer.read().decode()
    assert "env_vars" in jobs, "Ray shows a job's environment"
    seen = "\n".join([short_run.said, jobs, *short_run.command_lines])
    assert "raylet" in seen, "the nodes' command lines"
    assert short_run.name in seen

    on_the_nodes = cluster.environment()["AWS_SECRET_ACCESS_KEY"]
    for secret in (*SECRETS.values(), on_the_nodes, token):
        assert secret not in seen
        places = (cluster.state, cluster.ray_folder, short_run.project)
        found = {path for place in places for path in files_with(secret, place)}
        assert found == ({cluster.token} if secret == token else set())


def test_the_search_for_secrets_covers_what_a_run_leaves(short_run: ShortRun) -> None:
    """The run's name is no secret: it is found wherever a secret could be."""
    places = (short_run.cluster.state, short_run.cluster.ray_folder)
    found = [str(path) for place in places for path in files_with(short_run.name, place)]
    for place in ("mlflow.db", "/s3/", "job-driver-"):
        assert any(place in path for path in found), f"{place} is not in {found}"


def ask(cluster: LocalCluster, query: str) -> list[dict[str, Any]]:
    """What Prometheus knows of the last minutes: a list of {"metric": labels, "value": [time, number as text]}."""
    recent = urllib.parse.urlencode({"query": f"last_over_time(({query})[10m:1s])"})
    with urllib.request.urlopen(f"{cluster.url('prometheus')}/api/v1/query?{recent}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]  # type: ignore[no-any-return]


def test_every_panel_finds_its_numbers(short_run: ShortRun) -> None:
    cluster = short_run.cluster
    if "prometheus" not in cluster.monitors and not os.environ.get("ALEXVGG_REQUIRE_PROMETHEUS"):
        pytest.skip("Prometheus isn't installed")
    queries = {title: query.replace("$run", short_run.name) for title, _, query, _ in PANELS if "GPU" not in title}
    for title, query in queries.items():
        wait_for(lambda query=query: len(ask(cluster, query)) > 0, f"{title}: {query}", 20)
    waits = ask(cluster, queries["Share of time waiting for data"])
    assert {wait["metric"]["rank"] for wait in waits} == {"0", "1"}
    (step,) = ask(cluster, queries["Step"])
    assert 10 <= int(step["value"][1]) <= 69
