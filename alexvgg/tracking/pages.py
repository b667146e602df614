"""Where a browser finds our runs in MLflow, asked without MLflow's own client, which takes seconds to be imported."""

import json
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from alexvgg.tracking.remote import EXPERIMENT

SECONDS = 3.0  # whoever waits for the answer only gets a better link from it


def runs_page(url: str, *, make: bool = False) -> str:
    """The page of all runs; the server's first page if it doesn't say where that is, to us or at once.

    `make` makes the experiment that holds them, as the first run would.
    """
    api = f"{url.rstrip('/')}/api/2.0/mlflow/experiments"
    # Also for an answer that isn't MLflow's: ValueError of what is no JSON, TypeError and LookupError of other JSON.
    with suppress(OSError, HTTPException, ValueError, TypeError, LookupError):
        try:
            number = _ask(f"{api}/get-by-name?experiment_name={quote(EXPERIMENT)}")["experiment"]["experiment_id"]
        except urllib.error.HTTPError as error:
            if error.code != 404 or not make:
                raise
            number = _ask(f"{api}/create", {"name": EXPERIMENT})["experiment_id"]
        return f"{url.rstrip('/')}/#/experiments/{int(number)}/runs"
    return url


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)
