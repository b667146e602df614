"""The speed that is measured is that of images which came, by the threads that were there."""

import json

import pytest

from alexvgg.data.checking.measure import Speed, measure
from alexvgg.data.loader import Prefetch
from alexvgg.data.shards import Dataset

STAGE = {"count": 10, "mb_per_s": 1.0, "p50_ms": 1.0, "p99_ms": 2.0}


@pytest.mark.parametrize(("asked", "threads"), [(2, 2), (5, 6)], ids=["in this process", "in two others"])
def test_images_are_counted_over_epochs(asked: int, threads: int, digits: Dataset) -> None:
    prefetch = Prefetch(batches=2, decode_threads=asked, read_threads=2)
    speed = measure(digits, (256, 512), 32, batch=192, world=2, prefetch=prefetch, cache=None, seconds=1.5)
    assert speed.decode_threads == threads
    assert 0 < speed.images <= speed.images_per_s * 1.5 + 96
    assert speed.images_per_s == pytest.approx(speed.images / speed.seconds)
    assert 0 < speed.first_batch_seconds < 1.5
    assert speed.stages["decode"]["count"] > 0
    assert 0 < speed.stages["decode"]["share"] < 1.1
    assert speed.retries == 0
    assert f"images/s on {threads} decode threads" in speed.to_text()
    assert json.loads(json.dumps(speed.to_dict()))["bottleneck"] == speed.bottleneck


@pytest.mark.parametrize(("waiting", "limit"), [(0.5, "reading"), (0.01, "decoding")])
def test_what_threads_do_most_is_the_bottleneck(waiting: float, limit: str) -> None:
    stages = {"read": STAGE | {"share": 3.0}, "starve": STAGE | {"share": waiting}, "decode": STAGE | {"share": 0.5}}
    assert Speed(100.0, 100, 1.0, 0.1, 4, stages, 0.9, 0).bottleneck.startswith(f"{limit}: ")
