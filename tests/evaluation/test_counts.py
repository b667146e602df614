"""Counting, against NumPy doing it one image at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alexvgg.evaluation.counts import Counts


def one_at_a_time(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[int, int, int]:
    images = wrong1 = wrong5 = 0
    for row, label, weight in zip(scores, labels, weights, strict=True):
        if weight == 0:
            continue
        images += 1
        as_good = sum(1 for c, s in enumerate(row) if c != label and s >= row[label])
        wrong1 += as_good >= 1
        wrong5 += as_good >= 5
    return images, wrong1, wrong5


@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(1, 12))
def test_any_scores(seed: int, n: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, (n, classes)).astype(np.float32)  # with many ties
    labels, weights = random.integers(0, classes, n), random.integers(0, 2, n).astype(np.float32)
    got = Counts.of(torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(weights))
    expected = one_at_a_time(scores, labels, weights)
    assert (got.images, got.top1_wrong) == expected[:2]
    assert got.top5_wrong == (expected[2] if classes > 5 else 0)


def test_sums_over_any_split_are_the_whole() -> None:
    scores, labels = torch.randn(101, 10), torch.randint(0, 10, (101,))
    whole = Counts.of(scores, labels, torch.ones(101))
    parts = Counts(0, 0, 0)
    for start in range(0, 101, 17):
        cut = slice(start, start + 17)
        parts += Counts.of(scores[cut], labels[cut], torch.ones(len(labels[cut])))
    assert parts == whole
    assert Counts(*whole.tensor(torch.device("cpu")).tolist()) == whole
    assert whole.top1_error == pytest.approx(100 * (scores.argmax(1) != labels).double().mean().item())


def test_nothing_is_right_without_a_number() -> None:
    nan = torch.full((3, 10), float("nan"))
    assert Counts.of(nan, torch.tensor([0, 1, 2]), torch.ones(3)) == Counts(3, 3, 3)
    assert Counts.of(torch.zeros(3, 10), torch.tensor([0, 1, 2]), torch.ones(3)) == Counts(3, 3, 3)


def test_errors_are_per_cent_of_all_images() -> None:
    counts = Counts(200, 50, 10)
    assert (counts.top1_error, counts.top5_error) == (25.0, 5.0)


def test_an_empty_set_has_no_error() -> None:
    empty = Counts.of(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert empty.top1_error is None
    assert empty.top5_error is None
