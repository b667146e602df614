"""A cluster on this one machine: Ray with several nodes on loopback addresses, an MLflow server, an S3 service.

Everything listens on 127.0.0.x, Ray asks for a token, and all state lies in one folder (`.alexvgg/`):

    cluster.json  token  logs/  s3/  mlflow.db  mlartifacts/  metrics/
"""

import json
import os
import secrets
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from alexvgg.errors import InputError
from cluster import processes
from cluster.monitoring import MONITOR_PORTS, MONITORS, missing_monitors, write_monitoring
from cluster.network import network_settings
from cluster.services import HEAD, LOOPBACK, PORTS, LocalCluster, node_address, ray_folder, service_environment

STATE = Path(".alexvgg")
MAX_NODES = 200
START_SECONDS = 120
NODE_GAP_SECONDS = 2.0  # Ray nodes that start at the same moment on one host get into each other's way
NODE_TRIES = 3
LITTLE_ROOM = 1 << 30  # bytes; the demo alone leaves 61 MB

Say = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """One long-running process of the cluster and where it listens."""

    name: str
    address: str
    alive: bool


def up(nodes: int, *, metrics: bool = False, state: Path = STATE, say: Say = print) -> LocalCluster:
    """Start whatever of a cluster with at least `nodes` nodes isn't running; everything else stays as it is.

    With `metrics`, Prometheus and Grafana are services of it, too, where their programs exist.
    Raises InputError if this machine can't: a package that is missing, too many nodes, no loopback addresses, a service
    that doesn't come up.
    """
    if find_spec("localbucket") is None:
        raise InputError(
            "a cluster on this machine needs localbucket, its S3 service, which isn't installed: install alexvgg with "
            "its extra, as by `pip install 'alexvgg[local]'`"
        )
    if not 1 <= nodes <= MAX_NODES:
        raise InputError(f"a local cluster has 1 to {MAX_NODES} nodes, not {nodes}")
    state = state.absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    monitors = _monitors(say) if metrics else []
    if (free := shutil.disk_usage(state).free) < LITTLE_ROOM:
        say(f"warning: only {free / 1e6:.0f} MB are free in {state}, for images, checkpoints and logs")
    with processes.locked(state):
        cluster, running = _plan(state, nodes, monitors)
        _check_addresses(cluster)
        if "head" in running and set(running) == set(cluster.addresses()):
            say(f"The local cluster is up with {_nodes(cluster)}.")
            return cluster
        began = time.monotonic()
        cluster.ray_folder.mkdir(mode=0o700, exist_ok=True)
        _write_token(cluster.token)
        write_monitoring(state, cluster.ray_folder, LOOPBACK, cluster.ports, cluster.token)
        _record(cluster)
        _start_missing(cluster, running, say)
        say(f"The local cluster is up with {_nodes(cluster)} after {time.monotonic() - began:.0f} s.")
        return cluster


def _nodes(cluster: LocalCluster) -> str:
    return "1 node" if cluster.nodes == 1 else f"{cluster.nodes} nodes"


def find(state: Path = STATE) -> LocalCluster | None:
    """The cluster of this folder if its services are running."""
    cluster = _read(state.absolute())
    return cluster if cluster is not None and {"s3", "head"} <= set(running_services(cluster)) else None


def storage_folder(state: Path = STATE) -> Path:
    """Where its S3 service keeps buckets, each object as a file; there even while it isn't running."""
    return state.absolute() / "s3"


def status(state: Path = STATE) -> list[Service]:
    """Every service that the cluster should have and whether it is alive; empty if there never was a cluster."""
    cluster = _read(state.absolute())
    if cluster is None:
        return []
    running = running_services(cluster)
    return [Service(name, address, name in running) for name, address in cluster.addresses().items()]


def lost(state: Path = STATE) -> list[str]:
    """The services that are down while others are up; none of a cluster that is wholly up, or wholly down."""
    services = status(state)
    down = [s.name for s in services if not s.alive]
    return down if len(down) < len(services) else []


def network(cluster: LocalCluster) -> dict[str, str]:
    """The network's settings with which this cluster was started; ours if its head is gone."""
    head = running_services(cluster).get("head")
    return network_settings({} if head is None else head.environ())


def down(*, state: Path = STATE, say: Say = print) -> None:
    """Stop every process of the cluster. What it stored stays in the folder."""
    state = state.absolute()
    if not state.exists():
        say("There is no local cluster here.")
        return
    with processes.locked(state):
        stopped = processes.stop(state)
        shutil.rmtree(ray_folder(state), ignore_errors=True)
    did = f"Stopped {stopped} processes." if stopped else "The local cluster wasn't up."
    say(f"{did} Data, results and MLflow's runs stay in {state.name}/.")


def running_services(cluster: LocalCluster) -> dict[str, psutil.Process]:
    """The first process of every service that runs."""
    return processes.services(cluster.state, cluster.commands())


def _monitors(say: Say) -> list[str]:
    missing = missing_monitors()
    for name, program in missing.items():
        say(f"There is no {program} on the PATH, so {name} isn't started.")
    return [name for name in MONITORS if name not in missing]


def _plan(state: Path, nodes: int, monitors: list[str]) -> tuple[LocalCluster, dict[str, psutil.Process]]:
    """What the cluster shall be, which never is less than what runs, and what of it runs already."""
    earlier = _read(state)
    running = {} if earlier is None else running_services(earlier)
    if earlier is not None and running:
        nodes, ports = max(nodes, earlier.nodes), earlier.ports
    else:
        ports = {name: _free_port(port) for name, port in PORTS.items()}
    added = {name: _free_port(MONITOR_PORTS[name]) for name in monitors if name not in ports}
    return LocalCluster(state, nodes, {**ports, **added}), running


def _start_missing(cluster: LocalCluster, running: Mapping[str, psutil.Process], say: Say) -> None:
    commands = cluster.commands()
    missing = [name for name in commands if name not in running]
    if "head" in missing:  # the nodes of a lost head can't join another
        missing += [name for name in running if name.startswith("node-")]
    left = [process for name, process in processes.marked(cluster.state) if name in missing]
    processes.end(left)  # what a killed service left over
    ready: dict[str, Callable[[], bool]] = {
        "s3": lambda: _answers(cluster.s3_endpoint),
        "head": lambda: len(_joined(cluster)) >= 1,
        "mlflow": lambda: _answers(f"{cluster.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"),
        "prometheus": lambda: _answers(f"{cluster.url('prometheus')}/-/ready"),
        "grafana": lambda: _answers(f"{cluster.url('grafana')}/api/health"),
    }
    began = time.monotonic()
    started = {name: _spawn(cluster, name) for name in missing if name in ready}

    def wait(name: str) -> None:
        if name in started:
            _wait(cluster, name, started[name], ready[name])
            say(f"  {name:<10} {cluster.addresses()[name]:<24} {time.monotonic() - began:5.1f} s")

    wait("s3")
    wait("head")
    _start_nodes(cluster, [n for n in range(1, cluster.nodes + 1) if f"node-{n}" in missing], say)
    for name in ("mlflow", *cluster.monitors):
        wait(name)


def _start_nodes(cluster: LocalCluster, numbers: list[int], say: Say) -> None:
    """Start Ray nodes a little apart, count those that join, and start again those that gave up."""
    began = time.monotonic()
    started: dict[int, psutil.Process] = {}
    tries = dict.fromkeys(numbers, 0)
    waiting = list(numbers)
    while waiting:
        for n in list(waiting):
            if n not in started or not processes.lives(started[n]):
                if tries[n] == NODE_TRIES:
                    raise InputError(_did_not_start(cluster, f"node-{n}"))
                tries[n] += 1
                started[n] = _spawn(cluster, f"node-{n}")
                time.sleep(NODE_GAP_SECONDS)
        joined = _joined(cluster)
        for n in [n for n in waiting if node_address(n) in joined]:
            waiting.remove(n)
            say(f"  {f'node-{n}':<10} {node_address(n):<24} {time.monotonic() - began:5.1f} s")
        if waiting and time.monotonic() - began > START_SECONDS:
            raise InputError(_did_not_start(cluster, f"node-{waiting[0]}"))
        time.sleep(0.2)


def _spawn(cluster: LocalCluster, name: str) -> psutil.Process:
    environment = service_environment(cluster, os.environ)
    return processes.spawn(cluster.state, name, cluster.commands()[name], environment)


def _wait(cluster: LocalCluster, name: str, process: psutil.Process, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not processes.lives(process) or time.monotonic() > deadline:
            raise InputError(_did_not_start(cluster, name))
        time.sleep(0.1)


def _did_not_start(cluster: LocalCluster, name: str) -> str:
    log = processes.log_of(cluster.state, name)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
    return (
        f"{name} of the local cluster did not come up; its log {log} ends with {last[0]!r}. "
        "`alexvgg cluster down` stops the rest; then try again."
    )


def _get(url: str, headers: Mapping[str, str]) -> bytes | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=5) as response:
            return bytes(response.read())
    except (OSError, urllib.error.URLError):
        return None


def _answers(url: str) -> bool:
    return _get(url, {}) is not None


def _joined(cluster: LocalCluster) -> set[str]:
    """The addresses of the Ray nodes that are alive, as the dashboard says."""
    answer = _get(f"{cluster.dashboard_url}/api/v0/nodes", {"Authorization": f"Bearer {cluster.token.read_text()}"})
    nodes = json.loads(answer)["data"]["result"]["result"] if answer else []
    return {n["node_ip"] for n in nodes if n["state"] == "ALIVE"}


def _read(state: Path) -> LocalCluster | None:
    """The cluster that was last started here; None without its record, or if that is damaged."""
    try:
        document = json.loads((state / "cluster.json").read_text())
        return LocalCluster(state, document["nodes"], document["ports"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _record(cluster: LocalCluster) -> None:
    document = {key: value for key, value in asdict(cluster).items() if key != "state"}
    temporary = cluster.state / "cluster.json.new"
    temporary.write_text(json.dumps(document, indent=2))
    temporary.replace(cluster.state / "cluster.json")


def _write_token(path: Path) -> None:
    """Unless there is one. A disk that is full leaves an empty file, which is none."""
    if not path.exists() or path.stat().st_size == 0:
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("0.0.0.0", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise InputError("this machine has no free port")


def _check_addresses(cluster: LocalCluster) -> None:
    for address in (HEAD, node_address(cluster.nodes)):
        with socket.socket() as s:
            try:
                s.bind((address, 0))
            except OSError:
                raise InputError(
                    f"this machine can't listen on {address}. Linux has all of 127.0.0.0/8; elsewhere add the "
                    f"addresses {HEAD} to {node_address(cluster.nodes)} to the loopback interface first."
                ) from None
