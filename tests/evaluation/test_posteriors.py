"""Stored posteriors: never of other weights or images, merged without loss, summed as NumPy sums them."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from alexvgg.data.store import Store, open_store
from alexvgg.evaluation.counts import Counts
from alexvgg.evaluation.posteriors import (
    Posteriors,
    Scoring,
    StaleError,
    count,
    is_stored,
    is_whole,
    merge,
    missing_parts,
    read,
    write,
)

SCORING = Scoring("vgg_a-s256-00000000", "a" * 64, "f" * 64, "dense", 256)
PARTS = [range(0, 5), range(5, 10), range(10, 13)]


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, localbucket: str, s3: Callable[[str], str]) -> Store:
    """Empty, as a folder and in a bucket."""
    if request.param == "file":
        return open_store(tmp_path.as_uri())
    return open_store(f"{s3(localbucket)}/{tmp_path.name}")


def posteriors(samples: range, classes: int = 7, seed: int = 0) -> Posteriors:
    random = np.random.default_rng([seed, samples.start])
    values = torch.from_numpy(random.dirichlet(np.full(classes, 0.3), len(samples)))
    ids = torch.tensor(list(samples), dtype=torch.int64)
    return Posteriors.of(ids, ids % classes, values)


def test_rows_are_kept_in_the_order_of_samples(store: Store) -> None:
    p = Posteriors.of(torch.tensor([4, 1, 9]), torch.tensor([40, 10, 90]), torch.tensor([[0.4], [0.1], [0.9]]))
    write(store, SCORING.key, SCORING, p)
    back = read(store, SCORING.key, SCORING)
    assert (back.samples.tolist(), back.labels.tolist()) == ([1, 4, 9], [10, 40, 90])
    torch.testing.assert_close(back.values, torch.tensor([[0.1], [0.4], [0.9]]), rtol=0, atol=0)
    assert back.values.dtype == torch.float32


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "b" * 64}, {"fingerprint": "0" * 64}, {"q": 288}, {"method": "multicrop"},
        {"run": "vgg_a-s256-11111111"},
    ],
)  # fmt: skip
def test_posteriors_of_anything_else_are_never_used(store: Store, other: dict[str, object]) -> None:
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    write(store, SCORING.part_key(PARTS[1]), SCORING, posteriors(PARTS[1]))
    wanted = replace(SCORING, **other)  # type: ignore[arg-type]
    assert is_stored(store, SCORING.key, SCORING)
    assert not is_stored(store, SCORING.key, wanted)
    with pytest.raises(StaleError, match="of other weights or images"):
        read(store, SCORING.key, wanted)
    assert missing_parts(store, wanted, PARTS) == PARTS


def test_an_older_format_is_never_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    monkeypatch.setattr("alexvgg.evaluation.posteriors.FORMAT", 2)
    assert not is_stored(store, SCORING.key, SCORING)


@pytest.mark.parametrize("metadata", [None, {"alexvgg": "[]"}, {"alexvgg": "no JSON"}, {"run": SCORING.run}])
def test_what_something_else_wrote_is_never_used(store: Store, metadata: dict[str, str] | None) -> None:
    store.put(SCORING.key, safetensors.torch.save({"values": torch.zeros(1)}, metadata))
    assert missing_parts(store, SCORING, PARTS) == PARTS
    with pytest.raises(StaleError, match="of other weights or images"):
        read(store, SCORING.key, SCORING)


def test_damage_is_found(store: Store) -> None:
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    data = store.get(SCORING.key)
    store.put(SCORING.key, data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(StaleError, match="is damaged"):
        read(store, SCORING.key, SCORING)


def test_whatever_byte_is_flipped_is_found(store: Store) -> None:
    """In the header's length, the header, the values: either it counts as not stored, or reading it says why not."""
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    data = store.get(SCORING.key)
    header = 8 + int.from_bytes(data[:8], "little")
    for place in (*range(8), *range(8, header, 41), *range(header, len(data), 97)):
        store.put(SCORING.key, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        if is_stored(store, SCORING.key, SCORING):
            with pytest.raises(StaleError, match="is damaged"):
                read(store, SCORING.key, SCORING)
    store.put(SCORING.key, data[:5])
    assert missing_parts(store, SCORING, PARTS) == PARTS


def test_parts_become_one_object(store: Store) -> None:
    assert missing_parts(store, SCORING, PARTS) == PARTS
    for part in (PARTS[2], PARTS[0]):
        write(store, SCORING.part_key(part), SCORING, posteriors(part))
    assert missing_parts(store, SCORING, PARTS) == [PARTS[1]]
    write(store, SCORING.part_key(PARTS[1]), SCORING, posteriors(PARTS[1]))
    assert missing_parts(store, SCORING, PARTS) == []
    assert not is_whole(store, SCORING)
    merge(store, SCORING, PARTS)
    assert store.list("") == [SCORING.key]
    assert is_whole(store, SCORING)
    assert missing_parts(store, SCORING, PARTS) == []
    whole = read(store, SCORING.key, SCORING)
    assert whole.samples.tolist() == list(range(13))
    torch.testing.assert_close(whole.values[5:10], posteriors(PARTS[1]).values, rtol=0, atol=0)
    merge(store, SCORING, PARTS)
    assert is_whole(store, SCORING)


def test_what_another_evaluation_merges_meanwhile_is_merged_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It deletes the parts while this one reads them."""
    for part in PARTS:
        write(store, SCORING.part_key(part), SCORING, posteriors(part))
    once = threading.Lock()
    get = type(store).get

    def meanwhile(self: Store, key: str) -> bytes:
        if once.acquire(blocking=False):
            monkeypatch.undo()
            merge(store, SCORING, PARTS)
        return get(self, key)

    monkeypatch.setattr(type(store), "get", meanwhile)
    merge(store, SCORING, PARTS)
    assert is_whole(store, SCORING)
    assert store.list(SCORING.key.removesuffix(".safetensors") + "/") == []


def test_a_scale_whose_name_begins_alike_is_another(store: Store) -> None:
    wider = replace(SCORING, q=2560)
    write(store, wider.key, wider, posteriors(range(13)))
    write(store, wider.part_key(PARTS[0]), wider, posteriors(PARTS[0]))
    assert not is_whole(store, SCORING)
    assert missing_parts(store, SCORING, PARTS) == PARTS
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    merge(store, SCORING, PARTS)
    assert wider.part_key(PARTS[0]) in store.list("")


@pytest.mark.parametrize("classes", [2, 4, 5, 7])
def test_counts_are_of_the_mean_over_scales_then_over_nets(store: Store, classes: int) -> None:
    samples = range(200)
    a = [replace(SCORING, q=q) for q in (224, 256, 288)]
    b = [replace(SCORING, run="vgg_b-s256-00000000", q=256)]
    stored = {}
    for n, s in enumerate([*a, *b]):
        stored[s] = posteriors(samples, classes, seed=n)
        write(store, s.key, s, stored[s])

    def mean(scorings: list[Scoring]) -> np.ndarray:
        return np.mean([stored[s].values.numpy().astype(np.float64) for s in scorings], axis=0)

    labels = np.arange(200) % classes
    for members in ([a], [a, b]):
        fused = np.mean([mean(m) for m in members], axis=0)
        order = np.argsort(-fused, axis=1)
        expected = Counts(
            200, int((order[:, 0] != labels).sum()), int((order[:, :5] != labels[:, None]).all(axis=1).sum())
        )
        assert count(store, members) == expected
        assert 0 < expected.top1_wrong < 200


def test_ties_are_wrong_and_survive_storage(store: Store) -> None:
    values = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    write(store, SCORING.key, SCORING, Posteriors.of(torch.arange(3), torch.tensor([0, 2, 1]), values))
    assert count(store, [[SCORING]]) == Counts(3, 2, 0)


def test_no_image(store: Store) -> None:
    none = torch.empty(0, dtype=torch.int64)
    write(store, SCORING.key, SCORING, Posteriors.of(none, none, torch.empty(0, 7)))
    assert count(store, [[SCORING]]) == Counts(0, 0, 0)


def test_scorings_of_other_images_are_not_summed(store: Store) -> None:
    other = replace(SCORING, q=288)
    write(store, SCORING.key, SCORING, posteriors(range(13)))
    write(store, other.key, other, posteriors(range(1, 14)))
    with pytest.raises(StaleError, match="other images than its companions"):
        count(store, [[SCORING, other]])


def test_float32_keeps_small_posteriors_apart(store: Store) -> None:
    """float16 would make zeros of all but the first, and the right class would tie with every other one."""
    tail = [10.0**-n for n in range(8, 14)]
    values = torch.tensor([[1 - sum(tail), *tail]], dtype=torch.float64)
    write(store, SCORING.key, SCORING, Posteriors.of(torch.tensor([0]), torch.tensor([3]), values))
    assert count(store, [[SCORING]]) == Counts(1, 1, 0)
    assert (values.half()[0, 1:] == 0).all()
