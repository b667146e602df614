"""What Grafana and Prometheus are told."""

import configparser
import json
from pathlib import Path

import yaml

from cluster.grafana import PANELS, dashboard
from cluster.monitoring import write_monitoring


def test_grafana_is_told_where_everything_is(tmp_path: Path) -> None:
    ports, token = {"prometheus": 9999, "grafana": 3333}, tmp_path / "token"
    write_monitoring(tmp_path, Path("/ray"), "127.0.0.1", ports, token)
    settings = configparser.RawConfigParser()
    settings.read(tmp_path / "metrics/grafana.ini")
    assert settings["server"] == {"http_addr": "127.0.0.1", "http_port": "3333"}
    provisioning = Path(settings["paths"]["provisioning"])
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://127.0.0.1:9999"
    providers = yaml.safe_load((provisioning / "dashboards/dashboards.yml").read_text())["providers"]
    ours = next(p for p in providers if p["name"] == "alexvgg")
    shown = json.loads((Path(ours["options"]["path"]) / "alexvgg.json").read_text())
    assert shown == json.loads(json.dumps(dashboard()))
    assert len({panel["id"] for panel in shown["panels"]}) == len(PANELS)
