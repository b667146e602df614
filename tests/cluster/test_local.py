"""The cluster on one machine: what comes up, who may use it, what a crash leaves, what `down` leaves."""

import stat
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from processes import command_line, processes_with, wait_for

from alexvgg.errors import InputError
from cluster import local, processes, services
from cluster.network import network_settings
from cluster.services import LocalCluster


def pids(cluster: LocalCluster) -> dict[str, int]:
    """Service -> process id of its first process."""
    return {name: process.pid for name, process in local.running_services(cluster).items()}


def test_up_again_changes_nothing(local_cluster: LocalCluster) -> None:
    before = pids(local_cluster)
    nodes = {"node-1", "node-2", "node-3", "node-4"}
    assert set(before) == {"s3", "mlflow", "head", *local_cluster.monitors, *nodes}
    for nodes in (4, 2):
        assert local.up(nodes, state=local_cluster.state) == local_cluster
    assert pids(local_cluster) == before
    assert local.find(local_cluster.state) == local_cluster
    assert all(service.alive for service in local.status(local_cluster.state))


@pytest.mark.parametrize("whole", [True, False], ids=["with its children", "only its first process"])
def test_a_killed_node_is_started_again_and_nothing_else(local_cluster: LocalCluster, whole: bool) -> None:
    before = pids(local_cluster)
    victim = psutil.Process(before["node-2"])
    for process in [victim, *(victim.children(recursive=True) if whole else [])]:
        process.kill()
    wait_for(lambda: "node-2" not in pids(local_cluster), "the node's end")
    assert [s.name for s in local.status(local_cluster.state) if not s.alive] == ["node-2"]
    local.up(4, state=local_cluster.state)
    after = pids(local_cluster)
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} == {"node-2"}


def test_ray_asks_for_a_token_that_only_the_user_can_read(local_cluster: LocalCluster) -> None:
    assert stat.S_IMODE(local_cluster.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(local_cluster.state.stat().st_mode) == 0o700
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{local_cluster.dashboard_url}/api/jobs/")
    refused.value.close()
    assert refused.value.code == 401
    token = {"Authorization": f"Bearer {local_cluster.token.read_text()}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{local_cluster.dashboard_url}/api/jobs/", headers=token)
    ) as ok:
        assert ok.status == 200


def test_the_token_is_in_no_command_line(local_cluster: LocalCluster) -> None:
    token = local_cluster.token.read_text()
    for process in processes_with(f"{processes.MARK}={local_cluster.state}:"):
        assert token not in command_line(process)


def test_services_listen_on_loopback_only(local_cluster: LocalCluster) -> None:
    ours = {local_cluster.ports[name] for name in ("s3", "mlflow", "dashboard", *local_cluster.monitors)}
    listening: dict[int, str] = {}
    for process in processes_with(f"{processes.MARK}={local_cluster.state}:"):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ours:
                    listening[connection.laddr.port] = connection.laddr.ip
    assert listening == dict.fromkeys(ours, "127.0.0.1")


def test_a_second_cluster_started_twice_at_once(local_cluster: LocalCluster, tmp_path: Path) -> None:
    state = tmp_path / "other" / ".alexvgg"
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: local.up(1, state=state), range(2))
    try:
        assert one == two
        assert not set(one.ports.values()) & set(local_cluster.ports.values())
        assert set(pids(one)) == {"s3", "mlflow", "head", "node-1"}
        environments = [p.environ() for p in local.running_services(one).values()]
        folders = {e["TMPDIR"] for e in environments}
        assert folders == {str(services.ray_folder(state))}, "what they leave elsewhere outlives the cluster"
        assert {e["RAY_ADDRESS"] for e in environments} == {one.ray_address}, "Ray's actors would find both clusters"
        (state / "s3" / "bucket").mkdir()
    finally:
        local.down(state=state)
    assert local.find(state) is None
    assert not processes_with(f"{processes.MARK}={state}:")
    assert not services.ray_folder(state).exists()
    assert (state / "s3" / "bucket").exists()
    assert local.find(local_cluster.state) == local_cluster


def test_what_a_full_disk_has_damaged_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"no')
    assert local.status(tmp_path) == []
    assert local.find(tmp_path) is None
    token = tmp_path / "token"
    for before in (None, ""):
        token.unlink(missing_ok=True) if before is None else token.write_text(before)
        local._write_token(token)
        assert len(written := token.read_text()) == 64
    local._write_token(token)
    assert token.read_text() == written
    token.unlink()
    local._write_token(token)
    assert token.stat().st_mode & 0o777 == 0o600


def test_little_room_is_said(local_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for free in (local.LITTLE_ROOM, 3_000_000):
        monkeypatch.setattr(local.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        local.up(1, state=local_cluster.state, say=said.append)
    warning = f"warning: only 3 MB are free in {local_cluster.state}, for images, checkpoints and logs"
    assert [line for line in said if "warning" in line] == [warning]


def test_without_its_s3_service_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"isn't installed: install alexvgg with its extra, as by `pip install"):
        local.up(1, state=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_head_runs_with_the_networks_settings(local_cluster: LocalCluster) -> None:
    assert local.network(local_cluster) == network_settings({})
    shell = {"RAY_health_check_period_ms": "777", "RAY_ADDRESS": "elsewhere", "AWS_SECRET_ACCESS_KEY": "theirs"}
    environment = services.service_environment(local_cluster, shell)
    assert environment["RAY_health_check_period_ms"] == "777"
    assert environment["RAY_ADDRESS"] == local_cluster.ray_address
    assert environment["AWS_SECRET_ACCESS_KEY"] == local_cluster.environment()["AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize("nodes", [0, -1, 1000])
def test_impossible_numbers_of_nodes_are_refused(nodes: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 to 200 nodes"):
        local.up(nodes, state=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ".alexvgg"
    monkeypatch.setattr(services, "s3_command", lambda *_: ["sh", "-c", "echo the disk is full; exit 1"])
    try:
        with pytest.raises(InputError, match=r"s3 of the local cluster did not come up.*'the disk is full'"):
            local.up(1, state=state)
    finally:
        local.down(state=state)
    assert not processes_with(f"{processes.MARK}={state}:")


def test_nothing_to_stop(tmp_path: Path) -> None:
    said: list[str] = []
    local.down(state=tmp_path / "none", say=said.append)
    assert said == ["There is no local cluster here."]
    assert local.status(tmp_path / "none") == []


def test_a_monitor_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert local._monitors(said.append) == []
    assert said == [
        "There is no prometheus on the PATH, so prometheus isn't started.",
        "There is no grafana-server on the PATH, so grafana isn't started.",
    ]
