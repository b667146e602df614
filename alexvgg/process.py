"""This process: which it is among all that ever were, so that others can tell whether it lives, and what it may use."""

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PROCESSES = Path("/proc")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU in each period, and the period's own


def cores() -> int:
    """How many CPU cores it may use: those on which it may run, or less where its container has a quota."""
    own = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no container, no Linux, or "max"
        quota, period = map(int, QUOTA.read_text().split())
        own = min(own, quota // period)
    return max(1, own)


def host_id() -> int:
    """An int64 that the processes of one machine share, those in its containers too: of Linux's boot id."""
    name = BOOT_ID.read_text() if BOOT_ID.exists() else socket.gethostname()
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def this_process() -> str:
    """This process: its machine since it was started, its number there, and when it began."""
    pid = os.getpid()
    return f"{_where()} {pid} {_began(pid)}"


def lives_here(process: str) -> bool | None:
    """Whether the process that called itself so is one of this machine's; None if it is another machine's."""
    where, pid, began = process.rsplit(" ", 2)
    if where != _where() or began == "None":
        return None
    return str(_began(int(pid))) == began


def _where() -> str:
    """The machine and the processes' own space in it: containers number theirs from 1."""
    with suppress(OSError):
        return f"{host_id():x} {(PROCESSES / 'self/ns/pid').readlink()}"
    return f"{host_id():x}"


def _began(pid: int) -> int | None:
    """When a process began, in ticks since its machine was started; None if it has ended, or without Linux."""
    with suppress(OSError):
        state, *numbers = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(numbers[18])  # of the dead, whose parent hasn't noticed
    return None
