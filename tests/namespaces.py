"""Network namespaces as hosts: each has an address of its own, and a loopback that reaches nobody else."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = ("10.87.53.1", "10.87.53.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def available() -> bool:
    """Whether this process may make them."""
    if shutil.which("ip") is None or os.getuid() != 0:
        return False
    name = f"alexvgg-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return False
    ip("netns", "delete", name)
    return True


@contextmanager
def two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """Two namespaces joined by a cable: the beginning of a command line that runs in the first, in the second."""
    names = [f"alexvgg-{os.getpid()}-{n}" for n in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable1", "netns", names[1])
        for n, name in enumerate(names):
            ip("-n", name, "address", "add", f"{ADDRESSES[n]}/24", "dev", f"cable{n}")
            ip("-n", name, "link", "set", f"cable{n}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        first, second = (["ip", "netns", "exec", name] for name in names)
        yield first, second
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
