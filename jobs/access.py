"""Whom we talk to: a Ray on another machine that asks nobody for a token is refused."""

import ipaddress
import os
import urllib.error
import urllib.parse
import urllib.request

from alexvgg.errors import InputError

INSECURE = "ALEXVGG_INSECURE"  # environment variable; what --insecure sets


def refuse_if_open(dashboard: str) -> None:
    """Raise InputError if Ray at `dashboard` is on another machine and lets anyone in, unless that is wanted."""
    if not os.environ.get(INSECURE) and not _on_loopback(dashboard) and _lets_anyone_in(dashboard):
        raise InputError(
            f"Ray at {dashboard} asks for no token: whoever reaches it can run anything there, and read your data. "
            "Start it with RAY_AUTH_MODE=token and a token file, as `alexvgg cluster render` writes it, or add "
            "--insecure if only you can reach it."
        )


def _on_loopback(dashboard: str) -> bool:
    host = urllib.parse.urlsplit(dashboard).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lets_anyone_in(dashboard: str) -> bool:
    """Whether the jobs are shown to one who shows no token."""
    try:
        with urllib.request.urlopen(f"{dashboard.rstrip('/')}/api/jobs/", timeout=10):
            return True
    except (OSError, urllib.error.URLError):  # refused; or nothing is there, which is said by whoever connects
        return False
