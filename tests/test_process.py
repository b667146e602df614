"""What this process may use of its machine."""

import os
from pathlib import Path

import pytest

from alexvgg import process


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000\n", 8), ("400000 100000\n", 4), ("250000 100000\n", 2), ("50000 100000\n", 1), (None, 8)],
)
def test_a_containers_quota_counts(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    monkeypatch.setattr(process, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        process.QUOTA.write_text(quota)
    assert process.cores() == cores
