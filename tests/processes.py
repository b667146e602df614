"""Starting, awaiting and finding processes."""

import random
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

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


def command_line(process: psutil.Process) -> str:
    """How the process was started; empty if it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
