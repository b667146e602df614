"""How workers on different hosts find one another: torchrun's environment, with the interface that Ray itself uses.

gloo and NCCL choose by the host's name, which on many hosts means 127.0.0.1 or the wrong one of two networks. Every
node of a Ray cluster has an address at which the others reach it; the interface that has this address is the right one.
"""

import os
import random
import socket
from contextlib import suppress
from typing import Any

import ray
from ray.train import get_context
from ray.train.backend import Backend, BackendConfig

from jobs.interface import use_interface

# Above those of Ray's workers, and below those that Linux hands out by itself: rank 0 listens seconds after the choice.
PORTS = range(20_000, 32_768)


class Launch(BackendConfig):
    """Ray Train's settings for workers that join by `World.launched`, as they do under torchrun.

    Ray Train's TorchConfig would join them, too; but it imports torch in the job's process and once more in the
    controller's, one after the other, before the first worker starts.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        return Launcher


class Launcher(Backend):
    """Describes the group to each of its workers."""

    share_cuda_visible_devices = True  # between a node's workers, for NVLink; LOCAL_RANK says whose is which

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, _meeting_point)
        worker_group.execute(_describe_group, address, port)


def _meeting_point() -> tuple[str, int]:
    """Where the ranks meet: this node's address, and one of PORTS that is free."""
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    while True:
        port = random.choice(PORTS)
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe, suppress(OSError):
            probe.bind((address, port))
            return address, port


def _describe_group(address: str, port: int) -> None:
    use_interface(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    me, about = get_context(), ray.get_runtime_context()
    if not about.get_accelerator_ids()["GPU"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the machine's GPUs in sight of workers that asked for none
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        (cpus,) = [n["Resources"]["CPU"] for n in nodes if n["NodeID"] == about.get_node_id()]
        # By Ray's own it would be 1, the share that a worker books. Torch, which reads it, isn't loaded yet.
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus) // me.get_local_world_size()))
    os.environ.update(
        MASTER_ADDR=address, MASTER_PORT=str(port), RANK=str(me.get_world_rank()), WORLD_SIZE=str(me.get_world_size()),
        LOCAL_RANK=str(me.get_local_rank()), LOCAL_WORLD_SIZE=str(me.get_local_world_size()),
    )  # fmt: skip
