"""A cluster on machines of others, described once: `cluster.render` makes each provider's manifests from it."""

import re
from importlib.metadata import version
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from alexvgg.errors import InputError

Positive = Annotated[int, Field(gt=0)]
# What Kubernetes, EC2 tags and SkyPilot take.
Name = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", description="small letters, digits and -, a letter first, at most 40")
]
IDLE_MINUTES = 15  # after which a cluster gives a machine back
MOST_WORKERS = 64  # of a submission: alexvgg.data.plan's lanes

Url = Annotated[
    str,
    Field(
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{2,62}(/[^\s]*[^\s/])?$",
        description="s3://BUCKET/PREFIX without a / at the end, with a bucket's name of three characters or more",
    ),
]


Machine = tuple[str, int, int]  # instance type, CPU cores, memory in GiB

# EC2's machines by their number of each kind of GPU. SkyPilot's names of these are ours.
GPUS: dict[str, dict[int, Machine]] = {
    "T4": {1: ("g4dn.4xlarge", 16, 64), 4: ("g4dn.12xlarge", 48, 192), 8: ("g4dn.metal", 96, 384)},
    "A10G": {1: ("g5.4xlarge", 16, 64), 4: ("g5.12xlarge", 48, 192), 8: ("g5.48xlarge", 192, 768)},
    "L4": {1: ("g6.4xlarge", 16, 64), 4: ("g6.12xlarge", 48, 192), 8: ("g6.48xlarge", 192, 768)},
    "L40S": {1: ("g6e.4xlarge", 16, 128), 4: ("g6e.12xlarge", 48, 384), 8: ("g6e.48xlarge", 192, 1536)},
    "A100": {8: ("p4d.24xlarge", 96, 1152)},
    "A100-80GB": {8: ("p4de.24xlarge", 96, 1152)},
    "H100": {1: ("p5.4xlarge", 16, 256), 8: ("p5.48xlarge", 192, 2048)},
    "H200": {8: ("p5en.48xlarge", 192, 2048)},
}


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class ClusterSpec:
    """A head that doesn't train and `nodes` machines that do, where the data lies, and what a one-off job runs.

    On AWS and KubeRay a machine is there while something trains on it or waits for it, and IDLE_MINUTES more. With
    `max_nodes` above `nodes` jobs are elastic. Nothing in it is secret: credentials are
    the machines' own roles, Ray's token is made by Kubernetes or by whoever starts the cluster.
    """

    name: Name = "alexvgg"
    nodes: Positive = 4
    max_nodes: Positive | None = None
    gpu: str = "A100"
    gpus_per_node: Positive = 8
    spot: bool = False
    image: Annotated[str, Field(pattern=r"^[^\s]+$", description="a name without blanks")] = (
        f"alexvgg:{version('alexvgg')}"
    )
    region: Annotated[
        str, Field(pattern=r"^[a-z]{2,}(-[a-z]+)+-\d$", description="one of AWS's, e.g. eu-central-1")
    ] = "us-east-1"
    zone: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]+$", description="a zone, e.g. eu-central-1a")] | None = None
    storage: Url = "s3://my-bucket/alexvgg"
    dataset: Url = "s3://my-bucket/imagenet"
    command: str = "alexvgg submit --model vgg_e --nodes {nodes} --profile {name} --wait"
    ray: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = version("ray")

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise InputError(f"there is no GPU {self.gpu!r} here; known are {', '.join(GPUS)}")
        if self.most_nodes < self.nodes:
            raise InputError(f"--nodes {self.nodes}:{self.most_nodes} is empty; write the smaller number first")

    @property
    def most_nodes(self) -> int:
        return self.max_nodes or self.nodes

    @property
    def ec2_zone(self) -> str | None:
        """`zone`. Raises InputError if the region has none of that name."""
        if self.zone is not None and re.fullmatch(rf"{self.region}[a-z]", self.zone) is None:
            raise InputError(f"{self.zone} is no zone of {self.region}, as {self.region}a is one: --zone, --region")
        return self.zone

    @property
    def entrypoint(self) -> str:
        """`command` with this cluster's nodes and name. Raises InputError if it would submit to too many workers."""
        if "{nodes}" in self.command and (workers := self.most_nodes * self.gpus_per_node) > MOST_WORKERS:
            raise InputError(
                f"{workers} workers are more than the {MOST_WORKERS} among which a batch can be shared. Use at most "
                f"{MOST_WORKERS // self.gpus_per_node} nodes, or a --command that names its own number."
            )
        nodes = f"{self.nodes}" if self.most_nodes == self.nodes else f"{self.nodes}:{self.most_nodes}"
        return self.command.replace("{nodes}", nodes).replace("{name}", self.name)

    def profile(self, *, grows: bool) -> str:
        """The cluster as a profile of alexvgg.toml; one that `grows` has nodes only while something waits for them."""
        fields = {"dashboard": "http://127.0.0.1:8265", "storage": self.storage, "dataset": self.dataset}
        lines = [f'{key} = "{value}"' for key, value in fields.items()]
        lines += [f"gpus_per_node = {self.gpus_per_node}", f'gpu = "{self.gpu}"']
        lines += [f"max_nodes = {self.most_nodes}"] if grows else []
        return "\n".join([f"[profile.{self.name}]", *lines, ""])


def bucket_of(url: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix` -> (bucket, some/prefix)."""
    bucket, _, prefix = re.sub("^s3://", "", url).partition("/")
    return bucket, prefix
