"""The services of a local cluster: where each listens, and the command and environment that start it."""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.monitoring import MONITORS, monitor_command
from cluster.network import network_settings

LOOPBACK, HEAD = "127.0.0.1", "127.0.0.2"  # Ray replaces 127.0.0.1 as a node's address by the host's own
PORTS = {"dashboard": 8265, "gcs": 6379, "client": 20001, "mlflow": 5000, "s3": 9000}  # taken if they are free
OBJECT_STORE_BYTES = 100 << 20  # of each node; images never pass through it


@dataclass(frozen=True)
class LocalCluster:
    """A cluster's folder, its number of Ray nodes beside the head, and its ports; MONITORS may be among them."""

    state: Path
    nodes: int
    ports: dict[str, int]

    def url(self, service: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[service]}"

    @property
    def dashboard_url(self) -> str:
        return self.url("dashboard")

    @property
    def mlflow_url(self) -> str:
        return self.url("mlflow")

    @property
    def s3_endpoint(self) -> str:
        return self.url("s3")

    @property
    def ray_address(self) -> str:
        return f"{HEAD}:{self.ports['gcs']}"

    @property
    def monitors(self) -> list[str]:
        return [name for name in MONITORS if name in self.ports]

    @property
    def token(self) -> Path:
        """The file with the token that Ray and its dashboard ask for."""
        return self.state / "token"

    @property
    def ray_folder(self) -> Path:
        """Where Ray keeps sockets, whose paths may have 107 bytes; so it can't lie in the state folder."""
        return ray_folder(self.state)

    def environment(self) -> dict[str, str]:
        """What a process needs to use the storage and to be let in by Ray. The S3 service asks for no real keys."""
        return {
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local-key", "AWS_SECRET_ACCESS_KEY": "local-secret",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token),
        }  # fmt: skip

    def addresses(self) -> dict[str, str]:
        """Each service's address by its name, in the order of starting."""
        nodes = {f"node-{n}": node_address(n) for n in range(1, self.nodes + 1)}
        first = {"s3": self.s3_endpoint, "mlflow": self.mlflow_url, "head": self.dashboard_url}
        return {**first, **{name: self.url(name) for name in self.monitors}, **nodes}

    def commands(self) -> dict[str, list[str]]:
        """How each service is started, by its name."""
        nodes = {f"node-{n}": _node_command(self, n) for n in range(1, self.nodes + 1)}
        first = {
            "s3": s3_command(self.state / "s3", self.ports["s3"]),
            "mlflow": _mlflow_command(self),
            "head": _head_command(self),
        }
        monitors = {name: monitor_command(name, self.state, LOOPBACK, self.ports[name]) for name in self.monitors}
        return {**first, **monitors, **nodes}


def node_address(number: int) -> str:
    """The loopback address of Ray node 1, 2, …"""
    return f"127.0.0.{2 + number}"


def ray_folder(state: Path) -> Path:
    return Path(f"/tmp/alexvgg-{os.getuid()}-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}")


def service_environment(cluster: LocalCluster, shell: Mapping[str, str]) -> dict[str, str]:
    """A service's environment: the shell's without what is meant for other clusters, and our settings.

    The shell's secrets stay behind; the network's settings are taken from it.
    """
    kept = {k: v for k, v in shell.items() if not k.startswith(("RAY_", "AWS_", "MLFLOW_"))}
    return kept | {
        **cluster.environment(),
        **network_settings(shell),
        **{f"RAY_{name.upper()}_HOST": cluster.url(name) for name in cluster.monitors},  # for charts in its dashboard
        "TMPDIR": str(cluster.ray_folder),  # what a killed process leaves there goes with the cluster
        "PATH": f"{Path(sys.executable).parent}:{shell.get('PATH', os.defpath)}",  # jobs call `python`
        "RAY_ADDRESS": cluster.ray_address,  # or Ray's own actors look around and find other clusters of this machine
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_enable_worker_prestart": "0",
        "RAY_metrics_report_interval_ms": "2000",  # an epoch of the digits takes no longer
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def _ray(*arguments: str) -> list[str]:
    # Worker ports at random: by default every node of this host would take them from the same range.
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
    return [
        *command, *arguments,
        "--num-gpus", "0", "--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0",
        "--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats",
    ]  # fmt: skip


def _head_command(cluster: LocalCluster) -> list[str]:
    # No CPUs: the head runs the dashboard and the campaign's driver, the nodes train.
    return _ray(
        "--head", "--node-ip-address", HEAD, "--port", str(cluster.ports["gcs"]), "--num-cpus", "0",
        "--include-dashboard", "true", "--dashboard-host", LOOPBACK,
        "--dashboard-port", str(cluster.ports["dashboard"]), "--ray-client-server-port", str(cluster.ports["client"]),
        "--temp-dir", str(cluster.ray_folder),
    )  # fmt: skip


def _node_command(cluster: LocalCluster, number: int) -> list[str]:
    return _ray(
        "--address", cluster.ray_address, "--node-ip-address", node_address(number), "--num-cpus", "1",
        "--include-log-monitor", "false",
    )  # fmt: skip


def _mlflow_command(cluster: LocalCluster) -> list[str]:
    return [
        sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(cluster.ports["mlflow"]),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{cluster.state / 'mlflow.db'}",
        "--artifacts-destination", str(cluster.state / "mlartifacts"),
    ]  # fmt: skip


def s3_command(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "cluster.s3", str(folder), "--host", LOOPBACK, "--port", str(port)]
