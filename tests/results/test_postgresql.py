"""MLflow on PostgreSQL with its artifacts in S3, as a team runs it."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import postgresql
import psycopg
import pytest
import torch
from mlserver import MlflowServer

from alexvgg.config import Execution
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store
from alexvgg.engine.world import World
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.results.sync import sync
from alexvgg.run import train
from alexvgg.runs import list_runs, read_run
from alexvgg.tracking.journal import points
from alexvgg.tracking.remote import RemoteRun, connect


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_logged_to_postgresql_and_s3_and_synced(
    digits: Dataset, digits_url: str, tmp_path: Path, localbucket: str, s3: Callable[[str], str]
) -> None:
    if (programs := postgresql.find()) is None:
        if os.environ.get(postgresql.REQUIRED):
            pytest.fail(f"{postgresql.REQUIRED} is set, but {postgresql.MISSING}")
        pytest.skip(postgresql.MISSING)
    bucket = s3(localbucket)
    (spec,) = plan_runs(
        [RECIPES["vgg_a-s256"]], images_of(digits), GEOMETRIES["small"],
        overrides={"test_scales": "[[256]]", "train.epochs": "1", "train.max_steps": "10"},
    )  # fmt: skip
    # pytest's own folders are closed to other users, PostgreSQL's among them.
    with tempfile.TemporaryDirectory() as folder, postgresql.running(programs, Path(folder)) as database:
        server = MlflowServer(tmp_path, database, f"{bucket}/mlflow")
        try:
            server.start()
            storage = open_store(f"{bucket}/alexvgg")
            train(spec, Execution(digits_url, storage.url, server.url), World(0, 1, torch.device("cpu")))
            (synced,) = sync(server.url, storage, list_runs(storage), [], time.time())
            assert (synced.action, synced.status) == ("unchanged", "FINISHED")
            run = RemoteRun.find(connect(server.url), spec.name)
            assert run is not None
            stored = list(points(read_run(storage, spec.name).journal))
            assert sorted(run.history(), key=repr) == sorted(stored, key=repr)
            with psycopg.connect(database.replace("+psycopg", "")) as connection:
                (count,) = connection.execute("SELECT count(*) FROM metrics").fetchone() or (0,)
            assert count == len(stored)
            artifacts = [key for key in open_store(f"{bucket}/mlflow").list("") if key.endswith("provenance.json")]
            assert len(artifacts) == 1
        finally:
            server.stop()
