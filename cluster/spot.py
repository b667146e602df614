"""EC2's notice that a spot machine will be taken away, told to Ray: `python -m cluster.spot` runs beside each worker.

Ray gives it on to what trains there, which stores a checkpoint. EC2 gives two minutes, Ray itself doesn't look.
"""

import subprocess
import time
import urllib.error
import urllib.request

METADATA = "http://169.254.169.254/latest"
LOOK_SECONDS = 5.0
LEFT_SECONDS = 110  # of the two minutes, when it is noticed
TIMEOUT_SECONDS = 5.0

# A developers' command of Ray's, which takes this node if none is named.
DRAIN = ("ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "EC2 takes it back",
         "--deadline-remaining-seconds", str(LEFT_SECONDS))  # fmt: skip


def is_noticed() -> bool:
    """Whether EC2 has said that it will stop or end this machine. Raises OSError if its metadata don't answer."""
    asking = urllib.request.Request(f"{METADATA}/api/token", method="PUT")
    asking.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    with urllib.request.urlopen(asking, timeout=TIMEOUT_SECONDS) as answer:
        token = answer.read().decode()
    looking = urllib.request.Request(f"{METADATA}/meta-data/spot/instance-action")
    looking.add_header("X-aws-ec2-metadata-token", token)
    try:
        with urllib.request.urlopen(looking, timeout=TIMEOUT_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise


def main() -> None:
    """Drain this node once it is noticed. Whatever doesn't answer is asked again."""
    drained = False
    while not drained:
        time.sleep(LOOK_SECONDS)
        try:
            drained = is_noticed() and subprocess.run(DRAIN).returncode == 0
        except OSError as error:
            print(f"trying again: {error}", flush=True)


if __name__ == "__main__":
    main()
