"""Which network interface a collective should use: the one that has the address at which Ray reaches this node."""

import ipaddress
import os
import socket

import psutil


def interface_of(address: str) -> str | None:
    """The network interface with this address, or whose network holds it as `lo` holds 127.0.0.3; None if none does."""
    wanted = ipaddress.ip_address(address)
    holding: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network] = {}
    for name, addresses in psutil.net_if_addrs().items():
        for a in addresses:
            if a.family not in (socket.AF_INET, socket.AF_INET6) or a.netmask is None:
                continue
            own = ipaddress.ip_interface(f"{a.address.partition('%')[0]}/{_prefix(a.netmask)}")
            if own.ip == wanted:
                return name
            if wanted in own.network:
                holding[name] = own.network
    return max(holding, key=lambda name: holding[name].prefixlen, default=None)


def _prefix(netmask: str) -> int:
    return int(ipaddress.ip_address(netmask)).bit_count()


def use_interface(address: str) -> None:
    """Make gloo and NCCL use the interface with this address, unless the environment names one."""
    if (name := interface_of(address)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # exactly this one, not all that begin so
