"""Starting, awaiting and finding processes."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


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
