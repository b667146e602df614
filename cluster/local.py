"""A cluster on this one machine: Ray with several nodes on loopback addresses, an MLflow server, an S3 service.

Everything listens on 127.0.0.x, Ray asks for a token, and all state lies in one folder (`.alexvgg/`):

    cluster.json  token  logs/  s3/  mlflow.db  mlartifacts/

Every process carries the folder's path in its environment, so that none can get lost: what `down` stops is found by it.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from alexvgg.errors import InputError

STATE = Path(".alexvgg")
MARK = "ALEXVGG_LOCAL_CLUSTER"  # environment variable of every process of a cluster: its folder
LOOPBACK, HEAD = "127.0.0.1", "127.0.0.2"  # Ray replaces 127.0.0.1 as a node's address by the host's own
MAX_NODES = 200
PORTS = {"dashboard": 8265, "gcs": 6379, "client": 20001, "mlflow": 5000, "s3": 9000}  # taken if they are free
OBJECT_STORE_BYTES = 100 << 20  # of each node; images never pass through it
START_SECONDS = 120
NODE_GAP_SECONDS = 2.0  # Ray nodes that start at the same moment on one host get into each other's way
NODE_TRIES = 3
STOP_SECONDS = 10

Say = Callable[[str], None]


@dataclass(frozen=True)
class LocalCluster:
    """A cluster's folder, its number of Ray nodes beside the head, and its ports."""

    state: Path
    nodes: int
    ports: dict[str, int]

    @property
    def dashboard_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['dashboard']}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['mlflow']}"

    @property
    def s3_endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    @property
    def ray_address(self) -> str:
        return f"{HEAD}:{self.ports['gcs']}"

    @property
    def token(self) -> Path:
        """The file with the token that Ray and its dashboard ask for."""
        return self.state / "token"

    def environment(self) -> dict[str, str]:
        """What a process needs to use the storage and to be let in by Ray. The S3 service asks for no real keys."""
        return {
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token),
        }  # fmt: skip

    def addresses(self) -> dict[str, str]:
        """Each service's address by its name, in the order of starting."""
        names = {f"node-{n}": node_address(n) for n in range(1, self.nodes + 1)}
        return {"s3": self.s3_endpoint, "mlflow": self.mlflow_url, "head": self.dashboard_url, **names}


@dataclass(frozen=True)
class Service:
    """One long-running process of the cluster and where it listens."""

    name: str
    address: str
    alive: bool


def node_address(number: int) -> str:
    """The loopback address of Ray node 1, 2, …"""
    return f"127.0.0.{2 + number}"


def up(nodes: int, *, state: Path = STATE, say: Say = print) -> LocalCluster:
    """Start whatever of a cluster with at least `nodes` nodes isn't running; everything else stays as it is.

    Raises InputError if this machine can't: too many nodes, no loopback addresses, a service that doesn't come up.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise InputError(f"a local cluster has 1 to {MAX_NODES} nodes, not {nodes}")
    state = state.absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(state):
        earlier = _read(state)
        running = _alive(state)
        if earlier is None or not running:
            cluster = LocalCluster(state, nodes, {name: _free_port(port) for name, port in PORTS.items()})
        else:
            cluster = LocalCluster(state, max(nodes, earlier.nodes), earlier.ports)
        _check_addresses(cluster)
        if "head" in running and set(running) == set(cluster.addresses()):
            say(f"The local cluster is up with {cluster.nodes} nodes.")
            return cluster
        began = time.monotonic()
        _write_token(cluster.token)
        _record(cluster)
        _start_missing(cluster, running, say)
        say(f"The local cluster is up with {cluster.nodes} nodes after {time.monotonic() - began:.0f} s.")
        return cluster


def find(state: Path = STATE) -> LocalCluster | None:
    """The cluster of this folder if its services are running."""
    cluster = _read(state.absolute())
    return cluster if cluster is not None and {"s3", "head"} <= set(_alive(cluster.state)) else None


def status(state: Path = STATE) -> list[Service]:
    """Every service that the cluster should have and whether it is alive; empty if there never was a cluster."""
    cluster = _read(state.absolute())
    if cluster is None:
        return []
    running = _alive(cluster.state)
    return [Service(name, address, name in running) for name, address in cluster.addresses().items()]


def down(*, state: Path = STATE, say: Say = print) -> None:
    """Stop every process of the cluster. What it stored stays in the folder."""
    state = state.absolute()
    if not state.exists():
        say("There is no local cluster here.")
        return
    with _locked(state):
        stopped = _stop(state)
        shutil.rmtree(_ray_folder(state), ignore_errors=True)
    say(f"Stopped {stopped} processes. Data, results and MLflow's runs stay in {state.name}/.")


def _start_missing(cluster: LocalCluster, running: Mapping[str, psutil.Process], say: Say) -> None:
    missing = [name for name in cluster.addresses() if name not in running]
    if "head" in missing:  # the nodes of a lost head can't join another
        missing += [name for name in running if name.startswith("node-")]
    _end([process for name, process in _marked(cluster.state) if name in missing])  # what a killed service left over
    started = {name: time.monotonic() for name in ("s3", "mlflow", "head") if name in missing}
    commands = {"s3": _s3_command, "mlflow": _mlflow_command, "head": _head_command}
    processes = {name: _spawn(cluster, name, commands[name](cluster)) for name in started}
    ready: dict[str, Callable[[], bool]] = {
        "s3": lambda: _answers(cluster.s3_endpoint),
        "head": lambda: len(_joined(cluster)) >= 1,
        "mlflow": lambda: _answers(f"{cluster.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"),
    }

    def wait(name: str) -> None:
        if name in started:
            _wait(cluster, name, processes[name], ready[name])
            say(f"  {name:<8} {cluster.addresses()[name]:<24} {time.monotonic() - started[name]:5.1f} s")

    wait("s3")
    wait("head")
    _start_nodes(cluster, [n for n in range(1, cluster.nodes + 1) if f"node-{n}" in missing], say)
    wait("mlflow")


def _start_nodes(cluster: LocalCluster, numbers: list[int], say: Say) -> None:
    """Start Ray nodes a little apart, count those that join, and start again those that gave up."""
    began = time.monotonic()
    processes: dict[int, psutil.Process] = {}
    tries = dict.fromkeys(numbers, 0)
    waiting = list(numbers)
    while waiting:
        for n in list(waiting):
            if n not in processes or not _lives(processes[n]):
                if tries[n] == NODE_TRIES:
                    raise InputError(_did_not_start(cluster, f"node-{n}"))
                tries[n] += 1
                processes[n] = _spawn(cluster, f"node-{n}", _node_command(cluster, n))
                time.sleep(NODE_GAP_SECONDS)
        joined = _joined(cluster)
        for n in [n for n in waiting if node_address(n) in joined]:
            waiting.remove(n)
            say(f"  {f'node-{n}':<8} {node_address(n):<24} {time.monotonic() - began:5.1f} s")
        if waiting and time.monotonic() - began > START_SECONDS:
            raise InputError(_did_not_start(cluster, f"node-{waiting[0]}"))
        time.sleep(0.2)


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
        "--temp-dir", str(_ray_folder(cluster.state)),
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


def _s3_command(cluster: LocalCluster) -> list[str]:
    folder = cluster.state / "s3"
    return [sys.executable, "-m", "localbucket", str(folder), "--host", LOOPBACK, "--port", str(cluster.ports["s3"])]


def _spawn(cluster: LocalCluster, name: str, command: list[str]) -> psutil.Process:
    """Start a service that outlives this process, in a session of its own, its output in its log."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_", "MLFLOW_"))} | {
        **cluster.environment(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",  # jobs call `python`
        MARK: f"{cluster.state}:{name}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_metrics_report_interval_ms": "2000",  # an epoch of the digits takes no longer
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    log = cluster.state / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return psutil.Process(os.posix_spawnp(command[0], command, environment, file_actions=streams, setsid=True))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(cluster: LocalCluster, name: str, process: psutil.Process, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not _lives(process) or time.monotonic() > deadline:
            raise InputError(_did_not_start(cluster, name))
        time.sleep(0.1)


def _did_not_start(cluster: LocalCluster, name: str) -> str:
    log = cluster.state / "logs" / f"{name}.log"
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


def _marked(state: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(service, process) of every process that carries this cluster's mark, children included."""
    for process in psutil.process_iter():
        try:
            folder, _, name = process.environ().get(MARK, "").rpartition(":")
        except psutil.Error:
            continue
        if folder == str(state) and _lives(process):
            yield name, process


def _alive(state: Path) -> dict[str, psutil.Process]:
    """The services that run: of all marked processes, those that no other process of the cluster has started."""
    marked = list(_marked(state))
    ours = {process.pid for _, process in marked}
    alive = {}
    for name, process in marked:
        try:
            if process.ppid() not in ours and process.cmdline()[1:2] in (["-c"], ["-m"]):
                alive[name] = process
        except psutil.Error:
            continue
    return alive


def _stop(state: Path) -> int:
    # More than once, as a dying process may just have started another.
    return sum(_end([process for _, process in _marked(state)]) for _ in range(3))


def _end(processes: list[psutil.Process]) -> int:
    """Terminate processes with all their descendants, kill what is left after a while; returns how many there were."""
    family = set(processes)
    for process in processes:
        try:
            family.update(process.children(recursive=True))
        except psutil.Error:
            continue
    for signal in ("terminate", "kill"):
        for process in family:
            try:
                getattr(process, signal)()
            except psutil.Error:
                continue
        _, alive = psutil.wait_procs(list(family), timeout=STOP_SECONDS)
        if not alive:
            break
    return len(family)


def _read(state: Path) -> LocalCluster | None:
    try:
        document = json.loads((state / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    return LocalCluster(state, document["nodes"], document["ports"])


def _record(cluster: LocalCluster) -> None:
    document = {key: value for key, value in asdict(cluster).items() if key != "state"}
    temporary = cluster.state / "cluster.json.new"
    temporary.write_text(json.dumps(document, indent=2))
    temporary.replace(cluster.state / "cluster.json")


def _write_token(path: Path) -> None:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def _ray_folder(state: Path) -> Path:
    # Ray puts sockets here, whose paths may have 107 bytes; so it can't lie in the state folder.
    return Path(f"/tmp/alexvgg-{os.getuid()}-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}")


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One `up` or `down` at a time; a second waits."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
