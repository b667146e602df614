"""Posteriors of validation images: the same bytes on any number of ranks, killed or not, and each computed once."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import mixed_dataset

import alexvgg.evaluation.scoring as scoring
from alexvgg.config import pixels
from alexvgg.data import validation as validation_module
from alexvgg.data.decode import decode
from alexvgg.data.fetch import read_all
from alexvgg.data.shards import Dataset
from alexvgg.data.store import FileStore, Store
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.views import whole
from alexvgg.engine.world import World
from alexvgg.evaluation.counts import Counts
from alexvgg.evaluation.posteriors import Scoring, read
from alexvgg.evaluation.scoring import Member, Row, record, score
from alexvgg.evaluation.views import corner_places
from alexvgg.models import Net, build
from alexvgg.models.dense import Dense

IMAGES, BAD = 53, 17  # a prime number of images, of which one can't be decoded
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mixed_dataset(tmp_path_factory.mktemp("mixed"), IMAGES, classes=7, bad={BAD})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(validation_module, "SMALLEST_PART", 6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # ranks are threads here
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path.as_uri(), tmp_path)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    made = build("vgg_a", num_classes=7, width=0.125, crop=32)
    for layer in made.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        made.classifier.fc8.weight *= 0.02  # posteriors that are neither 0 nor 1
    return made


def row(dataset: Dataset, method: scoring.RowMethod, *scales: int, run: str = "a") -> Row:
    return Row(method, (Member(run, "0" * 64, scales),), dataset.fingerprint)


def evaluate(
    dataset: Dataset, storage: Store, rows: list[Row], *, ranks: int = 1, nets: dict[str, Net] | None = None
) -> None:
    """On `ranks` threads: ranks meet in the storage only."""
    errors: list[BaseException] = []
    own = nets or {"a": net()}

    def one(rank: int) -> None:
        try:
            undecodable = Undecodable("")
            score(own, rows, dataset, storage, World(rank, ranks, CPU), decode_threads=1, undecodable=undecodable)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


def test_any_number_of_ranks_stores_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    rows = [row(dataset, "dense", 224, 256), row(dataset, "both", 256)]
    expected: dict[str, bytes] = {}
    counts = []
    for ranks in range(1, 6):
        store = FileStore("", tmp_path / str(ranks))
        evaluate(dataset, store, rows, ranks=ranks)
        got = contents(store)
        assert sorted(got) == [
            f"runs/a/eval/posteriors/{name}.safetensors" for name in ("dense-q224", "dense-q256", "multicrop-q256")
        ]
        expected = expected or got
        assert got == expected, f"{ranks} ranks"
        counts.append([scoring.count(store, r.scorings()) for r in rows])
    assert counts == counts[:1] * 5
    assert counts[0][0].images == IMAGES - 1


@pytest.mark.parametrize("flip", [False, True])
def test_dense_posteriors_against_one_image_at_a_time(dataset: Dataset, store: FileStore, flip: bool) -> None:
    shown = replace(dataset, flip=flip)
    r = row(shown, "dense", 256)
    evaluate(shown, store, [r])
    stored = read(store, r.scorings()[0][0].key, r.scorings()[0][0])
    assert stored.samples.tolist() == [i for i in range(IMAGES) if i != BAD]
    dense, mean = Dense(net().eval()), torch.tensor(dataset.mean_rgb)[:, None, None]
    found = read_all(dataset.store, dataset.val, range(IMAGES))
    with torch.inference_mode():
        for sample, got in zip(stored.samples.tolist(), stored.values, strict=True):
            view = torch.from_numpy(whole(decode(found[sample]), pixels(256, 32))) - mean
            seen = [view, view.flip(2)] if flip else [view]
            expected = torch.stack([dense(v[None])[0].double().softmax(0) for v in seen]).mean(dim=0)
            torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)
    assert stored.labels.tolist() == dataset.val.labels[stored.samples.numpy()].tolist()


def test_ten_crops_lack_the_mean_image_each(dataset: Dataset, store: FileStore) -> None:
    mean = torch.rand(3, 32, 32) * 200
    r = row(dataset, "tencrop", 256)
    score({"a": net()}, [r], dataset, store, World(0, 1, CPU), decode_threads=1, undecodable=Undecodable(""),
          means={"a": mean})  # fmt: skip
    stored = read(store, r.scorings()[0][0].key, r.scorings()[0][0])
    sample = int(stored.samples[0])
    image = torch.from_numpy(whole(decode(read_all(dataset.store, dataset.val, [sample])[sample]), pixels(256, 32)))
    square = [image, image.flip(2)] if dataset.flip else [image]
    places = corner_places(*image.shape[1:], 32, square=pixels(256, 32))
    crops = torch.stack([i[:, y : y + 32, x : x + 32] - mean for i in square for y, x in places])
    with torch.inference_mode():
        expected = net().eval()(crops).double().softmax(1).mean(dim=0)
    torch.testing.assert_close(stored.values[0].double(), expected, rtol=1e-4, atol=1e-6)


def counting(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None] = lambda _: None) -> list[tuple[int, ...]]:
    """Which (part, pass) was computed, in order; `then` is called with their number before each."""
    computed: list[Any] = []
    real = scoring._score_part

    def score_part(scorer: Any, validation: Any, part: range, wanted: Any) -> Any:
        then(len(computed))
        computed.extend((part.start, s.method, s.q) for s in wanted)
        return real(scorer, validation, part, wanted)

    monkeypatch.setattr(scoring, "_score_part", score_part)
    return computed


class KilledError(BaseException):
    pass


def test_a_killed_evaluation_goes_on_with_what_is_missing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(dataset, "dense", 224, 256)]
    whole_store, killed = FileStore("", tmp_path / "whole"), FileStore("", tmp_path / "killed")
    evaluate(dataset, whole_store, rows)

    def kill(computed: int) -> None:
        if computed == 8:  # of 2 passes over 9 parts
            raise KilledError

    with monkeypatch.context() as patch:
        first = counting(patch, kill)
        with pytest.raises(KilledError):
            evaluate(dataset, killed, rows)
    second = counting(monkeypatch)
    evaluate(dataset, killed, rows, ranks=2)
    assert not set(first) & set(second), "a finished part was computed again"
    assert len(first) + len(second) == 2 * 9
    assert contents(killed) == contents(whole_store)


def test_a_kill_between_two_stored_passes_of_a_part(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(dataset, "dense", 224, 256)]
    store, writes = FileStore("", tmp_path), 0
    real = scoring.write

    def write(*arguments: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 6:
            raise KilledError
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "write", write)
        with pytest.raises(KilledError):
            evaluate(dataset, store, rows)
    computed = counting(monkeypatch)
    evaluate(dataset, store, rows)
    assert (12, "dense", 256) in computed
    assert (12, "dense", 224) not in computed
    assert len(computed) == 2 * 9 - 5


def test_nothing_is_computed_twice_for_another_row(
    dataset: Dataset, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = counting(monkeypatch)
    evaluate(dataset, store, [row(dataset, "dense", 256)])
    evaluate(dataset, store, [row(dataset, "dense", 224, 256), row(dataset, "both", 256, 224)])
    evaluate(dataset, store, [row(dataset, "both", 256)])
    assert len(computed) == len(set(computed)) == 4 * 9


def test_posteriors_of_other_weights_are_computed_anew(
    dataset: Dataset, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(dataset, store, [row(dataset, "dense", 256)])
    later = Row("dense", (Member("a", "1" * 64, (256,)),), dataset.fingerprint)
    old = store.get(later.scorings()[0][0].key)
    computed = counting(monkeypatch)
    evaluate(dataset, store, [later], nets={"a": net(1)})
    assert len(computed) == 9
    assert store.get(later.scorings()[0][0].key) != old


def test_several_nets_meet_each_image_together(dataset: Dataset, store: FileStore) -> None:
    nets = {"a": net(0), "b": net(1)}
    members = (Member("a", "0" * 64, (224, 256)), Member("b", "0" * 64, (256,)))
    fused = Row("dense", members, dataset.fingerprint)
    evaluate(dataset, store, [fused], ranks=3, nets=nets)
    a, b = fused.scorings()
    stored: dict[Scoring, np.ndarray] = {s: read(store, s.key, s).values.numpy().astype(np.float64) for s in (*a, *b)}
    mean = ((stored[a[0]] + stored[a[1]]) / 2 + stored[b[0]]) / 2
    labels = np.delete(dataset.val.labels, BAD)
    order = np.argsort(-mean, axis=1)
    expected = Counts(
        IMAGES - 1, int((order[:, 0] != labels).sum()), int((order[:, :5] != labels[:, None]).all(axis=1).sum())
    )
    document = record(store, fused)
    assert (document["images"], document["top1_wrong"], document["top5_wrong"]) == tuple(vars(expected).values())
    assert fused.key.startswith("fusions/fusion-")
    assert store.exists(fused.key)


def test_images_that_nobody_can_decode_have_no_error(tmp_path: Path, store: FileStore) -> None:
    (tmp_path / "blind").mkdir()
    blind = mixed_dataset(tmp_path / "blind", 9, bad=range(9))
    r = row(blind, "tencrop", 256)
    evaluate(blind, store, [r], nets={"a": build("vgg_a", num_classes=10, width=0.125, crop=32)})
    document = record(store, r)
    assert (document["images"], document["top1_error"], document["top5_error"]) == (0, None, None)


def test_ranks_that_owe_parts_for_ever_are_named(
    dataset: Dataset, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "STALLED_SECONDS", 0.3)
    alone_of_two = World(0, 2, CPU)
    with pytest.raises(RuntimeError, match=r"no rank has stored a part of runs/a/eval/posteriors/dense-q256"):
        score(
            {"a": net()}, [row(dataset, "dense", 256)], dataset, store, alone_of_two,
            decode_threads=1, undecodable=Undecodable(""),
        )  # fmt: skip
