"""Which fields others' manifests may have, as their makers publish it; only of what we use."""

# KubeRay's API reference, ray.io/v1, at 1.6.2 (docs.ray.io/en/master/kuberay/references/api.html). Another kind's name
# stands for that kind, [Kind] for a list of it; str, int, bool, {} (any strings by name) and the Kubernetes kinds stand
# for themselves.
KUBERAY = {
    "RayCluster": {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": "RayClusterSpec"},
    "RayJob": {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": "RayJobSpec"},
    "RayJobSpec": {
        "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": "RayClusterSpec",
        "submitterPodTemplate": "V1PodTemplateSpec", "metadata": {}, "clusterSelector": {}, "managedBy": str,
        "entrypoint": str, "runtimeEnvYAML": str, "jobId": str, "submissionMode": str, "entrypointResources": str,
        "entrypointNumCpus": float, "entrypointNumGpus": float, "ttlSecondsAfterFinished": int,
        "preRunningDeadlineSeconds": int, "shutdownAfterJobFinishes": bool, "suspend": bool,
    },
    "RayClusterSpec": {
        "authOptions": "AuthOptions", "suspend": bool, "managedBy": str, "autoscalerOptions": "AutoscalerOptions",
        "headServiceAnnotations": {}, "enableInTreeAutoscaling": bool, "headGroupSpec": "HeadGroupSpec",
        "rayVersion": str, "workerGroupSpecs": ["WorkerGroupSpec"],
    },
    "AuthOptions": {"enableK8sTokenAuth": bool, "secretName": str, "mode": str},
    "AutoscalerOptions": {
        "resources": "V1ResourceRequirements", "image": str, "imagePullPolicy": str,
        "securityContext": "V1SecurityContext", "idleTimeoutSeconds": int, "upscalingMode": str, "version": str,
    },
    "HeadGroupSpec": {
        "template": "V1PodTemplateSpec", "headService": "V1Service", "enableIngress": bool, "resources": {},
        "labels": {}, "rayStartParams": {}, "serviceType": str,
    },
    "WorkerGroupSpec": {
        "suspend": bool, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int,
        "idleTimeoutSeconds": int, "resources": {}, "labels": {}, "rayStartParams": {},
        "template": "V1PodTemplateSpec", "numOfHosts": int,
    },
}  # fmt: skip
KUBERAY_VALUES = {
    "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
    "mode": {"disabled", "token"},
    "version": {"v1", "v2"},
}

# SkyPilot 0.14.1, sky/utils/schemas.py: get_task_schema and get_resources_schema.
SKYPILOT_TASK = {
    "config", "envs", "event_callback", "file_mounts", "inputs", "name", "num_nodes", "outputs", "pool", "resources",
    "run", "secrets", "service", "setup", "volumes", "workdir",
}  # fmt: skip
SKYPILOT_RESOURCES = {
    "accelerator_args", "accelerators", "any_of", "autostop", "cloud", "cpus", "disk_size", "disk_tier", "image_id",
    "infra", "instance_type", "job_recovery", "labels", "local_disk", "max_hourly_cost", "memory", "network_tier",
    "ordered", "ports", "priority", "region", "use_spot", "volumes", "zone",
}  # fmt: skip
