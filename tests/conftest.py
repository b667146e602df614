"""What many tests share: an S3 service, the digits, golden files, and one real cluster for the whole session."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import swift as openstack
import torch
from mlserver import MlflowServer
from processes import processes_with, s3_service
from xdist.scheduler import LoadScopeScheduling

from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import create_bucket, open_store
from cluster import local, processes
from cluster.services import LocalCluster

GOLDEN = Path(__file__).with_name("golden")
NODES = 4
TOGETHER = ("tests/cluster/", "tests/results/")  # one cluster; one MLflow server and three trained nets


def pytest_configure() -> None:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # golden losses are a CPU's, and ranks share this machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those on the real cluster come first, as they take the longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(TOGETHER[0]))


class ByFile(LoadScopeScheduling):
    """Where tests run in several processes: a file stays in one of them, and so does what shares something costly.

    The groups of xdist's own `loadgroup` get lost with pytest 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """`golden(name, text)`: text equals tests/golden/<name>; `make golden` writes the files anew."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("ALEXVGG_UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text(), f"differs from {path}; `make golden` renews it, then read the diff"

    return check


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Float sums in one order, whatever the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """scikit-learn's digits as shards in a folder."""
    url = tmp_path_factory.mktemp("digits").as_uri()
    pack_digits(open_store(url))
    return url


@pytest.fixture(scope="session")
def digits(digits_url: str) -> Dataset:
    return open_dataset(open_store(digits_url))


@pytest.fixture(scope="session")
def localbucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of the S3 service that the local cluster uses."""
    with s3_service(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of a second S3 service, by other people."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a third S3 service, which checks signatures and has no conditional writes."""
    folder = tmp_path_factory.mktemp("swift")
    if (reason := openstack.missing(folder)) is not None:
        if os.environ.get(openstack.REQUIRED):
            pytest.fail(f"{openstack.REQUIRED} is set, but {reason}")
        pytest.skip(reason)
    with openstack.running(folder) as endpoint:
        yield endpoint


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`s3(endpoint)`: make it this process's S3 service, and return the URL of a bucket in it."""

    def use(endpoint: str) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", openstack.ACCESS_KEY)  # the other services take any
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", openstack.SECRET_KEY)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        create_bucket("s3://bucket")
        return "s3://bucket"

    return use


@pytest.fixture(scope="session")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A real cluster of four nodes, with the monitors that this machine has. Afterwards nothing of it may be left."""
    state = tmp_path_factory.mktemp("project") / ".alexvgg"
    mark = f"{processes.MARK}={state}:"
    try:
        yield local.up(NODES, metrics=True, state=state)
    finally:
        family = processes_with(mark)
        local.down(state=state)
        left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"left running: {left}"
        assert not processes_with(mark)


@pytest.fixture(scope="session")
def mlflow_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def mlflow(mlflow_session: MlflowServer) -> MlflowServer:
    """A real MLflow server on sqlite. A test that stops it needn't start it again."""
    if not mlflow_session.runs:
        mlflow_session.start()
    return mlflow_session
