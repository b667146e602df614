"""A real MLflow server, as `alexvgg cluster up` starts it."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from processes import free_port, wait_for


class MlflowServer:
    """MLflow's own server on one port, with all its state in `folder`; it can be stopped and started again."""

    def __init__(self, folder: Path, backend: str | None = None, artifacts: str | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.artifacts = artifacts or str(folder / "artifacts")
        self.backend = backend or f"sqlite:///{folder / 'mlflow.db'}"
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", self.backend, "--artifacts-destination", self.artifacts,
        ]  # fmt: skip
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        wait_for(self._answers, "MLflow's start", seconds=300)  # 4 s where nothing else runs

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose the database; only of a server that is stopped."""
        (self.folder / "mlflow.db").unlink()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1", timeout=5):
                return True
        except OSError:
            return False
