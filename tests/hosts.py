"""A Ray cluster whose nodes are hosts of their own, so that their cables can be pulled.

Ray's head, the S3 service and MLflow are on host 0, each of the others is one Ray node. Run as a program on host 0,
this is `alexvgg cluster up` with other addresses.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil
from namespaces import Hosts, address

from cluster import local, processes, services
from cluster.services import LocalCluster


class ClusterOfHosts(Hosts):
    """`nodes` nodes and the first host; the cluster lives in the folder `project`, inside the `with` block."""

    def __init__(self, project: Path, nodes: int) -> None:
        super().__init__(1 + nodes)
        self.project, self.state = project, project / ".alexvgg"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        local.down(state=self.state, say=lambda _: None)
        super().__exit__(kind, error, at)

    def up(self) -> LocalCluster:
        """Start what of the cluster doesn't run; [profile.hosts] of the project describes it."""
        self._run({}, __file__, str(self.state), *self.names)
        cluster = self.cluster()
        dashboard, mlflow = (f"http://{address(0)}:{cluster.ports[service]}" for service in ("dashboard", "mlflow"))
        places = {
            "dashboard": dashboard, "mlflow": mlflow, "storage": "s3://alexvgg",
            "dataset": "s3://alexvgg/datasets/digits", "geometry": "small",
        }  # fmt: skip
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in places.items())
        (self.project / "alexvgg.toml").write_text(f"[profile.hosts]\n{lines}")
        return cluster

    def alexvgg(self, *arguments: str) -> str:
        """The command on the first host, in the project; what it prints is returned."""
        cluster = self.cluster()
        there = {"AWS_ENDPOINT_URL_S3": f"http://{address(0)}:{cluster.ports['s3']}"}
        return self._run(cluster.environment() | there, "-m", "alexvgg", *arguments)

    def cluster(self) -> LocalCluster:
        """What was started; its URLs are those of a cluster on one machine."""
        document = json.loads((self.state / "cluster.json").read_text())
        return LocalCluster(self.state, document["nodes"], document["ports"])

    def _run(self, environment: Mapping[str, str], *arguments: str) -> str:
        command = self.inside(0, [sys.executable, *arguments])
        done = subprocess.run(
            command, cwd=self.project, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def main(state: Path, names: list[str]) -> None:
    spawn = processes.spawn

    def on_its_host(state: Path, service: str, command: list[str], environment: Mapping[str, str]) -> psutil.Process:
        if service.startswith("node-"):
            command = ["ip", "netns", "exec", names[int(service.removeprefix("node-"))], *command]
        return spawn(state, service, command, environment)

    for module in (services, local):
        for name, there in (("HEAD", address(0)), ("LOOPBACK", address(0)), ("node_address", address)):
            setattr(module, name, there)
    processes.spawn = on_its_host
    local._check_addresses = lambda _: None  # none but the first is this host's own
    local.up(len(names) - 1, state=state)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
