"""From Enter to the first training step: `alexvgg submit`, beside a bare Ray Train script that does the same step.

Both on the same local cluster, warm, in turn. Ours plans and checks first, then starts a driver's job and the
training's job on the cluster; the script starts its workers from this process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from processes import wait_for
from report import report

from cluster import local
from cluster.services import LocalCluster

ROUNDS, WORKERS = 3, 4

BARE = """
import sys, time
from pathlib import Path
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

def train(config):
    import torch
    from alexvgg.models import build
    net = prepare_model(build("vgg_a", num_classes=10, width=0.125, crop=32, dropout=0.0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(64 // config["workers"], 3, 32, 32), torch.zeros(64 // config["workers"], dtype=int)
    torch.nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()
    Path(config["log"]).write_text("step")

TorchTrainer(
    train, train_loop_config={"log": sys.argv[1], "workers": int(sys.argv[2])},
    scaling_config=ScalingConfig(num_workers=int(sys.argv[2]), placement_strategy="SPREAD"),
    run_config=RunConfig(storage_path=sys.argv[3]),
).fit()
"""


def first_step(folder: Path, command: list[str], environment: dict[str, str], stepped: Callable[[], bool]) -> float:
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(stepped, "the first step", 180)
    seconds = time.monotonic() - began
    assert process.wait() == 0
    return seconds


def ours(folder: Path, number: int) -> float:
    log = folder / f"log-{number}"
    command = [
        sys.executable, "-m", "alexvgg", "submit", "--model", "vgg_a", "--nodes", str(WORKERS), "--sample-log",
        str(log), "--set", "train.epochs=1", "--set", f"train.seed={number}", "--set", "test_scales=[[256]]",
    ]  # fmt: skip
    seconds = first_step(folder, command, dict(os.environ), lambda: any(f.stat().st_size for f in log.glob("*")))
    subprocess.run([sys.executable, "-m", "alexvgg", "logs", "-f"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return seconds


def bare(folder: Path, number: int, cluster: LocalCluster) -> float:
    log = folder / f"bare-{number}"
    environment = {**os.environ, **cluster.environment(), "RAY_ADDRESS": cluster.ray_address}
    command = [sys.executable, "-c", BARE, str(log), str(WORKERS), str(folder / "bare")]
    return first_step(folder, command, environment, log.exists)


with tempfile.TemporaryDirectory() as scratch:
    state = Path(scratch) / ".alexvgg"
    up = local.up(WORKERS, state=state)
    try:
        pairs = [(ours(Path(scratch), n), bare(Path(scratch), n, up)) for n in range(ROUNDS + 1)][1:]
    finally:
        local.down(state=state)
report("submit", [p[0] for p in pairs], [p[1] for p in pairs], "s", ("alexvgg submit", "bare Ray Train script"))
print(json.dumps({"promised": "at most 1.3 times the bare script's time"}))
