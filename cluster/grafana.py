"""A Grafana dashboard of training, from the numbers that every rank gives to Ray (`jobs.metrics`)."""

from typing import Any

SOURCE = {"type": "prometheus", "uid": "${source}"}
RUNS = 'run=~"$run"'

# (title, unit, query, legend) of each panel, two in a row
PANELS = (
    ("Training loss", "none", f"max by (run) (ray_alexvgg_train_loss{{{RUNS}}})", "{{run}}"),
    ("Images per second", "none", f"max by (run) (ray_alexvgg_perf_images_per_s{{{RUNS}}})", "{{run}}"),
    ("Share of time waiting for data", "percentunit", f"ray_alexvgg_perf_data_wait_share{{{RUNS}}}",
     "{{run}} rank {{rank}}"),
    ("Step", "none", f"max by (run) (ray_alexvgg_step{{{RUNS}}})", "{{run}}"),
    ("Validation error, top-1", "percent", f"max by (run) (ray_alexvgg_val_top1_error{{{RUNS}}})", "{{run}}"),
    ("Learning rate", "none", f"max by (run) (ray_alexvgg_train_lr{{{RUNS}}})", "{{run}}"),
    ("Busy cores of a node", "percent", "ray_node_cpu_utilization", "{{ip}}"),
    ("GPU in use", "percent", "ray_node_gpus_utilization", "{{ip}} GPU {{GpuIndex}}"),
)  # fmt: skip
WIDTH, HEIGHT = 12, 8  # of a panel; Grafana's grid is 24 wide


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON; it lets one choose the runs to see."""
    return {
        "uid": "alexvgg", "title": "alexvgg", "schemaVersion": 39, "refresh": "5s", "tags": ["alexvgg"],
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [
            {"name": "source", "type": "datasource", "query": "prometheus"},
            {"name": "run", "type": "query", "datasource": SOURCE, "query": "label_values(ray_alexvgg_step, run)",
             "refresh": 2, "multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"}},
        ]},
        "panels": [_panel(n, *panel) for n, panel in enumerate(PANELS)],
    }  # fmt: skip


def _panel(number: int, title: str, unit: str, query: str, legend: str) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1, "title": title, "type": "timeseries", "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit}},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": query, "legendFormat": legend}],
    }  # fmt: skip
