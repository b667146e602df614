"""A SkyPilot task: machines of any cloud, on which Ray is started beside SkyPilot's own."""

from collections.abc import Mapping
from typing import Any

from alexvgg.errors import InputError
from cluster.manifests.spec import ClusterSpec
from cluster.network import network_settings

DISK_GIB = 200

# The repository is the working directory; its lock says what is installed.
SETUP = """\
pip install --quiet uv
uv python install 3.12
make PYTHON="$(uv python find 3.12)" .venv/ready
"""

# SkyPilot's own Ray has the ports 6380, 8266 and on every machine 52365, its agent's; without an agent of ours, which
# needs a moment, Ray takes no jobs. The token goes into a file that only this user can read, and out of
# the environment of everything that is started.
RUN = """\
umask 077 && mkdir -p ~/.ray && printenv RAY_AUTH_TOKEN > ~/.ray/auth_token && unset RAY_AUTH_TOKEN
export PATH="$PWD/.venv/bin:$PATH"
head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
if [ "$SKYPILOT_NODE_RANK" -ne 0 ]; then
  until ray health-check --address "$head:6379" > /dev/null 2>&1; do sleep 2; done
  ray start --address "$head:6379" --dashboard-agent-listen-port 52366 --disable-usage-stats
  sleep 5
  exit
fi
ray start --head --port 6379 --dashboard-host 127.0.0.1 --dashboard-agent-listen-port 52366 --disable-usage-stats
sleep 5
until [ "$(ray list nodes --filter state=ALIVE --format json | grep -c '"node_id"')" -ge "$SKYPILOT_NUM_NODES" ]; do
  sleep 2
done
"""


def task(spec: ClusterSpec, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `sky launch` and `sky jobs launch` read. The first machine is Ray's head and trains, too.

    Raises InputError for a range of nodes: SkyPilot's machines are a fixed number.
    """
    if spec.most_nodes != spec.nodes:
        raise InputError(f"SkyPilot starts a fixed number of machines: --nodes {spec.nodes} or {spec.most_nodes}")
    return {
        "name": spec.name,
        "workdir": ".",
        "num_nodes": spec.nodes,
        "resources": {
            "accelerators": {spec.gpu: spec.gpus_per_node}, "use_spot": spec.spot, "disk_size": DISK_GIB,
            "infra": f"aws/{spec.region}" + (f"/{spec.ec2_zone}" if spec.zone else ""),
        },
        "envs": {"RAY_AUTH_MODE": "token", "AWS_DEFAULT_REGION": spec.region, **network_settings(environment)},
        "secrets": {"RAY_AUTH_TOKEN": None},
        "setup": SETUP,
        "run": f"{RUN}{spec.entrypoint}\n",
    }  # fmt: skip
