"""Seconds and bytes of a training step by each gradient exchange, on links of 1 and 10 Gb/s between 2 and 4 hosts.

The hosts are network namespaces of this machine, which needs root; without it everything runs over loopback, where only
the bytes mean something. AlexNet is the real net; VGG D has its true classifier and its convolutions' true gradient but
small images, as real ones would keep a CPU busy for longer than any exchange takes (`exchange_rank.py`). The global
batch is 8. Beside each time stands what `alexvgg.scaling` makes of the same steps on loopback, of the bytes and of the
link's nominal rate.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

from exchange_rank import EXCHANGES, GLOBAL_BATCH
from namespaces import LINK, Hosts, missing
from processes import free_port
from report import report

from alexvgg.scaling import step_seconds

RANK = Path(__file__).with_name("exchange_rank.py")
STEPS = 3
RATES = (1e9, 10e9)
LABELS = {"allreduce": "DDP", "bf16": "DDP, bf16", "factors": "factors"}
Measured = dict[str, dict[str, list[float]]]


def measure(net: str, ranks: int, hosts: Hosts | None) -> Measured:
    """What each rank measured, put together: the slowest rank's seconds, and its bytes.

    With fewer hosts than ranks, or none, all ranks are on one and talk over its loopback, which counts everyone's.
    """
    apart = hosts is not None and len(hosts.names) == ranks
    address, interface = (hosts.address(0), LINK) if hosts is not None and apart else ("127.0.0.1", "lo")
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": address, "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
    processes = []
    for rank in range(ranks):
        command = [sys.executable, str(RANK), net, str(STEPS), interface]
        environment = {**os.environ, **common, "RANK": str(rank), "GLOO_SOCKET_IFNAME": interface}
        inside = hosts.inside(rank if apart else 0, command) if hosts is not None else command
        processes.append(subprocess.Popen(inside, env=environment, stdout=subprocess.PIPE, text=True))
    try:
        lines = [process.communicate(timeout=1800)[0].splitlines() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "a rank failed"
    found: Measured = {}
    for parts in zip(*([json.loads(line) for line in rank] for rank in lines), strict=True):
        sent = [max(step) / (1 if apart else ranks) for step in zip(*(p["bytes"] for p in parts), strict=True)]
        seconds = [max(step) for step in zip(*(p["seconds"] for p in parts), strict=True)]
        found[parts[0]["what"]] = {"seconds": seconds, "bytes": sent}
    return found


def show(name: str, found: Measured, on_loopback: Measured | None = None, rate: float = 0.0) -> float:
    """A row for each exchange. Returns how far the model is off at worst, as a share."""
    print(f"\n{name}")
    off, first = [0.0], found["allreduce"]
    for how in EXCHANGES:
        times, sent = found[how]["seconds"], median(found[how]["bytes"])
        row = (
            f"  {LABELS[how]:<10} {median(times):7.3f} s ({min(times):.3f} to {max(times):.3f}), DDP's by "
            f"{median(first['seconds']) / median(times):5.2f}   {sent / 1e6:8.1f} MB, DDP's by "
            f"{median(first['bytes']) / sent:5.2f}"
        )
        if on_loopback is not None:
            hidden = median(on_loopback["hidden"]["seconds"])
            model = step_seconds(median(on_loopback[how]["seconds"]), 8 * sent / rate, hidden=hidden)
            off.append(abs(model / median(times) - 1))
            row += f"   model {model:7.3f} s ({model / median(times) - 1:+.0%})"
        print(row, flush=True)
    return max(off)


def on_one_host(net: str, ranks: int, *, alone: bool) -> Measured:
    """Over loopback: of a namespace of its own, or of this machine, whose other users' bytes then count, too."""
    if not alone:
        return measure(net, ranks, None)
    with Hosts(1) as hosts:
        return measure(net, ranks, hosts)


def between_hosts(net: str, ranks: int, on_loopback: Measured) -> Measured:
    """A net at both rates. Returns what it took at 1 Gb/s."""
    with Hosts(ranks) as hosts:
        for rate in RATES:
            hosts.limit(rate)
            found = measure(net, ranks, hosts)
            off = show(f"{net}, {ranks} hosts, {rate / 1e9:g} Gb/s", found, on_loopback, rate)
            if rate == RATES[0]:
                slow = found
                print(f"  the model is off by at most {off:.0%}")
    return slow


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that the hosts are taken down
    if (refused := missing()) is not None:
        print(f"No network namespaces ({refused}): over loopback. Bytes are right, times say nothing of a network.")
    results = []
    for net, ranks in itertools.product(("vgg_d", "alexnet"), (2, 4)):
        on_loopback = on_one_host(net, ranks, alone=refused is None)
        show(f"{net}, {ranks} ranks on one host, loopback", on_loopback)
        results.append(on_loopback if refused is not None else between_hosts(net, ranks, on_loopback))
    print(f"\nGlobal batch {GLOBAL_BATCH}, one thread a rank; of each step the slowest rank. VGG's sizes, N=2, 1 Gb/s:")
    report("exchange", results[0]["factors"]["seconds"], results[0]["allreduce"]["seconds"], "s", ("factors", "DDP"))


if __name__ == "__main__":
    main()
