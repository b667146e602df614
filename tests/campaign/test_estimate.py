"""Estimates: each figure from the best source there is, and the source is named."""

from dataclasses import replace
from typing import Any

import pytest

from alexvgg.architectures import architecture
from alexvgg.campaign.estimate import GPUS, Measured, as_dict, estimate, measured, speed
from alexvgg.planning import Images, plan_runs
from alexvgg.profiles import Profile
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import RunRecord

IMAGENET = Images("imagenet", 1000, "f" * 64)
A, E = plan_runs([RECIPES["vgg_e-s256"]], IMAGENET, GEOMETRIES["paper"])


def macs(model: str, width: float, crop: int) -> int:
    return architecture(model, width=width, crop=crop).macs


def test_what_was_measured_here_comes_first() -> None:
    own = Measured("vgg_e-s256-1", "vgg_e", 1.0, 224, "cuda", 300.0)
    other = Measured("vgg_a-s256-1", "vgg_a", 1.0, 224, "cuda", 700.0)
    found = speed(E, macs, "A100", "cuda", [other, own])
    assert found is not None
    assert (found.images_per_s, found.source) == (300.0, "measured in vgg_e-s256-1")
    scaled = speed(E, macs, "A100", "cuda", [other])
    assert scaled is not None
    assert scaled.images_per_s == pytest.approx(700 * 7_609_090_048 / 19_632_062_464)
    assert scaled.source == "measured in vgg_a-s256-1, a vgg_a, scaled by MACs"


def test_workers_on_one_machine_share_its_cores() -> None:
    """Two workers of one host reach as much as one, and four of it as much again."""

    def run(workers: int, hosts: int) -> RunRecord:
        journal = [
            {"event": "start", "step": 0, "time": 1.0, "workers": workers, "hosts": hosts, "device": "cpu"},
            {"event": "epoch", "step": 9, "time": 2.0, "epoch": 1, "metrics": {"perf/images_per_s": 800.0}},
        ]
        return RunRecord("vgg_e-1", "started", E, journal, [], None)

    for workers, hosts, on_a_host, expected in ((1, 1, 4, 200), (2, 1, 4, 200), (2, 1, 1, 800), (4, 4, 1, 200)):
        found = speed(E, macs, None, "cpu", measured([run(workers, hosts)]), on_a_host)
        assert found is not None
        assert found.images_per_s == expected


def start(workers: int, **more: Any) -> dict[str, Any]:
    return {"event": "start", "step": 0, "time": 1.0, "workers": workers, "device": "cuda"} | more


def epochs(*speeds: float) -> list[dict[str, Any]]:
    return [{"event": "epoch", "step": 9, "time": 2.0, "metrics": {"perf/images_per_s": s}} for s in speeds]


def test_a_speed_is_the_median_epochs_of_the_newest_attempt() -> None:
    journal = [start(1), *epochs(50.0, 60.0), start(2, hosts=1), *epochs(900.0, 820.0, 100.0, 850.0, 800.0)]
    (found,) = measured([RunRecord("e", "started", E, journal, [], None)])
    assert found == Measured("e", "vgg_e", 1.0, 224, "cuda", 410.0)
    old = [start(4, device="cpu"), *epochs(800.0)]  # before hosts were written down
    (found,) = measured([RunRecord("e", "started", E, old, [], None)])
    assert (found.device, found.images_per_s) == ("cpu", 200.0)


def test_what_has_trained_no_epoch_has_no_speed() -> None:
    journals = [[], epochs(9.0), [start(1)]]
    assert measured(RunRecord("x", "started", E, journal, [], None) for journal in journals) == []


def test_of_many_gpus_each_has_its_speed_whatever_shares_its_host() -> None:
    found = speed(E, macs, None, "cuda", [Measured("e", "vgg_e", 1.0, 224, "cuda", 300.0)], on_a_host=8)
    published = speed(E, macs, "A100", "cuda", [])
    assert found is not None
    assert published is not None
    assert (found.images_per_s, found.alone, published.alone) == (300.0, False, True)


@pytest.mark.parametrize("unlike", [{"width": 0.5}, {"crop": 32}, {"device": "cpu"}])
def test_another_geometry_or_device_says_nothing(unlike: dict[str, object]) -> None:
    other = replace(Measured("x", "vgg_e", 1.0, 224, "cuda", 300.0), **unlike)  # type: ignore[arg-type]
    assert speed(E, macs, None, "cuda", [other]) is None


def test_published_figures_come_next_then_the_makers_peak() -> None:
    exact, scaled, computed = (speed(E, macs, gpu, "cuda", []) for gpu in ("RTX3090", "A100", "H100"))
    assert exact is not None
    assert scaled is not None
    assert computed is not None
    assert (exact.images_per_s, exact.source) == (457, "published for vgg_e on one RTX3090")
    assert scaled.images_per_s == pytest.approx(1190 * 15_470_264_320 / 19_632_062_464)
    assert "vgg_d on one A100, scaled" in scaled.source
    assert computed.images_per_s == pytest.approx(3358, abs=1)  # as computed from the layer tables by hand
    assert computed.source.startswith("computed: 40% of the 989")


@pytest.mark.parametrize("gpu", GPUS)
def test_a_profile_may_name_each_gpu(gpu: Any) -> None:
    profile = Profile(dashboard="http://head:8265", storage="s3://b/s", dataset="s3://b/d", gpu=gpu)
    assert speed(E, macs, profile.gpu, "cuda", []) is not None


def test_a_gpu_says_nothing_of_nets_that_do_not_fill_it() -> None:
    for smaller in ({"width": 0.125}, {"crop": 32}):
        small = replace(E, model=replace(E.model, **smaller))  # type: ignore[arg-type]
        assert speed(small, macs, "H100", "cuda", []) is None


def test_time_is_what_is_left_to_train_over_all_workers() -> None:
    found = speed(E, macs, "RTX3090", "cuda", [])
    whole = estimate(E, 1_281_167, 8, found)
    assert whole.images == 370_000 * 256 < 74 * 1_281_167
    assert whole.hours == pytest.approx(94_720_000 / (8 * 457) / 3600)
    assert whole.worker_hours == pytest.approx(8 * whole.hours)
    assert estimate(E, 1_281_167, 8, found, consumed=94_720_000).hours == 0
    assert estimate(E, 1_281_167, 8, None).hours is None


@pytest.mark.parametrize(("max_steps", "images"), [(None, 7400), (1, 256), (29, 7400)])
def test_a_run_ends_with_its_epochs_or_its_steps(max_steps: int | None, images: int) -> None:
    spec = replace(E, train=replace(E.train, max_steps=max_steps))
    assert estimate(spec, 100, 1, None).images == images
    assert estimate(spec, 100, 1, None, consumed=10_000).images == 0, "it has come as far already"


def test_what_workers_reach_together_comes_before_what_each_does_alone() -> None:
    found = speed(E, macs, "RTX3090", "cuda", [])
    assert found is not None
    told = as_dict(estimate(E, 1_281_167, 8, found, together=1000.0))
    assert told == {
        "images": 94_720_000, "images_per_s": 1000.0, "source": found.source,
        "hours": pytest.approx(94_720 / 3600), "worker_hours": pytest.approx(8 * 94_720 / 3600),
    }  # fmt: skip
    unknown = as_dict(estimate(E, 1_281_167, 8, None))
    assert (unknown["source"], unknown["hours"], unknown["worker_hours"]) == (None, None, None)
