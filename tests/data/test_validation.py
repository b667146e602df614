"""Each validation image once, on any number of ranks, in the shape that is scored."""

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from images import mixed_dataset
from PIL import Image

from alexvgg.data import validation as module
from alexvgg.data.decode import Pixels, decode
from alexvgg.data.fetch import read_all
from alexvgg.data.shards import Dataset, Split
from alexvgg.data.store import Store
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.validation import Validation, parts
from alexvgg.data.views import RESAMPLE, resized_size, whole
from alexvgg.errors import InputError


def validation(dataset: Dataset, rank: int = 0, world: int = 1) -> Validation:
    return Validation(dataset, rank, world, 2, Undecodable(dataset.store.url))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mixed_dataset(tmp_path_factory.mktemp("mixed"), 83, bad={0, 70})


@pytest.mark.parametrize("world", [1, 3, 4, 7])
def test_centre_crops_show_each_image_once(digits: Dataset, world: int) -> None:
    shares = [validation(digits, rank, world).central(384, 32) for rank in range(world)]
    assert sorted(i for share in shares for b in share for i in b.samples.tolist()) == list(range(360))


def test_centre_crops_have_their_images_pixels_and_labels(digits: Dataset) -> None:
    for batch in validation(digits).central(384, 32):
        ids = batch.samples.tolist()
        assert batch.labels.tolist() == digits.val.labels[ids].tolist()
        assert batch.weights.tolist() == [1.0] * len(ids)
        for i, data in read_all(digits.store, digits.val, ids[:3]).items():
            image = Image.fromarray(decode(data))
            resized = image.resize(resized_size(*image.size, 55), RESAMPLE)
            left, top = (resized.width - 32) // 2, (resized.height - 32) // 2
            expected = np.asarray(resized.crop((left, top, left + 32, top + 32)), float).transpose(2, 0, 1)
            assert np.abs(batch.images[ids.index(i)].numpy() - expected).mean() <= 1.0


@pytest.mark.parametrize("images", [0, 1, 31, 32, 33, 360, 2047, 50_000])
def test_parts_cover_every_image_once(images: int) -> None:
    cut = parts(images)
    assert [i for part in cut for i in part] == list(range(images))
    assert len(cut) <= 98
    assert all(32 <= len(part) <= 512 for part in cut[:-1])


def test_reads_are_as_many_ahead_as_said(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reads of the next runs wait for each other here: one at a time would never end."""
    monkeypatch.setattr(module, "RUN", 45)
    together = threading.Barrier(module.READS_AHEAD)

    def read(store: Store, split: Split, samples: list[int]) -> dict[int, bytes]:
        together.wait(timeout=10)
        return read_all(store, split, samples)

    monkeypatch.setattr(module, "read_all", read)
    shown = [i for b in validation(digits).central(384, 32) for i in b.samples.tolist()]
    assert shown == list(range(360))


def images_of(dataset: Dataset, samples: range) -> dict[int, Pixels]:
    found = read_all(dataset.store, dataset.val, samples)
    return {i: decode(found[i]) for i in samples if i not in (0, 70)}


@pytest.mark.parametrize("samples", [range(0, 83), range(10, 75), range(70, 71), range(0, 0)])
def test_whole_images_in_batches_of_one_shape(mixed: Dataset, samples: range) -> None:
    expected = images_of(mixed, samples)
    seen: Counter[int] = Counter()
    for span in validation(mixed).spans(samples):
        for batch in span.whole(48, pixels_per_batch=5 * 48 * 64):
            assert len(batch.samples) == 1 or batch.images[:, 0].numel() <= 5 * 48 * 64
            assert batch.weights.tolist() == [1.0] * len(batch.samples)
            for sample, label, view in zip(batch.samples.tolist(), batch.labels.tolist(), batch.images, strict=True):
                np.testing.assert_array_equal(view.numpy(), whole(expected[sample], 48))
                assert label == mixed.val.labels[sample]
                seen[sample] += 1
    assert seen == Counter(expected.keys())


def test_a_shape_fills_its_batches(mixed: Dataset) -> None:
    shapes = Counter(resized_size(i.shape[1], i.shape[0], 48) for i in images_of(mixed, range(83)).values())
    batches = [b for span in validation(mixed).spans(range(83)) for b in span.whole(48, pixels_per_batch=10**9)]
    assert len(batches) == len(shapes) < 12
    assert sorted(len(b.samples) for b in batches) == sorted(shapes.values())


def test_spans_are_bounded_in_memory(mixed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPAN_PIXELS", 1)
    spans = list(validation(mixed).spans(range(83)))
    assert [len(s.samples) for s in spans] == [63, 18], "a span ends with the run that reaches the bound"
    assert sorted(i for s in spans for i in s.samples.tolist()) == sorted(images_of(mixed, range(83)))


def test_undecodable_images_are_named(mixed: Dataset, tmp_path: Path) -> None:
    shown = validation(mixed)
    assert sum(len(s.samples) for s in shown.spans(range(83))) == 81
    assert sorted(shown.undecodable.reasons) == ["000000", "000070"]
    blank = {i: w for b in shown.central(256, 32) for i, w in zip(b.samples.tolist(), b.weights.tolist(), strict=True)}
    assert [i for i, weight in blank.items() if weight == 0] == [0, 70]


def test_runs_are_short_in_images_and_in_bytes() -> None:
    sizes = np.array([5, 5, 30, 1, 1, 40, 2] + [0] * 130) << 20
    runs = [r.tolist() for r in module._runs_of(range(137), sizes)]
    assert runs[:5] == [[0, 1], [2], [3, 4], [5], [6, *range(7, 70)]]
    assert [i for run in runs for i in run] == list(range(137))
    assert max(map(len, runs)) == module.RUN


def test_each_split_may_have_its_own_bad_images(digits: Dataset) -> None:
    """What training meets doesn't count against the validation images, of which there are fewer."""
    bad = Undecodable("file:///d")
    for sample in range(10):
        assert bad.decode(digits.train, sample, b"no image") is None
        assert bad.decode(digits.val, sample, b"no image") is None
    assert bad.decode(digits.val, 3, b"no image") is None, "an image counts once"
    assert len(bad.reasons) == 20
    with pytest.raises(InputError, match="11 images of file:///d can't be decoded"):
        bad.decode(digits.val, 10, b"no image")
