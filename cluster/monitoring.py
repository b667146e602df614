"""Prometheus and Grafana beside a local cluster: which exist here, what they read, how they are started.

Both listen on loopback only. Grafana shows its dashboards to anyone who reaches it; to change something in it, log in
as `admin` with the token of the cluster.
"""

import configparser
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.grafana import dashboard

MONITORS = {"prometheus": "prometheus", "grafana": "grafana-server"}  # service: its program
MONITOR_PORTS = {"prometheus": 9090, "grafana": 3000}  # taken if they are free
SCRAPE_SECONDS = 2  # as often as Ray counts here


def missing_monitors() -> dict[str, str]:
    """The monitors that can't be started here, with the program that each lacks."""
    return {name: program for name, program in MONITORS.items() if shutil.which(program) is None}


def monitor_command(name: str, state: Path, host: str, port: int) -> list[str]:
    folder = state / "metrics"
    if name == "grafana":  # its address is in its settings
        return [MONITORS[name], f"--config={folder / 'grafana.ini'}", f"--homepath={_grafana_home()}"]
    return [
        MONITORS[name], f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={host}:{port}",
    ]  # fmt: skip


def write_monitoring(state: Path, ray_folder: Path, host: str, ports: Mapping[str, int], token: Path) -> None:
    """Write what those monitors read that have a port, beside what they have stored before."""
    folder = state / "metrics"
    if "prometheus" in ports:
        targets = [str(ray_folder / "prom_metrics_service_discovery.json")]  # Ray's head keeps it up to date
        scrape = {"job_name": "ray", "file_sd_configs": [{"files": targets}]}
        scraping = {"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, "scrape_configs": [scrape]}
        _write_yaml(folder / "prometheus.yml", scraping)
    if "grafana" in ports:
        _write_grafana(folder, ray_folder, host, ports, token)


def _write_grafana(folder: Path, ray_folder: Path, host: str, ports: Mapping[str, int], token: Path) -> None:
    dashboards = {"alexvgg": folder / "dashboards", "ray": ray_folder / "session_latest/metrics/grafana/dashboards"}
    providers = [{"name": name, "type": "file", "options": {"path": str(path)}} for name, path in dashboards.items()]
    _write_yaml(folder / "provisioning/dashboards/dashboards.yml", {"apiVersion": 1, "providers": providers})
    _write(folder / "dashboards/alexvgg.json", json.dumps(dashboard(), indent=2))
    if "prometheus" in ports:
        url = f"http://{host}:{ports['prometheus']}"
        source = {
            "name": "Prometheus",
            "type": "prometheus",
            "isDefault": True,
            "url": url,
        }  # Ray's own expect the name
        _write_yaml(folder / "provisioning/datasources/prometheus.yml", {"apiVersion": 1, "datasources": [source]})
    settings = configparser.RawConfigParser()
    settings.read_dict({
        "server": {"http_addr": host, "http_port": ports["grafana"]},
        "paths": {"data": folder / "grafana", "logs": folder / "grafana", "provisioning": folder / "provisioning"},
        "security": {"admin_password": f"$__file{{{token}}}", "allow_embedding": "true"},  # in Ray's dashboard
        "auth.anonymous": {"enabled": "true", "org_role": "Viewer"},
        "analytics": {"reporting_enabled": "false", "check_for_updates": "false"},
    })  # fmt: skip
    with (folder / "grafana.ini").open("w") as file:
        settings.write(file)


def _write_yaml(path: Path, document: dict[str, Any]) -> None:
    _write(path, yaml.safe_dump(document, sort_keys=False))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _grafana_home() -> Path:
    """Where Grafana's own files lie: beside the program in its tar, here in its packages."""
    program = shutil.which(MONITORS["grafana"])
    beside = Path(program).resolve().parents[1] if program else Path()
    return beside if (beside / "conf/defaults.ini").exists() else Path("/usr/share/grafana")
