"""Whom we talk to: a Ray on another machine that lets anyone in is refused."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import ray
from click.testing import CliRunner

from alexvgg.cli import main
from alexvgg.config import Execution
from alexvgg.errors import InputError
from alexvgg.profiles import Profile
from jobs.access import INSECURE, TokenError
from jobs.client import client
from jobs.doctor import check_ray
from jobs.ray_jobs import RayJobs

ANSWERS = {
    "/api/version": {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""},
    "/api/jobs/": [],
}


class OpenRay(BaseHTTPRequestHandler):
    """What a client of the Jobs API asks first, answered to anyone."""

    def do_GET(self) -> None:
        known = ANSWERS.get(self.path)
        self.send_response(404 if known is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(known).encode())

    def log_message(self, *_: object) -> None:
        pass


class ClosedRay(OpenRay):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()


class RefusingRay(OpenRay):
    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()


class NoRay(OpenRay):
    """Something else that listens there, and speaks no HTTP."""

    def do_GET(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.fixture
def elsewhere() -> str:
    """An address of this machine that isn't loopback, so like another machine's."""
    own = [a.address for addresses in psutil.net_if_addrs().values() for a in addresses if a.family == socket.AF_INET]
    outside = [address for address in own if not address.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no address but loopback")
    return outside[0]


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INSECURE, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def serve(address: str, answer: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, 0), answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_an_open_ray_elsewhere_is_refused_unless_that_is_wanted(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(elsewhere, OpenRay)
    url = f"http://{elsewhere}:{server.server_port}"
    try:
        with pytest.raises(InputError, match=r"asks for no token: whoever reaches it can run anything.*--insecure"):
            client(url)
        monkeypatch.setenv(INSECURE, "1")
        assert client(url).list_jobs() == []
    finally:
        server.shutdown()
        server.server_close()


def test_loopback_and_a_ray_that_asks_are_none_of_that(elsewhere: str) -> None:
    local, closed = serve("127.0.0.1", OpenRay), serve(elsewhere, ClosedRay)
    try:
        assert client(f"http://127.0.0.1:{local.server_port}").list_jobs() == []
        with pytest.raises(InputError) as refused:
            client(f"http://{elsewhere}:{closed.server_port}")
        assert "asks for no token" not in str(refused.value)
    finally:
        for server in (local, closed):
            server.shutdown()
            server.server_close()


def test_the_shells_own_addresses_do_not_replace_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve("127.0.0.1", OpenRay)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for act in (lambda: client(url).list_jobs(), lambda: RayJobs("s3://b/s", Execution("d", "s")).states()):
            monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
            monkeypatch.setenv("RAY_ADDRESS", url)
            assert not act()
            assert {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"}.isdisjoint(os.environ)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "detail", "next_step"),
    [
        (ClosedRay, "asks for a token, and this shell shows none", "Set RAY_AUTH_MODE=token"),
        (RefusingRay, "refuses this shell's token", "Put this cluster's into RAY_AUTH_TOKEN"),
        (NoRay, "no Ray cluster answers at", "`alexvgg config show`"),
    ],
)
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.HTTPWarning")
def test_each_refusal_has_its_own_next_step(
    elsewhere: str, answer: type[BaseHTTPRequestHandler], detail: str, next_step: str
) -> None:
    server = serve(elsewhere, answer)
    url = f"http://{elsewhere}:{server.server_port}"
    try:
        (finding,) = check_ray(Profile("s3://b/s", dashboard=url), url)
        assert finding.state == "failed"
        assert detail in finding.detail
        assert str(finding.next_step).startswith(next_step)
        if answer is not NoRay:
            with pytest.raises(TokenError, match=f"{detail}.*{next_step}"):
                client(url)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("command", ["submit", "status", "logs", "stop", "doctor"])
def test_the_option_reaches_the_client(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSECURE, "")  # so that it is restored
    CliRunner().invoke(main, [command, "--insecure", "--profile", "none"])
    assert os.environ[INSECURE] == "1"
