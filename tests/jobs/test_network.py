"""Workers find one another at the addresses that Ray knows: checked between two network namespaces."""

import os
import subprocess
import sys
from contextlib import suppress

import namespaces
import psutil
import pytest

from jobs.interface import interface_of, use_interface

# One rank: a process group with the other, and a sum.
RANK = """
import datetime, os, sys, torch, torch.distributed as dist
if sys.argv[4] == "chosen":
    from jobs.interface import use_interface
    use_interface(sys.argv[2])
url = f"tcp://{sys.argv[3]}:{29501 if sys.argv[4] == 'chosen' else 29502}"
dist.init_process_group("gloo", url, datetime.timedelta(seconds=20), world_size=2, rank=int(sys.argv[1]))
number = torch.tensor(1.0 + dist.get_rank())
dist.all_reduce(number)
print(number.item())
"""


def start(hosts: namespaces.Hosts, interface: str) -> list["subprocess.Popen[str]"]:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("SOCKET_IFNAME")}
    first = namespaces.address(0)
    commands = [
        hosts.inside(n, [sys.executable, "-c", RANK, str(n), namespaces.address(n), first, interface]) for n in range(2)
    ]
    return [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for c in commands
    ]


def test_two_hosts_sum_on_the_interface_that_has_their_address() -> None:
    if (reason := namespaces.missing()) is not None:
        pytest.skip(reason)
    with namespaces.Hosts(2) as hosts:
        chosen, left = start(hosts, "chosen"), start(hosts, "left to gloo")
        try:
            said = [rank.communicate(timeout=60) for rank in chosen]
            assert [out for out, _ in said] == ["3.0\n"] * 2, said
            # By itself gloo takes the loopback, where the other host isn't: it is refused, or waits for ever.
            with suppress(subprocess.TimeoutExpired):
                left[1].wait(5)
        finally:
            for rank in (*chosen, *left):
                rank.kill()
            ends = [rank.communicate() for rank in left]
        assert [out for out, _ in ends] == ["", ""], ends


def test_an_address_belongs_to_an_interface() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("127.0.0.7") == "lo", "an address in the interface's network"
    for name, addresses in psutil.net_if_addrs().items():
        for a in addresses:
            if a.family.name == "AF_INET":
                assert interface_of(a.address) == name
    assert interface_of("203.0.113.9") is None, "nobody's address"


def test_the_environment_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    use_interface("127.0.0.3")
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    use_interface("203.0.113.9")
    assert "GLOO_SOCKET_IFNAME" not in os.environ, "better none than a wrong one"
