"""EC2's notice reaches Ray, from a service that answers as EC2's metadata do."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster import spot


class Metadata(BaseHTTPRequestHandler):
    """Asks for a token; fails once, knows of nothing twice, then gives notice."""

    answers: Iterator[int]

    def do_PUT(self) -> None:
        known = self.path == "/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        self._answer(200 if known else 400, b"a token")

    def do_GET(self) -> None:
        known = self.path == "/meta-data/spot/instance-action" and self.headers["X-aws-ec2-metadata-token"] == "a token"
        self._answer(next(self.answers) if known else 401, b'{"action": "terminate"}')

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_notice_drains_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Metadata.answers = iter([500, 404, 404, 200, 200])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = tmp_path / "log"
    script = f"import pathlib; log = pathlib.Path({str(log)!r}); code = int(not log.exists()); log.touch(); exit(code)"
    monkeypatch.setattr(spot, "METADATA", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(spot, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(spot, "DRAIN", (sys.executable, "-c", script))
    try:
        spot.main()
    finally:
        server.shutdown()
        server.server_close()
    assert list(Metadata.answers) == [], "Ray refused the first time, and was asked again"
    assert capsys.readouterr().out.startswith("trying again: HTTP Error 500")
