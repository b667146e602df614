"""All files of a provider, from one description: Python structures, written as YAML."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from cluster.grafana import dashboard
from cluster.manifests import aws, kuberay, skypilot
from cluster.manifests.iam import head_policy, policy_text, storage_policy
from cluster.manifests.spec import ClusterSpec

Target = Literal["aws", "kuberay", "skypilot"]


class _Dumper(yaml.SafeDumper):
    """YAML for people: scripts as blocks, every list repeated where it is used."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def render(target: Target, spec: ClusterSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """File name -> content. `environment` may override the network's settings.

    Raises InputError if this provider can't have such a cluster.
    """
    shared = {
        "alexvgg.toml": spec.profile(grows=target != "skypilot"),
        "iam-storage.json": policy_text(storage_policy(spec)),
        "grafana.json": json.dumps(dashboard(), indent=2) + "\n",
    }
    if target == "aws":
        cluster = _yaml([aws.ray_cluster(spec, environment)])
        return {"cluster.yaml": cluster, "iam-head.json": policy_text(head_policy(spec)), **shared}
    if target == "kuberay":
        return {
            "common.yaml": _yaml(kuberay.common(spec)),
            "raycluster.yaml": _yaml([kuberay.ray_cluster(spec, environment)]),
            "rayjob.yaml": _yaml([kuberay.ray_job(spec, environment)]),
            **shared,
        }
    return {"task.yaml": _yaml([skypilot.task(spec, environment)]), **shared}


def _yaml(documents: Iterable[dict[str, Any]]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)
