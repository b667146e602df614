"""`ray up` on AWS: a head that doesn't train and machines with GPUs, in Docker containers."""

from collections.abc import Mapping
from typing import Any

from alexvgg.errors import InputError
from cluster.manifests.iam import MACHINE_IMAGE, registry_of
from cluster.manifests.spec import GPUS, IDLE_MINUTES, ClusterSpec
from cluster.network import network_settings

HOME = "/home/ray"  # in the image: cluster/Dockerfile
HEAD_INSTANCE = "m6i.2xlarge"  # Ray Train keeps 0.8 GiB of processes there for each run that trains
DISK_GIB = 200  # the image takes 10
NVME, CACHE = "/opt/dlami/nvme", "/local/nvme"  # where AWS's image has a machine's own disks; where --cache finds them


def ray_cluster(spec: ClusterSpec, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `ray up` reads. Raises InputError if EC2 has no machine with such GPUs.

    The dashboard listens on the head's loopback: `ray dashboard` tunnels it. Ray's token comes from the file of
    whoever calls `ray up`, and no port but SSH's is open to the outside (Ray's own security group).
    """
    instance, cpus = _machine(spec)
    login = [] if (registry := registry_of(spec)) is None else [
        f"aws ecr get-login-password --region {registry.region} | "
        f"docker login --username AWS --password-stdin {registry.host}"
    ]  # fmt: skip
    workers: dict[str, Any] = _node(f"{spec.name}-worker", instance)
    if spec.spot:
        workers["InstanceMarketOptions"] = {"MarketType": "spot"}
    group = "gpu-spot" if spec.spot else "gpu"
    variables = {"RAY_AUTH_MODE": "token", "AWS_DEFAULT_REGION": spec.region, **network_settings(environment)}
    return {
        "cluster_name": spec.name,
        "max_workers": spec.most_nodes,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "aws", "region": spec.region, **({"availability_zone": spec.ec2_zone} if spec.zone else {}),
            "cache_stopped_nodes": False,
        },
        "auth": {"ssh_user": "ubuntu"},
        "docker": {
            "image": spec.image,
            "container_name": spec.name,
            "run_options": ["--ulimit nofile=65536:65536", *(f"--env {k}={v}" for k, v in variables.items())],
            "worker_run_options": ["--gpus all", f"--volume {NVME}:{CACHE}"],
        },
        "initialization_commands": login,
        "head_node_type": "head",
        "available_node_types": {
            "head": {
                "resources": {"CPU": 0, "GPU": 0},
                "node_config": _node(f"{spec.name}-head", HEAD_INSTANCE),
            },
            group: {
                "min_workers": 0, "max_workers": spec.most_nodes,
                "resources": {"CPU": cpus, "GPU": spec.gpus_per_node},
                "node_config": workers,
                # The disks are mounted while the machine boots.
                "initialization_commands": [
                    *login, "systemctl is-system-running --wait || true",
                    f"sudo mkdir -p {NVME} && sudo chown 1000:1000 {NVME}",
                ],
            },
        },
        "file_mounts": {f"{HOME}/.ray/auth_token": "~/.ray/auth_token"},
        "cluster_synced_files": [],
        "setup_commands": [f"chmod 600 {HOME}/.ray/auth_token"],
        "head_start_ray_commands": [
            "ray stop",
            "ray start --head --port=6379 --num-cpus=0 --num-gpus=0 --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml --disable-usage-stats",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            "ray start --address=$RAY_HEAD_IP:6379 --disable-usage-stats",
            *(["setsid --fork python -m cluster.spot > /tmp/spot.log 2>&1 < /dev/null"] if spec.spot else []),
        ],
    }  # fmt: skip


def _machine(spec: ClusterSpec) -> tuple[str, int]:
    instances = GPUS[spec.gpu]
    if spec.gpus_per_node not in instances:
        counts = " or ".join(map(str, instances))
        raise InputError(f"EC2 has {spec.gpu} by {counts} a machine, not by {spec.gpus_per_node}: --gpus-per-node")
    instance, cpus, _ = instances[spec.gpus_per_node]
    return instance, cpus


def _node(role: str, instance: str) -> dict[str, Any]:
    return {
        "InstanceType": instance,
        "ImageId": f"resolve:ssm:{MACHINE_IMAGE}",
        "IamInstanceProfile": {"Name": role},
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": DISK_GIB, "VolumeType": "gp3", "Encrypted": True}}
        ],
    }
