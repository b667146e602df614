"""Whom we talk to, and with which token: a Ray on another machine that asks nobody for one is refused."""

import ipaddress
import os
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from alexvgg.errors import InputError

INSECURE = "ALEXVGG_INSECURE"  # environment variable; what --insecure sets


class TokenError(InputError):
    """Ray lets this shell not in: it has shown no token, or one that isn't the cluster's."""

    def __init__(self, dashboard: str, *, shown: bool) -> None:
        if shown:
            self.what = f"Ray at {dashboard} refuses this shell's token, which is another cluster's or an old one"
            self.next_step = "Put this cluster's into RAY_AUTH_TOKEN, or into the file that RAY_AUTH_TOKEN_PATH names."
        else:
            self.what = f"Ray at {dashboard} asks for a token, and this shell shows none"
            self.next_step = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that holds it."
        super().__init__(f"{self.what}. {self.next_step}")


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
    try:
        return not asks_for_token(dashboard)
    except (OSError, HTTPException):  # nothing is there, or no Ray, which is said by whoever connects
        return False


def asks_for_token(dashboard: str) -> bool:
    """Whether the jobs are kept from one who shows no token. Raises OSError, of which urllib's errors are, and
    HTTPException of what speaks no HTTP."""
    try:
        with urllib.request.urlopen(f"{dashboard.rstrip('/')}/api/jobs/", timeout=10):
            return False
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return True
        raise


def get(dashboard: str, path: str, timeout: float | None = None) -> HTTPResponse:
    """What Ray's dashboard answers this shell at a path. Raises OSError, of which urllib's errors are."""
    request = urllib.request.Request(f"{dashboard.rstrip('/')}{path}", headers=_authorization())
    return urllib.request.urlopen(request, timeout=timeout)  # type: ignore[no-any-return]


def _authorization() -> dict[str, str]:
    """The header that lets this shell in, from where Ray's own clients take the token."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if token is None and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}
