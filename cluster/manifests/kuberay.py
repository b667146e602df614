"""KubeRay (ray.io/v1, from 1.6 on): a cluster that stays, and a job that brings its own and takes it away again."""

from collections.abc import Mapping
from typing import Any

from cluster.manifests.spec import GPUS, ClusterSpec
from cluster.network import network_settings

Manifest = dict[str, Any]

CPUS_PER_GPU, GIB_PER_GPU = 8, 32  # that a worker asks for
HEAD_CPUS, HEAD_GIB = 2, 8
IDLE_SECONDS = 900
RETRIES = 3  # of a job, each on a new cluster; it goes on from its checkpoints
KEEP_SECONDS = 600  # a finished job's cluster, for its logs
STOP_SECONDS = 120  # between a pod's notice and its end: a checkpoint takes less
SETTINGS = "/home/ray/project"  # where a pod finds alexvgg.toml


def common(spec: ClusterSpec) -> list[Manifest]:
    """What both need: an identity for the pods, to which a role on AWS can be given, and the profile."""
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": spec.name}},
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": spec.name},
            "data": {"alexvgg.toml": spec.profile()},
        },
    ]  # fmt: skip


def ray_cluster(spec: ClusterSpec, environment: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": spec.name},
        "spec": _cluster(spec, environment),
    }  # fmt: skip


def ray_job(spec: ClusterSpec, environment: Mapping[str, str]) -> Manifest:
    """`spec.entrypoint` on a cluster of its own. In SidecarMode the head's pod submits, so nothing else can be lost."""
    return {
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": spec.name},
        "spec": {
            "entrypoint": f"cd {SETTINGS} && {spec.entrypoint}",
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
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": IDLE_SECONDS},
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0", "num-gpus": "0"}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "gpu-spot" if spec.spot else "gpu",
                "replicas": spec.nodes, "minReplicas": spec.nodes, "maxReplicas": spec.most_nodes,
                "rayStartParams": {},
                "template": worker,
            }
        ],
    }  # fmt: skip


def _pod(
    spec: ClusterSpec, name: str, cpus: int, gib: int, environment: Mapping[str, str], gpus: int = 0
) -> dict[str, Any]:
    resources = {"cpu": str(cpus), "memory": f"{gib}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container: dict[str, Any] = {
        "name": name,
        "image": spec.image,
        "env": [{"name": k, "value": v} for k, v in _variables(spec, environment).items()],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "settings", "mountPath": SETTINGS, "readOnly": True}],
    }
    pod: dict[str, Any] = {
        "serviceAccountName": spec.name,
        "restartPolicy": "Never",  # a lost pod is replaced by a new one, as autoscaler v2 and SidecarMode want it
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": {"name": spec.name}}],
    }
    if gpus:
        pod["nodeSelector"] = {"nvidia.com/gpu.product": GPUS[spec.gpu].product}
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if spec.spot:  # as Karpenter labels its machines
            pod["nodeSelector"]["karpenter.sh/capacity-type"] = "spot"
    return {"spec": pod}


def _variables(spec: ClusterSpec, environment: Mapping[str, str]) -> dict[str, str]:
    return {"AWS_DEFAULT_REGION": spec.region, **network_settings(environment)}
