"""One node of OpenStack Swift with its S3 API, from Debian's packages: an S3 service by people who don't copy AWS.

Account, container, object and proxy server run in one folder on loopback ports, with one device and one replica, and
check every request's signature (tempauth). Debian: swift-proxy swift-account swift-container swift-object.
"""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import free_port, listens, wait_for

ACCESS_KEY, SECRET_KEY = "test:tester", "testing"  # account:user of tempauth
REQUIRED = "ALEXVGG_REQUIRE_SWIFT"  # with this set, tests fail instead of being skipped where Swift is missing
BACKENDS = ("account", "container", "object")

BACKEND_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

# Without a memcached there is nothing to remember; tempauth only asks that the middleware be there.
PROXY_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
"""

RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in (argument.split(":") for argument in sys.argv[1:]):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1, replication_ip=None))
    builder.rebalance()
    builder.get_ring().save(name + ".ring.gz")
"""


def missing(folder: Path) -> str | None:
    """Why Swift can't run here with its data in `folder`, or None if it can."""
    absent = [p for p in (f"swift-{name}-server" for name in ("proxy", *BACKENDS)) if shutil.which(p) is None]
    if absent:
        return f"{', '.join(absent)} not installed; on Debian: swift-proxy swift-account swift-container swift-object"
    try:
        os.setxattr(folder, "user.swift.test", b"")
    except OSError as error:
        return f"Swift keeps metadata in extended attributes, which {folder} doesn't have: {error}"
    return None


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The endpoint of a new, empty service whose files all lie in `folder`."""
    ports = {name: free_port() for name in ("proxy", *BACKENDS)}
    _configure(folder, ports)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for name in ports:
            command = [f"swift-{name}-server", str(folder / f"{name}.conf"), "--verbose"]
            with (folder / f"{name}.log").open("wb") as log:
                servers.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
        for name, port in ports.items():
            wait_for(lambda port=port: listens(port), f"the start of Swift's {name} server (log in {folder})")
        yield f"http://127.0.0.1:{ports['proxy']}"
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _configure(folder: Path, ports: dict[str, int]) -> None:
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    values = {"folder": folder, "user": getpass.getuser()}
    (folder / "proxy.conf").write_text(PROXY_CONF.format(port=ports["proxy"], **values))
    for name in BACKENDS:
        (folder / f"{name}.conf").write_text(BACKEND_CONF.format(name=name, port=ports[name], **values))
    command = ["/usr/bin/python3", "-c", RINGS, *(f"{name}:{ports[name]}" for name in BACKENDS)]  # Debian's own
    subprocess.run(command, cwd=folder, check=True)
