"""Links into MLflow: real ones where it answers, its first page where it doesn't."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from mlserver import MlflowServer
from processes import free_port

from alexvgg.tracking.pages import runs_page
from alexvgg.tracking.remote import connect, experiment_id


def test_the_page_of_all_runs_is_where_the_runs_will_be(mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client, name = connect(mlflow.url), "pages & links"  # not the other tests'
    for module in ("pages", "remote"):
        monkeypatch.setattr(f"alexvgg.tracking.{module}.EXPERIMENT", name)
    assert runs_page(mlflow.url) == mlflow.url, "whoever only reads makes nothing"
    assert client.get_experiment_by_name(name) is None
    page = runs_page(f"{mlflow.url}/", make=True)
    assert page == f"{mlflow.url}/#/experiments/{experiment_id(client)}/runs"
    assert runs_page(mlflow.url) == runs_page(mlflow.url, make=True) == page


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Something else than MLflow."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[]"), (200, b'{"experiment": {}}'), (200, b"\xff"), (401, b""), (404, b""), (500, b"")],
)
def test_what_answers_otherwise_is_named_as_it_is(status: int, body: bytes) -> None:
    with answering(status, body) as url:
        assert runs_page(url, make=True) == url


def test_what_does_not_answer_is_named_as_it_is() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert runs_page(url, make=True) == url


def test_a_link_costs_no_import_of_mlflow() -> None:
    code = "import sys, alexvgg.tracking.pages; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
