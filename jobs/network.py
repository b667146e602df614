"""How workers on different hosts find one another: the collective's interface is the one that Ray itself uses.

gloo and NCCL choose by the host's name, which on many hosts means 127.0.0.1 or the wrong one of two networks. Every
node of a Ray cluster has an address at which the others reach it; the interface that has this address is the right one.
"""

import os
from typing import Any

import ray
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

from alexvgg.engine.world import COLLECTIVE_TIMEOUT
from jobs.interface import use_interface

SECONDS = "ALEXVGG_COLLECTIVE_SECONDS"  # environment variable that overrides COLLECTIVE_TIMEOUT


def collective_seconds() -> int:
    """How long a rank waits for the others before it counts them as lost."""
    return int(os.environ.get(SECONDS, COLLECTIVE_TIMEOUT.total_seconds()))


def _use_nodes_interface() -> None:
    use_interface(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


class AddressedBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's own way to a process group, with the interface chosen on every worker first."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_nodes_interface)
        super().on_start(worker_group, backend_config)


class AddressedTorch(TorchConfig):
    """Ray Train's settings for torch, for workers that may be on several hosts."""

    @property
    def backend_cls(self) -> type[Backend]:
        return AddressedBackend
