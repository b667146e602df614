"""Seconds and bytes of a training step by each gradient exchange, on links of 1 and 10 Gb/s between 2 and 4 hosts.

The hosts are network namespaces of this machine, which needs root; without it everything runs over loopback, where only
the bytes mean something. AlexNet is the real net; VGG D has its true classifier and its convolutions' true gradient but
small images, as real ones would keep a CPU busy for longer than any exchange takes (`exchange_rank.py`). The global
batch is 8. Beside each time stands what `alexvgg.scaling` makes of the bytes, of the link's nominal rate, and of the
same ranks' steps without any exchange; what the exchange itself computes is in the steps without a limit on the links,
and a step is never faster than those. All of the fastest steps, as whatever else runs here only adds to a step.

Last, two ranks of one host: `auto` beside DDP.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import median

from exchange_rank import GLOBAL_BATCH
from namespaces import LINK, Hosts, address, missing
from processes import free_port
from report import report

from alexvgg.scaling import step_seconds

RANK = Path(__file__).with_name("exchange_rank.py")
STEPS, ROUNDS = 4, 3
RATES = (None, 1e9, 10e9)  # bits a second
EXCHANGES = ("allreduce", "bf16", "factors")
LABELS = {"allreduce": "DDP", "bf16": "DDP, bf16", "factors": "factors"}
Measured = dict[str, list[float]]  # seconds and bytes of each step: the slowest rank's, and the most that a rank sent
Key = tuple[str, float | None]  # exchange and rate


class Ranks:
    """Processes that measure, each on its own host, or all on this one's loopback, which counts everyone's bytes."""

    def __init__(self, net: str, size: int, hosts: Hosts | None, exchanges: list[str]) -> None:
        master, self._interface = ("127.0.0.1", "lo") if hosts is None else (address(0), LINK)
        world = {"WORLD_SIZE": str(size), "MASTER_ADDR": master, "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
        world["CUDA_VISIBLE_DEVICES"] = ""  # gloo's exchange is what is measured
        self._processes = []
        for rank in range(size):
            command = [sys.executable, str(RANK), net, str(STEPS), self._interface, *exchanges]
            inside = command if hosts is None else hosts.inside(rank, command)
            environment = {**os.environ, **world, "RANK": str(rank), "GLOO_SOCKET_IFNAME": self._interface}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
            self._processes.append(subprocess.Popen(inside, env=environment, **pipes))  # type: ignore[call-overload]

    def go_on(self) -> None:
        for process in self._processes:
            process.stdin.write("\n")

    def measured(self) -> Measured:
        """What each rank says next, put together."""
        parts = [json.loads(process.stdout.readline()) for process in self._processes]
        sharing = len(parts) if self._interface == "lo" else 1
        return {
            "seconds": [max(step) for step in zip(*(p["seconds"] for p in parts), strict=True)],
            "bytes": [max(step) / sharing for step in zip(*(p["bytes"] for p in parts), strict=True)],
        }

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


def measure(net: str, size: int, *, apart: bool) -> tuple[dict[Key, Measured], float]:
    """No exchange, then each at each rate; and the seconds of the convolutions' backward pass."""
    rates = RATES if apart else RATES[:1]
    with Hosts(size) if apart else nullcontext() as hosts:
        ranks = Ranks(net, size, hosts, ["none:1", *(f"{how}:{len(rates)}" for how in EXCHANGES)])
        try:
            hidden = min(ranks.measured()["seconds"])
            ranks.go_on()
            found: dict[Key, Measured] = {("none", None): ranks.measured()}
            for how, rate in itertools.product(EXCHANGES, rates):
                if hosts is not None:
                    hosts.limit(rate)
                ranks.go_on()
                found[how, rate] = ranks.measured()
            return found, hidden
        finally:
            ranks.stop()


def show(net: str, size: int, found: dict[Key, Measured], hidden: float, rate: float | None) -> float:
    """A row for each exchange. Returns how far the model is off at worst, as a share."""
    print(f"\n{net}, {size} ranks, {'no limit' if rate is None else f'{rate / 1e9:g} Gb/s'}")
    off, ddp = [0.0], found["allreduce", rate]
    for how in EXCHANGES:
        times, sent = found[how, rate]["seconds"], median(found[how, rate]["bytes"])
        row = (
            f"  {LABELS[how]:<10} {median(times):7.3f} s ({min(times):.3f} to {max(times):.3f}), DDP's by "
            f"{median(ddp['seconds']) / median(times):5.2f}   {sent / 1e6:8.1f} MB, DDP's by "
            f"{median(ddp['bytes']) / sent:5.2f}"
        )
        if rate is not None:
            unlimited = min(found[how, None]["seconds"])
            alone = min(unlimited, *found["none", None]["seconds"])
            forming = unlimited - alone if how == "factors" else 0.0
            model = max(unlimited, step_seconds(alone, 8 * sent / rate, hidden=hidden, forming=forming))
            off.append(abs(model / min(times) - 1))
            row += f"   model {model:7.3f} s ({model / min(times) - 1:+.0%})"
        print(row, flush=True)
    return max(off)


def on_one_host(net: str) -> float:
    """How many times as long as DDP's a step of two ranks on this host takes with the exchange that `auto` chooses."""
    ranks = Ranks(net, 2, None, ["allreduce:1", "auto:1"] * ROUNDS)
    try:
        ranks.measured()
        found: list[float] = []
        for _ in range(2 * ROUNDS):
            ranks.go_on()
            found.append(min(ranks.measured()["seconds"]))
        return min(found[1::2]) / min(found[::2])
    finally:
        ranks.stop()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that the hosts are taken down
    if (refused := missing()) is not None:
        print(f"No network namespaces ({refused}): over loopback. Bytes are right, times say nothing of a network.")
    results, off = [], []
    for net, size in itertools.product(("vgg_d", "alexnet"), (2, 4)):
        found, hidden = measure(net, size, apart=refused is None)
        worst = {rate: show(net, size, found, hidden, rate) for rate in dict.fromkeys(rate for _, rate in found)}
        off.append(worst.get(1e9, 0.0))
        results.append(found)
    slow = 1e9 if refused is None else None
    factors, ddp = (results[0][how, slow]["seconds"] for how in ("factors", "allreduce"))
    print(f"\nAt 1 Gb/s the model is off by at most {max(off):.0%}.")
    for net in ("vgg_d", "alexnet"):
        print(f"On one host, {net}: auto takes {on_one_host(net):.3f} times as long as DDP.")
    print(f"Global batch {GLOBAL_BATCH}, one thread a rank. VGG's sizes, 2 ranks{', 1 Gb/s' if slow else ''}:")
    report("exchange", factors, ddp, "s a step", ("factors", "DDP"))


if __name__ == "__main__":
    main()
