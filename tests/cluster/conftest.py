"""The command line in the project folder of the session's cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Command

from alexvgg.data.store import Store, create_bucket, open_store
from cluster.services import LocalCluster


@pytest.fixture
def project(local_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the local cluster, with its environment for looking into its storage."""
    for name, value in local_cluster.environment().items():
        if name.startswith("AWS"):
            monkeypatch.setenv(name, value)
    return local_cluster.state.parent


@pytest.fixture
def alexvgg(project: Path) -> Command:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS", "RAY"))}

    def run(*arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "alexvgg", *arguments], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def storage(project: Path) -> Store:
    create_bucket("s3://alexvgg")
    return open_store("s3://alexvgg")
