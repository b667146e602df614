"""This machine: GPUs, NCCL and what compiles nets for them, disk, ports."""

import functools
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from alexvgg.doctor.finding import Finding, attempt
from alexvgg.engine.step import chosen_compile

DRIVER = Path("/proc/driver/nvidia/version")
LEAST_DISK = 5e9  # bytes: a checkpoint of VGG E has 1.15 GB, and each thread that packs holds a shard of 150 MB
CONNECT_SECONDS = 5.0


def check_gpus() -> Iterator[Finding]:
    """Every GPU multiplies, all of them add up a number through NCCL, and nets can be compiled for them."""
    if not torch.cuda.is_available():
        if DRIVER.exists():
            step = "Compare the driver that `nvidia-smi` shows with torch.version.cuda; update the driver."
            yield Finding(
                "gpu", "failed", f"this machine has NVIDIA's driver, but torch {torch.__version__} sees none", step
            )
        else:
            yield Finding(
                "gpu", "skipped", "this machine has none; those of a cluster's nodes aren't checked from here"
            )
        return
    devices = [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    for device in devices:
        yield attempt(f"gpu {device.index}", functools.partial(_multiply, device), "Look at `nvidia-smi` for errors.")
    yield attempt("nccl", lambda: _add_up(devices), "Run with NCCL_DEBUG=INFO to see what it does.")
    yield check_compiler()


def check_compiler() -> Finding:
    """Whether nets will be compiled, which a third of their speed on a GPU depends on."""
    if chosen_compile(torch.device("cuda"), None):
        return Finding("torch.compile", "ok", "Triton, a C compiler and Python's headers are there")
    step = "Install gcc and the headers (python3-dev); GPUs older than compute capability 7.0 have to do without."
    detail = (
        "Triton, a C compiler or Python's headers are missing: nets aren't compiled, and train about a third slower"
    )
    return Finding("torch.compile", "warning", detail, step)


def _multiply(device: torch.device) -> str:
    with torch.cuda.device(device):
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    ones = torch.ones(256, 256, device=device, dtype=dtype)
    if (ones @ ones).sum().item() != 256**3:
        raise RuntimeError("a product of matrices came out wrong")
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, multiplies in {str(dtype).removeprefix('torch.')}"


def _add_up(devices: list[torch.device]) -> str:
    shares = [torch.full((1,), float(n + 1), device=device) for n, device in enumerate(devices)]
    nccl: Any = torch.cuda.nccl  # untyped
    nccl.all_reduce(shares)
    expected = len(devices) * (len(devices) + 1) / 2
    if any(share.item() != expected for share in shares):
        raise RuntimeError("a sum over the GPUs came out wrong")
    return f"{'.'.join(map(str, nccl.version()))}, a sum over {len(devices)} GPUs"


def check_disk() -> Iterator[Finding]:
    """Room in this folder and for temporary files."""
    for name, folder in (("this folder", Path()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        detail = f"{free / 1e9:.0f} GB are free in {folder.absolute()}"
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            step = "Go to a folder in which you may write." if folder == Path() else "Set TMPDIR to such a folder."
            yield Finding(f"disk, {name}", "failed", f"{folder.absolute()}: {error.strerror}", step)
            continue
        if free < LEAST_DISK:
            step = "Make room, or set TMPDIR to another disk: training and packing need some GB."
            yield Finding(f"disk, {name}", "warning", detail, step)
        else:
            yield Finding(f"disk, {name}", "ok", detail)


def check_free_ports(ports: Mapping[str, int]) -> Finding:
    """What the local cluster would listen on. It takes another port for one that is in use."""
    taken = [f"{port} ({name})" for name, port in ports.items() if listens("127.0.0.1", port)]
    if taken:
        return Finding("ports", "ok", f"{', '.join(taken)} in use; the local cluster takes others instead")
    return Finding("ports", "ok", f"{', '.join(map(str, ports.values()))} are free for the local cluster")


def check_port(name: str, url: str) -> Finding:
    """Whether anything listens at a service's URL."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if listens(host, port):
        return Finding(f"port of {name}", "ok", f"{host}:{port} is open")
    step = f"Start the service, or correct {name} (`alexvgg config show`); firewalls and VPNs close ports, too."
    return Finding(f"port of {name}", "failed", f"nothing answers at {host}:{port}", step)


def listens(host: str, port: int) -> bool:
    """Whether a TCP connection is taken."""
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
