"""What loaders did, alone and together."""

from dataclasses import replace

import pytest

from alexvgg.data.meter import Figures, Meters, Stage, Work, together

READ = Figures(count=10, size=30_000_000, seconds=1.0, p50=0.1, p99=0.2)
WORK = Work(2.0, 3, READ, Figures(0, 0, 0.0, 0.0, 0.0), Figures(100, 0, 1.5, 0.010, 0.020), 0.5)


def test_a_stage_counts_and_has_quantiles_of_what_is_recent() -> None:
    stage = Stage()
    assert stage.figures() == Figures(0, 0, 0.0, 0.0, 0.0)
    for seconds in range(101):
        stage.record(seconds, size=2)
    assert stage.figures() == Figures(101, 202, 5050.0, 50.0, 99.0)


def test_metrics_are_rates_and_milliseconds() -> None:
    assert WORK.metrics() == {
        "perf/read_mb_per_s": 15.0, "perf/read_p50_ms": 100.0, "perf/read_p99_ms": 200.0, "perf/read_retries": 3.0,
        "perf/decode_p50_ms": 10.0, "perf/decode_p99_ms": 20.0, "perf/decode_starved_ms": 0.0,
        "perf/prefetch_fill": 0.5,
    }  # fmt: skip


def test_work_is_that_since_the_beginning() -> None:
    meters = Meters(retries=5)
    meters.starve.record(0.25)
    meters.fill.record(0.5)
    work = meters.work(retries=7)
    assert (work.retries, work.fill, work.starve.count) == (2, 0.5, 1)
    assert 0 < work.seconds < 60
    assert work.metrics()["perf/decode_starved_ms"] == 250.0


def test_loaders_that_share_work_did_it_together() -> None:
    other = replace(WORK, seconds=2.5, retries=1, read=replace(READ, size=20_000_000, p50=0.3), fill=1.0)
    both = together([WORK, other])
    assert (both.seconds, both.retries, both.fill) == (2.5, 4, 0.75)
    assert (both.read.count, both.read.size, both.read.seconds) == (20, 50_000_000, 2.0)
    assert both.read.p50 == pytest.approx(0.2)
    assert both.decode == Figures(200, 0, 3.0, 0.010, 0.020)
    assert both.metrics()["perf/read_mb_per_s"] == 20.0
    assert together([WORK]) == WORK
