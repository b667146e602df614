"""KubeRay (ray.io/v1, from 1.6 on): a cluster that stays, and a job that brings its own and takes it away again."""

import shlex
from collections.abc import Mapping
from typing import Any

from alexvgg.errors import InputError
from alexvgg.exits import Exit
from cluster.manifests.spec import GPUS, IDLE_MINUTES, ClusterSpec
from cluster.network import network_settings

Manifest = dict[str, Any]

# What a worker asks for. Of CPUs it may use what its machine has, as nobody else gets at its GPUs: a limit would stop
# the whole pod for most of each tenth of a second in which it decodes.
CPUS_PER_GPU, GIB_PER_GPU = 8, 32
HEAD_CPUS, HEAD_GIB = 8, 32  # Ray Train keeps 0.8 GiB of processes there for each run that trains
RETRIES = 3  # of a job, on a new cluster; it goes on from its checkpoints
KEEP_SECONDS = 600  # the cluster of a job that has ended, for its logs
STOP_SECONDS = 120  # between a pod's notice and its end: a checkpoint takes less
DRAIN_SECONDS = 100  # of these, until Ray takes the node down; its own value is 30
SETTINGS = "/home/ray/.config/alexvgg"  # of the user as whom a pod runs: its config.toml holds the profile
CACHE = "/local/nvme"  # for --cache
# To move a pod that trains costs more than its machine: Karpenter and the Cluster Autoscaler leave it where it is. But
# a pod that Karpenter may not move isn't told either that its spot machine goes.
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
STAYS_WITH_KARPENTER = {"karpenter.sh/do-not-disrupt": "true"}
PLACE = "alexvgg/workers"  # label of the pods that exchange gradients


def common(spec: ClusterSpec) -> list[Manifest]:
    """What both need: identities for the pods, to which a role on AWS can be given, and the profile.

    The head's gets rights from KubeRay, to add and remove pods; the workers' has none.
    """
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": spec.name}},
        {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _workers(spec)},
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": spec.name},
            "data": {"alexvgg.toml": spec.profile(grows=True)},
        },
    ]  # fmt: skip


def ray_cluster(spec: ClusterSpec, environment: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": spec.name},
        "spec": _cluster(spec, environment),
    }  # fmt: skip


def ray_job(spec: ClusterSpec, environment: Mapping[str, str]) -> Manifest:
    """`spec.entrypoint` on a cluster of its own. In SidecarMode the head's pod submits, so nothing else can be lost.

    KubeRay writes the entrypoint as it is into a script, after `ray job submit --`: it has to be one command, quoted.
    One that was stopped counts as done, or KubeRay would begin it again. One that failed waits before it says so: with
    the next try KubeRay takes the cluster away, and its logs with it.
    """
    failed = f"{Exit.JOB_FAILED}|{Exit.REFUSED}) sleep {KEEP_SECONDS}"
    command = f"{spec.entrypoint}; end=$?; case $end in {Exit.JOB_STOPPED}) exit 0;; {failed};; esac; exit $end"
    return {
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": spec.name},
        "spec": {
            "entrypoint": f"bash -c {shlex.quote(command)}",
            "submissionMode": "SidecarMode",
            "backoffLimit": RETRIES,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "rayClusterSpec": _cluster(spec, environment),
        },
    }  # fmt: skip


def _cluster(spec: ClusterSpec, environment: Mapping[str, str]) -> Manifest:
    gpus = spec.gpus_per_node
    head = _pod(spec, "ray-head", HEAD_CPUS, HEAD_GIB, environment)
    worker = _pod(spec, "ray-worker", CPUS_PER_GPU * gpus, GIB_PER_GPU * gpus, environment, gpus=gpus)
    return {
        "rayVersion": spec.ray,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 60 * IDLE_MINUTES},
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0", "num-gpus": "0"}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "gpu-spot" if spec.spot else "gpu",
                "replicas": 0, "minReplicas": 0, "maxReplicas": spec.most_nodes,
                "rayStartParams": {"num-cpus": str(CPUS_PER_GPU * gpus)},
                "template": worker,
            }
        ],
    }  # fmt: skip


def _pod(
    spec: ClusterSpec, name: str, cpus: int, gib: int, environment: Mapping[str, str], gpus: int = 0
) -> dict[str, Any]:
    limits = {"memory": f"{gib}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {"cpu": str(cpus)})
    variables = {"AWS_DEFAULT_REGION": spec.region, **network_settings(environment)}
    settings = {"name": spec.name, "items": [{"key": "alexvgg.toml", "path": "config.toml"}]}
    container: dict[str, Any] = {
        "name": name,
        "image": spec.image,
        "env": [{"name": k, "value": v} for k, v in variables.items()],
        "resources": {"requests": {"cpu": str(cpus), **limits}, "limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "settings", "mountPath": SETTINGS, "readOnly": True}],
    }
    about: dict[str, Any] = {"annotations": STAYS | ({} if gpus and spec.spot else STAYS_WITH_KARPENTER)}
    pod: dict[str, Any] = {
        "serviceAccountName": spec.name,
        "restartPolicy": "Never",  # a lost pod is replaced by a new one, as autoscaler v2 and SidecarMode want it
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": settings}],
    }  # fmt: skip
    if gpus:
        pod["serviceAccountName"] = _workers(spec)
        container["env"].append({"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(DRAIN_SECONDS)})
        container["volumeMounts"].append({"name": "cache", "mountPath": CACHE})
        pod["volumes"].append({"name": "cache", "emptyDir": {}})
        pod["nodeSelector"] = _machines(spec)
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        about["labels"] = {PLACE: spec.name}
        pod["affinity"] = {"podAffinity": _near(spec)}
    elif spec.spot:
        pod["nodeSelector"] = {"karpenter.sh/capacity-type": "on-demand"}  # all jobs end with the head
    return {"metadata": about, "spec": pod}


def _near(spec: ClusterSpec) -> dict[str, Any]:
    """Workers of one zone, as far as that has machines: between zones bandwidth is less, and each gigabyte is paid."""
    term = {
        "labelSelector": {"matchLabels": {PLACE: spec.name}},
        "topologyKey": "topology.kubernetes.io/zone",
    }
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _workers(spec: ClusterSpec) -> str:
    """Their ServiceAccount."""
    return f"{spec.name}-worker"


def _machines(spec: ClusterSpec) -> dict[str, str]:
    """The labels of machines for workers, by which an autoscaler finds them before there is one: not those of its GPUs.

    Raises InputError if EC2 has none with so many GPUs.
    """
    machines, zone = GPUS[spec.gpu], {"topology.kubernetes.io/zone": spec.zone} if spec.zone else {}
    spot = {"karpenter.sh/capacity-type": "spot"} if spec.spot else {}
    enough = [count for count in machines if count >= spec.gpus_per_node]
    if not enough:
        raise InputError(f"EC2 has at most {max(machines)} {spec.gpu} a machine: --gpus-per-node")
    instance, _, _ = machines[min(enough)]
    return {"node.kubernetes.io/instance-type": instance, **spot, **zone}
