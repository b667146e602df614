"""AWS policies that allow what a run needs and no more."""

import json
import re
from dataclasses import dataclass
from typing import Any

from cluster.manifests.spec import ClusterSpec, bucket_of

Policy = dict[str, Any]

# AWS's newest image of Ubuntu with NVIDIA's driver and Docker, by the name under which AWS publishes it
MACHINE_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


@dataclass(frozen=True)
class Registry:
    """Amazon's own container registry of one account."""

    host: str
    account: str
    region: str


def registry_of(spec: ClusterSpec) -> Registry | None:
    """Where the image lies, if Amazon has it and wants a login."""
    found = re.match(r"(\d+)\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?=/)", spec.image)
    return found and Registry(found[0], found[1], found[2])


def storage_policy(spec: ClusterSpec) -> Policy:
    """For every node: read the dataset, read and write the runs, each below its prefix only, and pull the image."""
    statements = [
        _list("ListDataset", spec.dataset), _list("ListRuns", spec.storage),
        _allow("ReadDataset", ["s3:GetObject"], _objects(spec.dataset)),
        _allow(
            "ReadAndWriteRuns", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            _objects(spec.storage),
        ),
    ]  # fmt: skip
    if (registry := registry_of(spec)) is not None:
        images = f"arn:aws:ecr:{registry.region}:{registry.account}:repository/*"
        statements += [
            _allow("LogInForImage", ["ecr:GetAuthorizationToken"], "*"),
            _allow("PullImage", ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], images),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def head_policy(spec: ClusterSpec) -> Policy:
    """For the head of `ray up`, besides: start machines, and end those of this cluster."""
    ec2 = f"arn:aws:ec2:{spec.region}:*"
    tagged = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": spec.name}}
    looks = ["ec2:DescribeInstances", "ec2:DescribeImages", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups",
             "ec2:DescribeKeyPairs", "ec2:DescribeInstanceTypes"]  # fmt: skip
    parameter = f"arn:aws:ssm:{spec.region}::parameter{MACHINE_IMAGE}"
    statements = [
        _allow("Look", looks, "*"),
        _allow("StartWorkers", ["ec2:RunInstances"], [f"{ec2}:*", f"arn:aws:ec2:{spec.region}::image/*"]),
        _allow("TagWorkers", ["ec2:CreateTags"], f"{ec2}:instance/*")
        | {"Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
        _allow("EndAndRetagWorkers", ["ec2:TerminateInstances", "ec2:CreateTags"], f"{ec2}:instance/*")
        | {"Condition": tagged},
        _allow("FindMachineImage", ["ssm:GetParameters"], parameter),
        _allow("GiveWorkersTheirRole", ["iam:PassRole"], f"arn:aws:iam::*:role/{spec.name}-worker"),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def policy_text(policy: Policy) -> str:
    return json.dumps(policy, indent=2) + "\n"


def _allow(sid: str, actions: list[str], resource: str | list[str]) -> Policy:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}


def _list(sid: str, url: str) -> Policy:
    # IfExists: opening a store asks S3 whether the bucket is there, which names no prefix.
    bucket, prefix = bucket_of(url)
    allowed = _allow(sid, ["s3:ListBucket"], f"arn:aws:s3:::{bucket}")
    return allowed | {"Condition": {"StringLikeIfExists": {"s3:prefix": [f"{prefix}/*"]}}} if prefix else allowed


def _objects(url: str) -> str:
    bucket, prefix = bucket_of(url)
    return f"arn:aws:s3:::{bucket}/{prefix}/*" if prefix else f"arn:aws:s3:::{bucket}/*"
