"""A Ray cluster whose nodes are hosts of their own: network namespaces on a switch, whose cables can be pulled.

Ray's head, the S3 service and MLflow are on the first host, with the switch; each of the others is one Ray node. Run as
a program on the first host, it is `alexvgg.cluster up` with other addresses.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from namespaces import ip

from cluster import local, processes, services
from cluster.services import LocalCluster


def address(number: int) -> str:
    return f"10.87.54.{1 + number}"


class Hosts:
    """The first host is number 0; the nodes are 1, 2, …"""

    def __init__(self, project: Path, nodes: int) -> None:
        self.project, self.state = project, project / ".alexvgg"
        self.names = [f"alexvgg-{os.getpid()}-host{n}" for n in range(nodes + 1)]

    def connect(self) -> None:
        first, *others = self.names
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", first, "link", "add", "switch", "type", "bridge")
        ip("-n", first, "address", "add", f"{address(0)}/24", "dev", "switch")
        ip("-n", first, "link", "set", "switch", "up")
        for n, name in enumerate(others, start=1):
            ip("link", "add", f"port{n}", "netns", first, "type", "veth", "peer", "name", "cable", "netns", name)
            ip("-n", first, "link", "set", f"port{n}", "master", "switch", "up")
            ip("-n", name, "address", "add", f"{address(n)}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")

    def disconnect(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def cut(self, node: int) -> None:
        ip("-n", self.names[0], "link", "set", f"port{node}", "down")

    def heal(self, node: int) -> None:
        ip("-n", self.names[0], "link", "set", f"port{node}", "up")

    def up(self) -> LocalCluster:
        """Start what of the cluster doesn't run; [profile.hosts] of the project describes it."""
        self.run(__file__, str(self.state), *self.names)
        document = json.loads((self.state / "cluster.json").read_text())
        dashboard, mlflow = (f"http://{address(0)}:{document['ports'][service]}" for service in ("dashboard", "mlflow"))
        places = {"dashboard": dashboard, "mlflow": mlflow, "storage": "s3://alexvgg", "geometry": "small"}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in places.items())
        (self.project / "alexvgg.toml").write_text(
            f'[profile.hosts]\ndataset = "s3://alexvgg/datasets/digits"\n{lines}'
        )
        return LocalCluster(self.state, document["nodes"], document["ports"])

    def run(self, *arguments: str) -> str:
        """Python on the first host, in the project; what it prints is returned."""
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.state / "token")}
        command = ["ip", "netns", "exec", self.names[0], sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.project, env={**os.environ, **keys, **ray, "AWS_ENDPOINT_URL_S3": f"http://{address(0)}:9000"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def alexvgg(self, *arguments: str) -> str:
        return self.run("-m", "alexvgg", *arguments)


@contextmanager
def cluster_of_hosts(project: Path, nodes: int) -> Iterator[tuple[Hosts, LocalCluster]]:
    hosts = Hosts(project, nodes)
    try:
        hosts.connect()
        yield hosts, hosts.up()
    finally:
        local.down(state=hosts.state, say=lambda _: None)
        hosts.disconnect()


def main(state: Path, names: list[str]) -> None:
    spawn = processes.spawn

    def on_its_host(state: Path, service: str, command: list[str], environment: Mapping[str, str]) -> psutil.Process:
        if service.startswith("node-"):
            host = names[int(service.removeprefix("node-"))]
            command = ["ip", "netns", "exec", host, *command]
        return spawn(state, service, command, environment)

    for module in (services, local):
        for name, there in (("HEAD", address(0)), ("LOOPBACK", address(0)), ("node_address", address)):
            setattr(module, name, there)
    processes.spawn = on_its_host
    local._check_addresses = lambda _: None  # none but the first is this host's own
    local.up(len(names) - 1, state=state)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
