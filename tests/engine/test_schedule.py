"""The plateau schedule, against PyTorch's and by hand."""

import random

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexvgg.engine.schedule import Plateau


def test_by_hand() -> None:
    plateau, lrs = Plateau(0.01, patience=1, threshold=0.01), []
    for error in (0.9, 0.5, 0.495, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5):
        plateau = plateau.observe(error)
        lrs.append(plateau.lr)
    # Better, better, not by enough, worse: drop. Better, then two and two that are not: the second and the third drop.
    assert lrs == pytest.approx([0.01] * 3 + [0.001] * 3 + [1e-4] * 2 + [1e-5] * 4)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_pytorchs_with_three_drops(seed: int) -> None:
    random.seed(seed)
    patience, threshold = random.randrange(4), random.choice([0, 1e-3, 0.05])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    theirs = ReduceLROnPlateau(
        optimizer, factor=0.1, patience=patience, threshold=threshold, threshold_mode="abs", min_lr=1e-5, eps=0
    )
    ours = Plateau(0.01, patience, threshold)
    for epoch in range(60):
        error = max(0.1, 0.9 - epoch / 50) + random.uniform(-0.1, 0.1)
        theirs.step(error)
        ours = Plateau(0.01, patience, threshold).resumed(ours.observe(error).state())
        assert ours.lr == pytest.approx(optimizer.param_groups[0]["lr"]), epoch


def test_a_net_that_has_not_begun_to_learn_keeps_its_rate() -> None:
    plateau = Plateau(0.01, patience=0, threshold=0.01, chance=0.9)
    for error in (0.9, 0.92, 0.895, 0.9):
        plateau = plateau.observe(error)
    assert plateau == Plateau(0.01, patience=0, threshold=0.01, chance=0.9)
    learning = plateau.observe(0.85)
    assert (learning.lr, learning.best) == (0.01, 0.85)
    assert learning.observe(0.9).lr == pytest.approx(0.001), "back at chance is no beginning"
    one_class = Plateau(0.01, patience=0, threshold=0.01, chance=0.0)
    assert one_class.observe(0.0).observe(0.0).lr == 0.01


def test_nan_is_never_better() -> None:
    plateau = Plateau(0.01, 0, 0).observe(0.5).observe(float("nan"))
    assert (plateau.lr, plateau.best) == (0.001, 0.5)
