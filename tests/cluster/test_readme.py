"""Every command of the README, as it is written there, on a real cluster and a tiny ILSVRC2012."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made import ilsvrc, image

from alexvgg.data.store import create_bucket
from cluster.services import LocalCluster

README = Path(__file__).parents[2] / "README.md"
BIN = Path(sys.executable).parent
# .ci/run does what a newcomer does; importing and indexing have tests of their own; the image was never built.
ELSEWHERE = {
    "git clone <this repository> alexvgg && cd alexvgg", "make demo", "make test", "alexvgg cluster down",
    "alexvgg import torchvision:vgg11 vgg11.pth", "alexvgg data index URL",
    "docker build -f cluster/Dockerfile -t REGISTRY/alexvgg:0.1.0 .",
}  # fmt: skip
SHORT = "--set train.epochs=1 --set test_scales=[[256]]"


def lines() -> set[str]:
    """What stands after a `$`, and the calls of the numbered steps' prose."""
    text = README.read_text()
    blocks = re.findall(r"^ *```console\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    typed = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]
    steps = re.findall(r"^\d\. .*?(?=^\d\. |^#)", text, re.DOTALL | re.MULTILINE)
    inline = [" ".join(call.split()) for step in steps for call in re.findall(r"`(alexvgg [^`]* [^`]+)`", step)]
    return {line.removeprefix("$ ") for line in typed} | set(inline)


class Reader:
    """Types the README's lines in the cluster's folder: `places` stand for the names in them, `runs` for each RUN."""

    def __init__(self, folder: Path, environment: dict[str, str], places: dict[str, str]) -> None:
        self.left, self.runs = lines() - ELSEWHERE, ["RUN"]
        self._folder, self._environment, self._places = folder, environment, places

    def types(self, line: str, more: str = "", *, code: int = 0, **environment: str) -> str:
        """What it says, without and with `more` behind it."""
        done = self._start(line, more, environment)
        said, _ = done.communicate()
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said

    def watches(self, line: str, until: str, **environment: str) -> None:
        """Types it, waits for a word, and presses Ctrl-C."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise
        with self._start(line, "", environment) as process:
            assert process.stdout is not None
            assert any(until in shown for shown in process.stdout)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(30) != 0

    def _start(self, line: str, more: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
        assert line in lines(), "the README says it otherwise"
        self.left.discard(line)
        for name, here in self._places.items():
            line = line.replace(name, here)
        runs = itertools.cycle(self.runs)
        line = re.sub(r"\bRUN\b", lambda _: next(runs), line)
        return subprocess.Popen(
            f"{line} {more}", shell=True, cwd=self._folder, env=self._environment | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def reader(project: Path, local_cluster: LocalCluster, tmp_path: Path) -> Reader:
    config = tmp_path / "config" / "alexvgg" / "config.toml"
    config.parent.mkdir(parents=True)
    about = {"dashboard": local_cluster.dashboard_url, "mlflow": local_cluster.mlflow_url, "gpu": "H100"}
    about |= {"storage": "s3://my-bucket/alexvgg", "dataset": "s3://my-bucket/imagenet"}
    table = [f"{key} = {json.dumps(value)}" for key, value in about.items()]
    config.write_text("\n".join(["[profile.lab]", "gpus_per_node = 8", *table, ""]))
    create_bucket("s3://my-bucket")
    ilsvrc(tmp_path / "data" / "ILSVRC2012")
    (tmp_path / "cat.jpg").write_bytes(image(0))
    places = {"/data/": f"{tmp_path}/data/", "file:///tmp/": f"{tmp_path.as_uri()}/", "cat.jpg": f"{tmp_path}/cat.jpg"}
    places |= {"-o report.html": f"-o {tmp_path}/report.html"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS", "RAY"))}
    path = {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(config.parents[1])}
    return Reader(project, kept | local_cluster.environment() | path, places)


def test_the_readme(reader: Reader) -> None:
    imagenet_on_your_cluster(reader)
    # The same on the local cluster, with these images in place of the digits.
    use(reader, {"ALEXVGG_STORAGE": "s3://my-bucket/alexvgg", "ALEXVGG_DATASET": "s3://my-bucket/imagenet"})
    without_ray(reader)
    a_cluster_elsewhere(reader)
    assert reader.left == set()


def imagenet_on_your_cluster(reader: Reader) -> None:
    assert "31 train images" in reader.types("alexvgg data pack /data/ILSVRC2012 s3://my-bucket/imagenet")
    assert ": intact; 46 samples" in reader.types("alexvgg data verify s3://my-bucket/imagenet")
    assert "Bottleneck" in reader.types("alexvgg data bench s3://my-bucket/imagenet --workers 8", "--seconds 1")
    plan = reader.types(
        "alexvgg submit --model vgg_e --nodes 4 --profile lab --cache /local/nvme --cache-bytes 200GiB", "--dry-run"
    )
    assert "2 of 2 runs to train on 4 nodes, 32 workers (1 GPU each)" in plan
    assert "none of 5 nodes has 8 GPUs" in reader.types("alexvgg doctor --profile lab", code=1)
    assert "2 to 8 nodes" in reader.types("alexvgg reproduce all --profile lab --nodes 2:8 --dry-run")
    assert "to train on 2 to 8 nodes" in reader.types("alexvgg reproduce table4 --nodes 2:8 --profile lab", "--dry-run")


def use(reader: Reader, places: dict[str, str]) -> None:
    def types(line: str, more: str = "", code: int = 0) -> str:
        return reader.types(line, more, code=code, **places)

    assert "143,667,240" in types("alexvgg models")
    assert "vgg_e-jitter" in types("alexvgg recipe table4")
    assert "up with 4 nodes" in types("alexvgg cluster up --nodes 4")
    assert "Plan: 2 of 2 runs to train on 4 nodes" in types("alexvgg submit --model vgg_e --nodes 4 --dry-run")
    assert "31 images" in types("alexvgg data stat")
    plan = json.loads(types("alexvgg submit --model vgg_e --nodes 4 --dry-run", "--json 2>/dev/null"))
    reader.runs = [run["name"] for run in plan["runs"]]
    a, e = reader.runs
    assert f"Submitted {e}-d1" in types("alexvgg submit --model vgg_e --nodes 4")
    reader.watches("alexvgg status --watch", until=a, **places)
    assert "2 of 2 runs are finished" in types("alexvgg logs -f")
    assert "rank 3 has printed nothing" in types("alexvgg logs vgg_e-s256 --rank 3")
    assert f"{e}-d1 had ended already" in types("alexvgg stop")
    assert f"all of {e} is finished" in types("alexvgg resume vgg_e-s256", code=2)
    assert f"`{e}`" in types("alexvgg table table4 --format markdown")
    assert r"\begin{tabular}" in types("alexvgg table ablations --format latex")
    assert "model.name" in types("alexvgg compare RUN RUN")
    assert a in types("alexvgg lineage RUN")
    assert "2 runs" in types("alexvgg report -o report.html")
    both = types("alexvgg evaluate RUN RUN --method both --test-scales 256,384,512 --fuse")
    assert f"{a} at Q=256,384,512 + {e} at Q=256,384,512, both: top-1 error" in both
    assert "can't hold a net of width 0.125" in types("alexvgg export RUN --format torchvision", code=2)
    assert "tench" in types("alexvgg predict RUN cat.jpg")
    assert "a model, not a measurement" in types("alexvgg plan scaling --model vgg_e --gpus 1..512 --link 25Gb")
    assert "4 of 4 have a CPU for a worker" in types("alexvgg doctor")
    assert "ALEXVGG_STORAGE" in types("alexvgg config show")


def without_ray(reader: Reader) -> None:
    reader.types("alexvgg data sample digits file:///tmp/digits")
    places = "--dataset file:///tmp/digits --storage file:///tmp/runs --geometry small"
    assert ": epoch 1/1, step 23, loss" in reader.types(f"alexvgg train vgg_a-s256 {places}", SHORT)
    torchrun = f"torchrun --nproc-per-node 2 -m alexvgg train vgg_b-s256 {places}"
    assert "is finished; its results lie in" in reader.types(torchrun, SHORT)
    assert re.search(r"vgg_b +256 .* vgg_b-s256-", reader.types(f"alexvgg table table3 {places}"))


def a_cluster_elsewhere(reader: Reader) -> None:
    aws = "--spot --image REGISTRY/alexvgg:0.1.0 --storage s3://lab/alexvgg --dataset s3://lab/imagenet"
    assert "ray up" in reader.types(f"alexvgg cluster render aws --nodes 4 --gpu A100 {aws}")
    kuberay = "alexvgg cluster render kuberay --nodes 2:8 --gpu H100 --image REGISTRY/alexvgg:0.1.0"
    assert "kubectl" in reader.types(kuberay)
    assert "sky jobs launch" in reader.types("alexvgg cluster render skypilot --nodes 2 --gpu L4 --gpus-per-node 4")
