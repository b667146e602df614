"""`alexvgg cluster render`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alexvgg.cli.parameters import NodeRange
from alexvgg.cli.progress import say

if TYPE_CHECKING:
    from cluster.manifests.files import Target
    from jobs.submission import Nodes

TARGETS = ("aws", "kuberay", "skypilot")

# What to do with the files.
NEXT = {
    "aws": """Then, with roles and instance profiles {name}-head (both policies) and {name}-worker (iam-storage.json):
  export RAY_AUTH_MODE=token
  (umask 077; ray get-auth-token --generate > /dev/null)   # once: ~/.ray/auth_token is the cluster's token, too
  ray up {folder}/cluster.yaml && ray dashboard {folder}/cluster.yaml
Add {folder}/alexvgg.toml to yours and submit with --profile {name}; `ray down {folder}/cluster.yaml` ends it.
An account's first spot machine needs `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`.
`alexvgg data pack --nodes` writes the dataset, which iam-storage.json only lets nodes read.
Ray's default security group lets any address try SSH: narrow it, or name yours in the file's `security_group`.""",
    "kuberay": """Then, with KubeRay 1.6 or newer and NVIDIA's device plugin in the cluster, and Karpenter for --spot:
  kubectl apply -f {folder}/common.yaml
  kubectl annotate serviceaccount {name} {name}-worker eks.amazonaws.com/role-arn=ROLE   # of iam-storage.json, on EKS
  kubectl apply -f {folder}/rayjob.yaml       # one job, on a cluster of its own; again: kubectl delete rayjob {name}
  kubectl apply -f {folder}/raycluster.yaml   # or a cluster to submit to:
  export RAY_AUTH_MODE=token
  export RAY_AUTH_TOKEN="$(kubectl get secret {name} -o jsonpath='{{.data.auth_token}}' | base64 -d)"
  kubectl port-forward service/{name}-head-svc 8265 &
Add {folder}/alexvgg.toml to yours and submit with --profile {name}; `kubectl delete raycluster {name}` ends it.
Workers' nodeSelector names EC2's instance type, by which autoscalers find machines; elsewhere write your machines'.""",
    "skypilot": """Then, in the repository, after adding {folder}/alexvgg.toml to its alexvgg.toml:
  export RAY_AUTH_TOKEN="$(openssl rand -hex 32)"
  sky jobs launch --secret RAY_AUTH_TOKEN {folder}/task.yaml
Its machines go when it ends; `sky jobs cancel -n {name}` ends it.""",
}


@click.command()
@click.argument("target", type=click.Choice(TARGETS))
@click.option("--nodes", type=NodeRange(), help="Machines that train; with a range the cluster grows. Default: 4.")
@click.option("--gpu", help="Their kind of GPU, e.g. T4, L4, A10G, L40S, A100, A100-80GB, H100. Default: A100.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="Default: 8.")
@click.option("--spot", is_flag=True, help="Cheaper machines that may be taken away.")
@click.option("--image", help="Container image built from cluster/Dockerfile, where the nodes can pull it.")
@click.option("--region", help="Of AWS. Default: us-east-1.")
@click.option("--zone", help="For all machines, e.g. us-east-1a: between zones each gigabyte is paid.")
@click.option("--storage", help="S3 URL of the runs.")
@click.option("--dataset", help="S3 URL of the dataset.")
@click.option("--name", help="Of the cluster, of its profile and roles. Default: alexvgg.")
@click.option("--command", help="What a KubeRay or SkyPilot job runs. {nodes} and {name} are replaced.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; default: alexvgg-TARGET.",
)
@click.option("--force", is_flag=True, help="Overwrite files there that say something else.")
def render(
    target: Target, nodes: Nodes | None, output: Path | None, force: bool, **described: str | int | bool | None
) -> None:
    """Write the manifests of a cluster on AWS (`ray up`), Kubernetes (KubeRay) or any cloud (SkyPilot).

    With them come the profile to submit with, IAM policies and a Grafana dashboard. Nothing is started and nothing
    written is secret.

    \b
    Examples:
      alexvgg cluster render aws --nodes 4 --gpu A100 --spot --storage s3://lab/alexvgg --dataset s3://lab/imagenet
      alexvgg cluster render kuberay --nodes 2:8 --gpu H100 --image registry.example/alexvgg:0.1.0 -o k8s
      alexvgg cluster render skypilot --nodes 2 --gpu L4 --gpus-per-node 4
    """
    from alexvgg.config import from_dict
    from alexvgg.errors import InputError
    from cluster.manifests.files import render
    from cluster.manifests.spec import ClusterSpec

    if target == "aws" and described["command"] is not None:
        raise InputError("--command is what a job of KubeRay or SkyPilot runs; to a cluster on AWS you submit")
    given = {key: value for key, value in described.items() if value is not None}
    if nodes is not None:
        given["nodes"], given["max_nodes"] = nodes
    spec = from_dict(ClusterSpec, given)
    files, folder = render(target, spec, os.environ), output or Path(f"alexvgg-{target}")
    changed = [name for name, text in files.items() if (p := folder / name).exists() and p.read_text() != text]
    if changed and not force:
        raise InputError(
            f"{', '.join(changed)} in {folder} would be overwritten, with what you changed there: give --force, or "
            "another folder by -o"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
        click.echo(folder / name)
    made_up = [f"--{key}" for key in ("image", "storage", "dataset") if key not in given]
    if made_up:
        say(f"Made up, as you gave no {', '.join(made_up)}: replace these in the files, or render again with them.")
    say(NEXT[target].format(folder=folder, name=spec.name))
