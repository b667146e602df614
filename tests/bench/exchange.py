"""Seconds and bytes of a training step by each gradient exchange, on links of 1 and 10 Gb/s between 2 and 4 hosts.

The hosts are network namespaces of this machine, which needs root; without it everything runs over loopback, where only
the bytes mean something. AlexNet is the real net; VGG D has its true classifier and its convolutions' true gradient but
small images, as real ones would keep a CPU busy for longer than any exchange takes (`exchange_rank.py`). The global
batch is 8. Beside each time stands what `alexvgg.scaling` makes of the step without exchange and of the rate at which
an all-reduce of 64 MiB alone goes through the same link.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

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


def show(name: str, found: Measured, ranks: int) -> float:
    """A row for each exchange. Returns how far the model is off at worst, as a share."""
    compute, probe = median(found["compute"]["seconds"]), median(found["probe"]["seconds"])
    goodput = 2 * (ranks - 1) / ranks * PROBE / probe  # bytes a second
    print(f"\n{name}: {compute:.2f} s a step without exchange; an all-reduce goes at {8 * goodput / 1e9:.2f} Gb/s")
    off, first = [], found["allreduce"]
    for how in EXCHANGES:
        times, sent = found[how]["seconds"], median(found[how]["bytes"])
        seconds, model = median(times), step_seconds(compute, sent / goodput)
        off.append(abs(model / seconds - 1))
        print(
            f"  {LABELS[how]:<10} {seconds:7.3f} s ({min(times):.3f} to {max(times):.3f}), DDP's by "
            f"{median(first['seconds']) / seconds:5.2f}   {sent / 1e6:8.1f} MB, DDP's by "
            f"{median(first['bytes']) / sent:5.2f}   model {model:7.3f} s ({model / seconds - 1:+.0%})",
            flush=True,
        )
    return max(off)


def on_hosts() -> Measured:
    """Everything between hosts. Returns what VGG's sizes took on two of them at 1 Gb/s."""
    first, off = None, []
    for net in ("vgg_d", "alexnet"):
        for ranks in (2, 4):
            with Hosts(ranks) as hosts:
                for rate in (1, 10):
                    hosts.limit(rate * 1e9)
                    found = measure(net, ranks, hosts)
                    worst = show(f"{net}, {ranks} hosts, {rate} Gb/s", found, ranks)
                    first = first or found
                    if rate == 1:
                        off.append(worst)
    print(f"\nThe model of a step is off by at most {max(off):.0%} at 1 Gb/s.")
    assert first is not None
    return first


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that the hosts are taken down
    refused = missing()
    found = on_hosts() if refused is None else None
    if refused is not None:
        print(f"No network namespaces ({refused}): over loopback. Bytes are right, times say nothing of a network.")
    loopback = measure("vgg_d", 2, None)
    show("vgg_d, one host, 2 ranks on loopback", loopback, 2)
    found = found or loopback
    print(f"\nGlobal batch {GLOBAL_BATCH}, one thread a rank, slowest rank of each step. VGG, 2 hosts, 1 Gb/s:")
    report("exchange", found["factors"]["seconds"], found["allreduce"]["seconds"], "s a step", ("factors", "DDP"))


main()
