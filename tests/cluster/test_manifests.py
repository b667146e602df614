"""What is written for clusters elsewhere, held against what those who read it publish."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import botocore.validate
import pytest
import yaml
from click.testing import CliRunner
from cluster_published import KUBERAY, KUBERAY_VALUES, SKYPILOT_RESOURCES, SKYPILOT_TASK
from kubernetes.client import ApiClient
from moto import mock_aws

from alexvgg.cli import main
from alexvgg.config import from_dict
from alexvgg.data.plan import MAX_LANES
from alexvgg.errors import InputError
from alexvgg.profiles import settings_of, to_profile, user_file
from cluster.manifests.files import render
from cluster.manifests.iam import head_policy, policy_text, storage_policy
from cluster.manifests.spec import GPUS, MOST_WORKERS, ClusterSpec
from cluster.network import SETTINGS, describe, network_settings, notice_seconds

ROOT = Path(__file__).parents[2]
SPEC = ClusterSpec(nodes=2, max_nodes=8, spot=True, image="registry.example/alexvgg:0.1.0", ray="2.60.0")
FIXED = ClusterSpec(nodes=2, gpu="L4", gpus_per_node=4, image="registry.example/alexvgg:0.1.0", ray="2.60.0")
SPECS = {"aws": SPEC, "kuberay": SPEC, "skypilot": FIXED}


def documents(target: str, name: str, spec: ClusterSpec | None = None) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render(target, spec or SPECS[target], {})[name]))


@pytest.mark.parametrize("target", SPECS)
def test_the_files_are_as_reviewed(target: str, golden: Callable[[str, str], None]) -> None:
    files = render(target, SPECS[target], {})
    shared = {"alexvgg.toml", "iam-storage.json", "grafana.json"}
    assert shared < set(files)
    for name, text in files.items():
        if name not in shared or target == "aws":
            golden(f"cluster-{name}" if name in shared else f"{target}-{name}", text)


@pytest.mark.parametrize(("spot", "zone"), [(True, None), (False, "us-east-1b")])
def test_ray_takes_the_aws_manifest(spot: bool, zone: str | None) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("aws", "cluster.yaml", ClusterSpec(spot=spot, zone=zone))
    validate_config(config)
    whole = prepare_config(config)  # filled up by Ray's defaults for AWS
    validate_config(whole)
    head, (workers,) = (
        whole["available_node_types"]["head"],
        [group for name, group in whole["available_node_types"].items() if name != "head"],
    )
    assert head["resources"] == {"CPU": 0, "GPU": 0}, "the head doesn't train"
    assert workers["resources"]["GPU"] == 8
    assert (workers["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}) == spot


def test_amazons_own_registry_gets_a_login() -> None:
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    spec = ClusterSpec(image=f"{host}/alexvgg:0.1.0")
    (config,) = documents("aws", "cluster.yaml", spec)
    for commands in (
        config["initialization_commands"],
        config["available_node_types"]["gpu"]["initialization_commands"],
    ):
        assert commands[0].endswith(f"docker login --username AWS --password-stdin {host}")
    (pull,) = [s for s in storage_policy(spec)["Statement"] if s["Sid"] == "PullImage"]
    assert pull["Resource"] == "arn:aws:ecr:eu-west-1:123456789012:repository/*"
    assert documents("aws", "cluster.yaml")[0]["initialization_commands"] == []


@pytest.mark.parametrize(("gpu", "count"), [(gpu, count) for gpu, kind in GPUS.items() for count in kind])
def test_ec2_takes_the_machines(gpu: str, count: int) -> None:
    (config,) = documents("aws", "cluster.yaml", ClusterSpec(gpu=gpu, gpus_per_node=count))
    model = boto3.client("ec2", region_name="us-east-1").meta.service_model
    shape = model.operation_model("RunInstances").input_shape
    for group in config["available_node_types"].values():
        asked = {**group["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not botocore.validate.ParamValidator().validate(asked, shape).has_errors()
        known = model.shape_for("InstanceType").enum
        assert asked["InstanceType"] in known


def check_kuberay(kind: Any, value: Any, where: str) -> None:
    """Every field of `value` is one that `kind` has, and of its type."""
    if isinstance(kind, list):
        for n, item in enumerate(value):
            check_kuberay(kind[0], item, f"{where}[{n}]")
    elif isinstance(kind, str) and kind in KUBERAY:
        for field, inner in value.items():
            assert field in KUBERAY[kind], f"{where} has no field {field}"
            check_kuberay(KUBERAY[kind][field], inner, f"{where}.{field}")
            assert inner in KUBERAY_VALUES.get(field, {inner} if not isinstance(inner, dict | list) else [inner])
    elif isinstance(kind, str):
        check_kubernetes(kind, value)
    elif kind == {}:
        assert all(isinstance(v, str) for v in value.values()), f"{where} holds more than text"
    else:
        assert type(value) is kind, f"{where} is {value!r}"


def check_kubernetes(kind: str, value: dict[str, Any]) -> None:
    """The Kubernetes client's model holds everything that we wrote: a field that it doesn't know would be lost."""
    client = ApiClient()
    model = client.deserialize(json.dumps(value), kind, "application/json")
    assert client.sanitize_for_serialization(model) == value


def test_kuberay_and_kubernetes_know_every_field() -> None:
    (cluster,), (job,) = documents("kuberay", "raycluster.yaml"), documents("kuberay", "rayjob.yaml")
    check_kuberay("RayCluster", cluster, "RayCluster")
    check_kuberay("RayJob", job, "RayJob")
    *accounts, settings = documents("kuberay", "common.yaml")
    for account in accounts:
        check_kubernetes("V1ServiceAccount", account)
    check_kubernetes("V1ConfigMap", settings)


def test_a_misspelt_field_would_be_found() -> None:
    (job,) = documents("kuberay", "rayjob.yaml")
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["restartPolitics"] = "Never"
    with pytest.raises(AssertionError):
        check_kuberay("RayJob", job, "RayJob")
    with pytest.raises(AssertionError, match="no field ttlSeconds"):
        check_kuberay("RayJob", {"spec": {"ttlSeconds": 5}}, "RayJob")


def test_kuberays_rules_for_a_job_in_a_sidecar_are_kept() -> None:
    (job,) = documents("kuberay", "rayjob.yaml")
    spec = job["spec"]
    assert not {"clusterSelector", "submitterPodTemplate", "submitterConfig"} & set(spec)
    cluster = spec["rayClusterSpec"]
    assert cluster["headGroupSpec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head doesn't train"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["workerGroupSpecs"][0]["minReplicas"] == 0, "no GPU waits for work"
    assert cluster["workerGroupSpecs"][0]["maxReplicas"] == 8


@pytest.mark.parametrize(
    ("code", "counts_as", "waits"), [(0, 0, ""), (1, 1, ""), (2, 2, "600"), (100, 100, "600"), (103, 0, "")]
)
def test_a_jobs_command_may_hold_anything_and_a_stop_ends_it(
    tmp_path: Path, code: int, counts_as: int, waits: str
) -> None:
    """Through both shells that it meets: KubeRay's script, and that of the job which Ray makes of the words in it.

    After a failure its logs can be read for a while.
    """
    (tmp_path / "sleep").write_text('#!/bin/bash\nprintf "%s" "$1" >&2\n')
    (tmp_path / "sleep").chmod(0o755)
    (tmp_path / "alexvgg").write_text(f'#!/bin/bash\nprintf "<%s>" "$@"\nexit {code}\n')
    (tmp_path / "alexvgg").chmod(0o755)
    command = 'for i in {a..b}; do alexvgg reproduce "${TABLE}  $i" --nodes {nodes} --set \'x="y"\'; done'
    (job,) = documents("kuberay", "rayjob.yaml", ClusterSpec(command=command))
    submit = shlex.join([sys.executable, "-c", "import shlex, sys; print(shlex.join(sys.argv[1:]))"])
    script = f"{submit} -- {job['spec']['entrypoint']} ;"
    joined = subprocess.run(["bash", "-ce", script], capture_output=True, text=True, check=True).stdout
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TABLE": "table4"}
    done = subprocess.run(["bash", "-c", joined[3:]], env=environment, capture_output=True, text=True)
    assert done.stdout == "".join(f'<reproduce><table4  {i}><--nodes><4><--set><x="y">' for i in "ab"), done.stderr
    assert (done.returncode, done.stderr) == (counts_as, waits)


def test_a_pod_finds_the_profile_as_its_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ray")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (job,) = documents("kuberay", "rayjob.yaml")
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,), (volume,) = pod["containers"][0]["volumeMounts"], pod["volumes"]
    (item,) = volume["configMap"]["items"]
    assert user_file() == Path(mount["mountPath"]) / item["path"]


def test_an_autoscaler_can_find_machines_that_have_no_gpus_yet() -> None:
    def labels(**described: Any) -> Any:
        (cluster,) = documents("kuberay", "raycluster.yaml", ClusterSpec(**described))
        return cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"]

    machine = {"node.kubernetes.io/instance-type": "g6.12xlarge"}
    assert labels(gpu="L4", gpus_per_node=2) == machine
    assert labels(gpu="L4", gpus_per_node=2, spot=True) == machine | {"karpenter.sh/capacity-type": "spot"}
    with pytest.raises(InputError, match="EC2 has at most 8 L4 a machine"):
        labels(gpu="L4", gpus_per_node=16)


def test_a_pod_that_trains_uses_its_machines_cpus_and_stays() -> None:
    spec = replace(SPEC, zone="us-east-1b")
    (cluster,) = documents("kuberay", "raycluster.yaml", spec)
    (group,), head = cluster["spec"]["workerGroupSpecs"], cluster["spec"]["headGroupSpec"]["template"]
    worker = group["template"]
    resources = worker["spec"]["containers"][0]["resources"]
    assert "cpu" not in resources["limits"], "whose quota would stop it"
    assert group["rayStartParams"]["num-cpus"] == resources["requests"]["cpu"] == "64"
    (steady,) = documents("kuberay", "raycluster.yaml", replace(SPEC, spot=False))
    for pod in (head, worker, steady["spec"]["workerGroupSpecs"][0]["template"]):
        kept = pod["metadata"]["annotations"]
        assert kept["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        moved = pod is worker  # or nobody would tell it that its spot machine goes
        assert ("karpenter.sh/do-not-disrupt" in kept) != moved
    assert head["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    (near,) = worker["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = near["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert labels.items() <= worker["metadata"]["labels"].items(), "it is near its own kind"
    assert worker["spec"]["nodeSelector"]["topology.kubernetes.io/zone"] == "us-east-1b"
    assert (
        "europe-west4-a" in render("kuberay", replace(SPEC, spot=False, zone="europe-west4-a"), {})["raycluster.yaml"]
    )


def test_a_zone_is_every_machines() -> None:
    (aws,) = documents("aws", "cluster.yaml", replace(SPEC, zone="us-east-1b"))
    assert aws["provider"]["availability_zone"] == "us-east-1b"
    (task,) = documents("skypilot", "task.yaml", replace(FIXED, zone="us-east-1b"))
    assert task["resources"]["infra"] == "aws/us-east-1/us-east-1b"


def test_skypilot_knows_every_field() -> None:
    (task,) = documents("skypilot", "task.yaml")
    assert set(task) <= SKYPILOT_TASK
    assert set(task["resources"]) <= SKYPILOT_RESOURCES
    assert all(isinstance(v, str) for v in task["envs"].values())
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}, "given when it is launched, never written"


def test_aws_takes_the_policies() -> None:
    with mock_aws():
        iam = boto3.client("iam", region_name="us-east-1")
        for name, policy in (("storage", storage_policy(SPEC)), ("head", head_policy(SPEC))):
            iam.create_policy(PolicyName=name, PolicyDocument=policy_text(policy))
    for statement in storage_policy(SPEC)["Statement"]:
        assert re.fullmatch(r"arn:aws:s3:::my-bucket(/(alexvgg|imagenet)/\*)?", statement["Resource"])
    whole = storage_policy(ClusterSpec(dataset="s3://my-images"))["Statement"]
    assert {s["Resource"] for s in whole if "Dataset" in s["Sid"]} == {
        "arn:aws:s3:::my-images",
        "arn:aws:s3:::my-images/*",
    }


@pytest.mark.parametrize("target", SPECS)
def test_nothing_secret_is_written_and_health_checks_can_be_set(target: str) -> None:
    shell = {"AWS_SECRET_ACCESS_KEY": "canary", "RAY_AUTH_TOKEN": "canary", "RAY_health_check_period_ms": "2345"}
    text = "".join(render(target, SPECS[target], shell).values())
    assert "canary" not in text
    assert "2345" in text


def test_a_silent_node_is_noticed_within_20_seconds() -> None:
    assert notice_seconds(network_settings({})) <= 20
    assert set(network_settings({})) == set(SETTINGS)
    assert describe(network_settings({})) == ("a silent node is noticed within 18 s, a silent worker within 180 s")
    assert describe(network_settings({"RAY_health_check_period_ms": "2000"})).endswith(
        "within 21 s, a silent worker within 180 s (RAY_health_check_period_ms=2000)"
    )


@pytest.mark.parametrize("target", ["kuberay", "skypilot"])
def test_a_job_that_submit_would_refuse_is_refused(target: str) -> None:
    spec = replace(SPECS[target], nodes=16, max_nodes=None, gpu="A100", gpus_per_node=8)
    with pytest.raises(InputError, match=r"128 workers are more than the 64 .* Use at most 8 nodes, or a --command"):
        render(target, spec, {})
    assert MOST_WORKERS == MAX_LANES
    own = replace(spec, command="alexvgg submit --nodes 8 --wait")
    assert "--nodes 8 " in "".join(render(target, own, {}).values())
    assert render("aws", replace(spec, image="r/alexvgg"), {}), "a cluster that several submissions share"


def test_the_profile_is_one_that_submit_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("alexvgg.toml")
    path.write_text(render("aws", SPEC, {})["alexvgg.toml"])
    profile = to_profile(settings_of("alexvgg"))
    assert (profile.storage, profile.gpus_per_node, profile.gpu) == ("s3://my-bucket/alexvgg", 8, "A100")
    assert profile.max_nodes == 8
    path.write_text(render("skypilot", FIXED, {})["alexvgg.toml"])
    assert to_profile(settings_of("alexvgg")).max_nodes is None, "its machines are a fixed number"
    for gpu, kind in GPUS.items():
        path.write_text(ClusterSpec(gpu=gpu, gpus_per_node=max(kind)).profile(grows=False))
        assert to_profile(settings_of("alexvgg")).gpu == gpu
    path.write_text(SPEC.profile(grows=True))
    settings = documents("kuberay", "common.yaml")[-1]["data"]["alexvgg.toml"]
    assert tomllib.loads(settings) == tomllib.loads(path.read_text())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"gpu": "A1000"}, "there is no GPU 'A1000' here; known are T4,"),
        ({"gpu": "A100", "gpus_per_node": 3}, "EC2 has A100 by 8 a machine, not by 3"),
        ({"nodes": 4, "max_nodes": 2}, "--nodes 4:2 is empty"),
        ({"zone": "eu-west-1a"}, "eu-west-1a is no zone of us-east-1, as us-east-1a is one"),
        ({"zone": "us-east-1"}, "us-east-1 is no zone of us-east-1"),
        ({"name": "My VGG"}, "name must be small letters, digits and -, a letter first, at most 40, not 'My VGG'"),
        ({"storage": "s3://a/b"}, "storage must be s3://BUCKET/PREFIX without a / at the end, with a bucket's name"),
        ({"zone": "us east"}, "zone must be a zone, e.g. eu-central-1a, not 'us east'"),
        ({"nodes": 0}, "nodes: Input should be greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        render("aws", from_dict(ClusterSpec, wrong), {})


def test_the_command_writes_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "k8s"
    done = CliRunner().invoke(main, ["cluster", "render", "kuberay", "--nodes", "2:8", "--spot", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    assert {Path(line).name for line in done.stdout.splitlines()} == {p.name for p in folder.iterdir()}
    (cluster,) = yaml.safe_load_all((folder / "raycluster.yaml").read_text())
    assert cluster["spec"]["workerGroupSpecs"][0]["maxReplicas"] == 8
    assert f"kubectl apply -f {folder}/common.yaml" in done.stderr
    refused = CliRunner().invoke(main, ["cluster", "render", "skypilot", "--nodes", "2:8", "-o", str(tmp_path / "s")])
    assert refused.exit_code == 2
    assert "a fixed number of machines" in refused.stderr
    assert not (tmp_path / "s").exists()


def test_the_image_is_built_from_what_is_here() -> None:
    lines = (ROOT / "cluster/Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    allowed = (ROOT / "cluster/Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in allowed if line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied)
    assert lines.index("USER ray") < len(lines) - 1, "nothing runs as root"
