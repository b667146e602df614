"""Seconds and bytes of a training step by each gradient exchange, on links of 1 and 10 Gb/s between 2 and 4 hosts.

The hosts are network namespaces of this machine, which needs root; without it everything runs over loopback, where only
the bytes mean something. AlexNet is the real net; VGG D has its true classifier and its convolutions' true gradient but
small images, as real ones would keep a CPU busy for longer than any exchange takes (`exchange_rank.py`). The global
batch is 8. Beside each time stands what `alexvgg.scaling` makes of the step without exchange and of the rate at which
an all-reduce of 64 MiB alone goes through the same link.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from exchange_rank import EXCHANGES, GLOBAL_BATCH, PROBE
from namespaces import LINK, Hosts, missing
from processes import free_port
from report import report

from alexvgg.scaling import step_seconds

RANK = Path(__file__).with_name("exchange_rank.py")
STEPS = 5
LABELS = {"allreduce": "DDP", "bf16": "DDP, bf16", "factors": "factors"}
Measured = dict[str, dict[str, list[float]]]


def measure(net: str, ranks: int, hosts: Hosts | None) -> Measured:
    """What each rank measured, put together: the slowest rank's seconds, and its bytes."""
    address = hosts.address(0) if hosts else "127.0.0.1"
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": address, "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
    interface = LINK if hosts else "lo"
    processes = []
    for rank in range(ranks):
        command = [sys.executable, str(RANK), net, str(STEPS), interface]
        environment = {**os.environ, **common, "RANK": str(rank), "GLOO_SOCKET_IFNAME": interface}
        inside = hosts.inside(rank, command) if hosts else command
        processes.append(subprocess.Popen(inside, env=environment, stdout=subprocess.PIPE, text=True))
    try:
        lines = [process.communicate(timeout=1800)[0].splitlines() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "a rank failed"
    found: Measured = {}
    for parts in zip(*([json.loads(line) for line in rank] for rank in lines), strict=True):
        sent = [max(step) / (1 if hosts else ranks) for step in zip(*(p["bytes"] for p in parts), strict=True)]
        seconds = [max(step) for step in zip(*(p["seconds"] for p in parts), strict=True)]
        found[parts[0]["what"]] = {"seconds": seconds, "bytes": sent}
    return found


def show(name: str, found: Measured, ranks: int) -> dict[str, Any]:
    """A row for each exchange. Returns the medians, and how far the model is off."""
    compute, probe = median(found["compute"]["seconds"]), median(found["probe"]["seconds"])
    goodput = 2 * (ranks - 1) / ranks * PROBE / probe  # bytes a second
    print(f"\n{name}: {compute:.2f} s a step without exchange; an all-reduce goes at {8 * goodput / 1e9:.2f} Gb/s")
    medians: dict[str, Any] = {}
    for how in EXCHANGES:
        seconds, sent = median(found[how]["seconds"]), median(found[how]["bytes"])
        model = step_seconds(compute, sent / goodput)
        medians[how] = {"seconds": seconds, "bytes": sent, "model": model}
        first = medians["allreduce"]
        print(
            f"  {LABELS[how]:<10} {seconds:7.3f} s ({min(found[how]['seconds']):.3f} to "
            f"{max(found[how]['seconds']):.3f}) {first['seconds'] / seconds:6.2f}x   {sent / 1e6:8.1f} MB "
            f"{first['bytes'] / sent:6.2f}x   model {model:7.3f} s ({model / seconds - 1:+.0%})",
            flush=True,
        )
    return medians


def main() -> None:
    refused = missing()
    results: dict[str, dict[str, Any]] = {}
    if refused is None:
        for net in ("vgg_d", "alexnet"):
            for ranks in (2, 4):
                with Hosts(ranks) as hosts:
                    for rate in (1, 10):
                        hosts.limit(rate * 1e9)
                        found = measure(net, ranks, hosts)
                        name = f"{net}, {ranks} hosts, {rate} Gb/s"
                        results[name] = show(name, found, ranks)
                        if name == "vgg_d, 2 hosts, 1 Gb/s":
                            main_result = found
    else:
        print(f"No network namespaces ({refused}): over loopback. Bytes are right, times say nothing of a network.")
    name = "vgg_d, 2 ranks, loopback"
    loopback = measure("vgg_d", 2, None)
    results[name] = show(name, loopback, 2)
    found = loopback if refused is not None else main_result
    print(f"\nglobal batch {GLOBAL_BATCH}, one thread a rank")
    print(json.dumps(results))
    names = ("factors", "DDP")
    report("exchange", found["factors"]["seconds"], found["allreduce"]["seconds"], "s a step", names)


main()
