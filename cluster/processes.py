"""The processes of a local cluster. Each carries the cluster's folder in its environment, so that none can get lost."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARK = "ALEXVGG_LOCAL_CLUSTER"  # environment variable of every process of a cluster: its folder and service
STOP_SECONDS = 10


def spawn(state: Path, name: str, command: list[str], environment: Mapping[str, str]) -> psutil.Process:
    """Start a service that outlives this process, in a session of its own, its output in its log.

    It holds nothing open that the shell has: not the pipe that the shell reads, nor a lock around the command.
    """
    log = log_of(state, name)
    log.parent.mkdir(exist_ok=True)
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
    ]
    environment = {**environment, MARK: f"{state}:{name}"}
    return psutil.Process(os.posix_spawnp(command[0], command, environment, file_actions=streams, setsid=True))


def _inherited() -> list[int]:
    """What a child of this process would find open besides its standard streams."""
    found = []
    for fd in (int(path.name) for path in Path("/dev/fd").iterdir()):
        with suppress(OSError):  # the folder's own, closed by now
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
    return found


def log_of(state: Path, name: str) -> Path:
    return state / "logs" / f"{name}.log"


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(state: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(service, process) of every process that carries this cluster's mark, children included."""
    for process in psutil.process_iter():
        try:
            folder, _, name = process.environ().get(MARK, "").rpartition(":")
        except psutil.Error:
            continue
        if folder == str(state) and lives(process):
            yield name, process


def services(state: Path, commands: Mapping[str, list[str]]) -> dict[str, psutil.Process]:
    """The services that run: of all marked processes, those that `commands` starts and no other of them has started."""
    found = list(marked(state))
    ours = {process.pid for _, process in found}
    alive = {}
    for name, process in found:
        try:
            if process.ppid() not in ours and name in commands and process.cmdline()[1:2] == commands[name][1:2]:
                alive[name] = process
        except psutil.Error:
            continue
    return alive


def stop(state: Path) -> int:
    """End every process of a cluster; returns how many there were."""
    # More than once, as a dying process may just have started another.
    return sum(end([process for _, process in marked(state)]) for _ in range(3))


def end(processes: list[psutil.Process]) -> int:
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


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """One process at a time starts or stops the cluster of a folder; a second waits."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
