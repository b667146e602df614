"""What goes wrong is recognised, and said."""

import math
import time

import pytest

from alexvgg.engine.guards import WINDOW, DivergedError, Learning, StallWatch, check_finite


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e6])
def test_divergence_says_where_and_what_to_try(loss: float) -> None:
    check_finite([2.3, 9.0], 10, 0.01)
    with pytest.raises(DivergedError, match=r"at step 9 \(learning rate 0.01\).*train.lr=0.001.*--init glorot"):
        check_finite([2.3, loss, 2.0], 10, 0.01)


def test_a_stuck_start_is_said_once() -> None:
    learning, said = Learning(1000, 300, "Try this."), []
    for step in range(10, 1001, 10):
        said.append(learning.observe([math.log(1000) + 0.01] * 10, step, 0.01))
    (message,) = (s for s in said if s)
    assert said.index(message) == 29, "after 300 steps"
    assert "6.918 after 300 steps: that is chance, ln(1000) = 6.908" in message
    assert message.endswith("Try this.")


@pytest.mark.parametrize("loss", [6.85, 9.0, 0.1])
def test_a_net_that_learns_or_diverges_isnt_stuck(loss: float) -> None:
    learning = Learning(1000, 0, "")
    assert not any(learning.observe([loss] * 10, step, 0.01) for step in range(10, 500, 10))


def test_a_net_that_falls_back_to_chance_is_told_of_once() -> None:
    learning, said = Learning(10, 300, "Try this."), []
    losses = [2.30] * 20 + [1.5] * 20 + [2.30] * 20  # ten steps each
    for n, loss in enumerate(losses, start=1):
        said.append(learning.observe([loss] * 10, 10 * n, 0.01))
    (message,) = (s for s in said if s)
    assert said.index(message) == 44, "as soon as no step of the window knows better"
    assert message.startswith("the training loss was 1.500 and is 2.300 at step 450: that is chance, ln(10) = 2.303.")
    assert message.endswith("lost what it had learned. Try a lower learning rate (--set train.lr=0.001).")


def test_a_run_that_was_resumed_needs_a_window_of_losses_first() -> None:
    learning = Learning(10, 0, "")
    said = [learning.observe([math.log(10)] * 10, step, 0.01) for step in range(5010, 5111, 10)]
    assert [bool(s) for s in said] == [False] * 4 + [True] + [False] * 6


def test_a_stalled_loader_is_named_while_training_waits(caplog: pytest.LogCaptureFixture) -> None:
    watch = StallWatch(lambda: "reading train-000003.tar", seconds=0.1)
    with watch:
        pass
    time.sleep(0.25)
    assert not caplog.text, "nobody waits"
    with watch:
        time.sleep(0.3)
    watch.close()
    assert caplog.text.count("the loader is reading train-000003.tar") == 1


def test_a_short_wait_for_data_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = StallWatch(lambda: "reading", seconds=1.0)
    with watch:
        time.sleep(0.6)
    watch.close()
    assert not caplog.text


def test_with_one_class_nothing_can_be_stuck() -> None:
    assert Learning(1, 0, "").observe([0.0] * WINDOW, 10**6, 0.01) is None
