"""Several hosts on one machine: network namespaces on a bridge, each with a link of a given rate. Needs root."""

import os
import re
import subprocess
from pathlib import Path
from types import TracebackType

LINK = "link0"  # the interface inside each host's namespace


def address(host: int) -> str:
    return f"10.77.0.{host + 1}"


class Hosts:
    """`size` hosts; their namespaces exist inside the `with` block. `rate` is in bits a second, both ways."""

    def __init__(self, size: int) -> None:
        self._hub = f"alexvgg-{os.getpid()}-hub"
        self.names = [f"alexvgg-{os.getpid()}-{n}" for n in range(size)]

    def inside(self, host: int, command: list[str]) -> list[str]:
        """The command that runs `command` on that host."""
        return ["ip", "netns", "exec", self.names[host], *command]

    def __enter__(self) -> "Hosts":
        _delete_orphans()
        try:
            for name in (self._hub, *self.names):
                _run(f"ip netns add {name}")
            _run(f"ip -n {self._hub} link add bridge0 type bridge")
            _run(f"ip -n {self._hub} link set bridge0 up")
            for host, name in enumerate(self.names):
                _run(f"ip -n {self._hub} link add port{host} type veth peer name {LINK} netns {name}")
                _run(f"ip -n {self._hub} link set port{host} master bridge0 up")
                _run(f"ip -n {name} addr add {address(host)}/24 dev {LINK}")
                _run(f"ip -n {name} link set {LINK} up")
                _run(f"ip -n {name} link set lo up")
        except BaseException:
            self._delete()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._delete()

    def _delete(self) -> None:
        for name in (*self.names, self._hub):  # a namespace takes its interfaces along
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def cut(self, host: int) -> None:
        """Pull its cable."""
        _run(f"ip -n {self._hub} link set port{host} down")

    def heal(self, host: int) -> None:
        _run(f"ip -n {self._hub} link set port{host} up")

    def limit(self, rate: float | None) -> None:
        """Give every link this rate; None takes the limit away."""
        if rate is None:
            for host, name in enumerate(self.names):
                for place in (f"{name} qdisc del dev {LINK}", f"{self._hub} qdisc del dev port{host}"):
                    subprocess.run(f"tc -n {place} root".split(), stderr=subprocess.DEVNULL, check=False)
            return
        bucket = max(1 << 18, int(rate / 8 / 100))  # what may pass at once: the kernel's clock ticks every few ms
        shape = f"root tbf rate {rate:.0f}bit burst {bucket} latency 50ms"
        for host, name in enumerate(self.names):
            _run(f"tc -n {name} qdisc replace dev {LINK} {shape}")
            _run(f"tc -n {self._hub} qdisc replace dev port{host} {shape}")


def _delete_orphans() -> None:
    """Those of programs that were killed."""
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name, pid in re.findall(r"^(alexvgg-(\d+)-\w+)", found, re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            subprocess.run(["ip", "netns", "del", name], check=False)


def missing() -> str | None:
    """Why there can be no namespaces here, or None."""
    if os.geteuid() != 0:
        return "not root"
    try:
        with Hosts(1) as hosts:
            hosts.limit(1e9)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{error}: {getattr(error, 'stderr', '') or ''}".strip()
    return None


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, text=True)
