"""The hosts that a run trains on: what they are, and how busy they were."""

import os
import platform
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch

SAMPLE_SECONDS = 5.0  # between two looks at a GPU, whose driver only tells how busy it is at the moment


def describe(device: torch.device) -> dict[str, Any]:
    """This host, and the device that one rank computes on."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "host": socket.gethostname(),
        "cpu": _cpu_model(), "cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu.name if gpu else None, "gpu_memory_gib": round(gpu.total_memory / 2**30, 1) if gpu else None,
    }  # fmt: skip


def by_host(machines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each host, in the order of ranks, with its number of ranks."""
    hosts: dict[str, dict[str, Any]] = {}
    for machine in machines:
        hosts.setdefault(machine["host"], {**machine, "ranks": 0})["ranks"] += 1
    return list(hosts.values())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


class Load:
    """How busy this host is. CPU and network are counted by the system, so that their means need no sampling."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began, self._bytes = time.monotonic(), _received()
        psutil.cpu_percent()
        self._gpu: list[float] = []
        self._closed = threading.Event()
        if device.type == "cuda":
            threading.Thread(target=self._sample, name="gpu", daemon=True).start()

    def read(self) -> dict[str, float]:
        """Means since the last reading, under MLflow's names of system metrics: shares in per cent, MB a second."""
        now, received = time.monotonic(), _received()
        rate = (received - self._bytes) / 1e6 / max(now - self._began, 1e-9)
        self._began, self._bytes = now, received
        found = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_percentage": psutil.virtual_memory().percent,
            "network_receive_megabytes_per_s": round(rate, 3),
        }
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            found["gpu_memory_usage_percentage"] = round(100 * (1 - free / total), 1)
            if samples := self._gpu:
                self._gpu = []
                found["gpu_utilization_percentage"] = round(fmean(samples), 1)
        return found

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _sample(self) -> None:
        while not self._closed.wait(SAMPLE_SECONDS):
            try:
                self._gpu.append(torch.cuda.utilization(self._device))
            except Exception:  # a slice of a GPU, or a driver that doesn't say: then nothing is shown
                return


def _received() -> int:
    counters = psutil.net_io_counters()
    return counters.bytes_recv if counters is not None else 0


def by_node(loads: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """From each rank's host and load to `system/node-1/cpu_utilization_percentage`, …; hosts in the order of ranks."""
    hosts = list(dict.fromkeys(host for host, _ in loads))
    return {
        f"system/node-{hosts.index(host) + 1}/{name}": value
        for host, load in reversed(loads)  # a host's first rank speaks for it
        for name, value in load.items()
    }
