"""Starting, awaiting and finding processes."""

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from cluster.services import s3_command

Command = Callable[..., "subprocess.CompletedProcess[str]"]  # runs `alexvgg` with the arguments given


def free_port() -> int:
    """Below the ports that the system hands out by itself, so that nobody else gets it meanwhile."""
    while True:
        port = random.randrange(21_000, 32_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3_service(folder: Path) -> Iterator[str]:
    """The S3 service that a local cluster uses, on `folder`, for the length of the block: its endpoint."""
    port = free_port()
    service = subprocess.Popen(s3_command(folder, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), "the S3 service's start")
        yield f"http://127.0.0.1:{port}"
    finally:
        service.kill()
        service.wait()


def s3_environment(endpoint: str) -> dict[str, str]:
    """With which a process is a client of such a service, which takes any keys."""
    return {
        "AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip


def processes_with(mark: str) -> set[psutil.Process]:
    """Every process whose environment begins a variable with `mark`, and all its descendants."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if mark in Path(f"/proc/{process.pid}/environ").read_text(errors="replace"):
                found |= {process, *process.children(recursive=True)}
        except (OSError, psutil.Error):
            continue
    return found


def dead_process() -> str:
    """A process of this machine that has ended, as it called itself."""
    code = "from alexvgg.process import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def command_line(process: psutil.Process) -> str:
    """How the process was started; empty if it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
