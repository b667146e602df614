"""What each run was made with: enough to make it again."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alexvgg.config import to_dict
from alexvgg.results.lineage import summary
from alexvgg.runs import RunRecord
from alexvgg.tracking.describing import SHOWN_PACKAGES


def provenance(run: RunRecord, known: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]) -> str:
    """A run's settings, code, machines and transplant, folded away."""
    git, packages = known.get("git") or {}, known.get("packages") or {}
    hosts = [
        f"{h['ranks']} on {h['host']}: {h['gpu'] or h['cpu']}, {h['cores']} cores, {h['memory_gib']:g} GiB"
        for h in known.get("hosts") or []
    ]
    rows = {
        "command": known.get("command"),
        "commit": git.get("commit"),
        "uncommitted changes": git.get("diff_sha256"),
        "requirements.lock": known.get("lock_sha256"),
        "packages": ", ".join(f"{name} {packages[name]}" for name in SHOWN_PACKAGES if name in packages),
        "python": known.get("python"),
        "workers": "; ".join(hosts),
        "Ray job": known.get("ray_job"),
        "attempts": str(sum(e["event"] == "start" for e in run.journal)),
        "images": f"{run.spec.data.dataset}, fingerprint {run.spec.data.fingerprint}",
        "seed": str(run.spec.train.seed),
        "first weights": summary(origins),
        "final weights": f"sha256 {run.weights}" if run.weights else None,
    }
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows.items() if value)
    folded = _folded("settings", json.dumps(to_dict(run.spec), indent=2)) + _folded(
        "uncommitted changes", git.get("diff")
    )
    return f"<details><summary>{escape(run.name)}</summary><dl>{listed}</dl>{folded}</details>"


def _folded(title: str, text: str | None) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>" if text else ""
