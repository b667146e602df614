"""The trainer between two steps: what any rank wishes, what the losses say, and what never waits."""

import itertools
import json
import math
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.config import TrainConfig
from alexvgg.engine.checkpoint import Checkpoint
from alexvgg.engine.device import LAG, OnDevice, Readback
from alexvgg.engine.guards import DivergedError, Learning
from alexvgg.engine.loop import STEPS_PER_POINT, Trainer
from alexvgg.engine.pace import Pace
from alexvgg.engine.step import Normalisation, autocast
from alexvgg.engine.wishes import LOOK_SECONDS, Stopped, Wishes
from alexvgg.engine.world import World

CPU = torch.device("cpu")
CLASSES, SAMPLES = 4, 8


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        return self.fc(images.flatten(1) / 100)  # type: ignore[no-any-return]


class Notes:
    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self.paces: list[dict[str, float]] = []
        self.warnings: list[int] = []
        self.losses: list[float] = []

    def step(self, batch: Batch, share: Tensor) -> None:
        self.losses.append(share.item())

    def point(self, step: int, loss: float, pace: dict[str, float]) -> None:
        self.points.append((step, loss))
        self.paces.append(pace)

    def warning(self, step: int, message: str) -> None:
        self.warnings.append(step)


def batches(n: int, scale: float = 1.0) -> Iterator[Batch]:
    for seed in range(n):
        g = torch.Generator().manual_seed(seed)
        images = (torch.randint(0, 256, (SAMPLES, 3, 2, 2), generator=g) * scale).to(torch.uint8)
        yield Batch(
            images, torch.zeros(SAMPLES, 3), torch.arange(SAMPLES) % CLASSES, torch.ones(SAMPLES),
            torch.arange(SAMPLES), torch.arange(SAMPLES),
        )  # fmt: skip


def trainer(
    notes: Notes, wishes: Wishes | None = None, *, lr: float = 1e-3, patience: int = 2, saved: list[int] | None = None,
    **more: Any,
) -> Trainer:  # fmt: skip
    """A trainer that appends the steps at which it saves to `saved`."""
    torch.manual_seed(0)
    steps = saved if saved is not None else []
    config = TrainConfig(global_batch=SAMPLES, lr=lr, epochs=9, plateau_patience=patience)
    made = Trainer(
        Linear(), config, World(0, 1, CPU), Normalisation((0.0, 0.0, 0.0)), notes, Learning(CLASSES, 10**6, ""),
        wishes=wishes, save=lambda: steps.append(made.step), **more,
    )  # fmt: skip
    return made


def test_points_and_the_epochs_mean_hold_every_step_once() -> None:
    notes = Notes()
    metrics = trainer(notes).epoch(batches(23), 10**6, 23)
    assert [step for step, _ in notes.points] == [STEPS_PER_POINT, 2 * STEPS_PER_POINT]
    again = trainer(Notes())
    numbers = [again.update(batch, again.wishes.flags(keeps_time=True))[0].tolist() for batch in batches(23)]
    losses, wrong, samples = zip(*numbers, strict=True)
    assert samples == (SAMPLES,) * 23
    assert 0 < sum(wrong) < 23 * SAMPLES
    assert metrics["train/top1_error"] == pytest.approx(100 * sum(wrong) / (23 * SAMPLES))
    assert metrics["train/loss_epoch"] == pytest.approx(math.fsum(losses) / 23)
    assert [loss for _, loss in notes.points] == pytest.approx([sum(losses[:10]) / 10, sum(losses[10:20]) / 10])


@pytest.mark.parametrize("steps", [3, 13])
def test_each_epochs_mean_loss_is_of_its_own_steps(steps: int) -> None:
    notes = Notes()
    t = trainer(notes)
    for number in range(3):
        mean = t.epoch(batches(steps), steps * SAMPLES, steps)["train/loss_epoch"]
        assert mean == pytest.approx(math.fsum(notes.losses[number * steps :]) / steps)


def test_a_compiled_net_has_the_losses_of_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without code being generated, which would take a C++ compiler and a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    losses = []
    for compiled in (False, True):
        made = trainer(Notes(), compiled=compiled)
        losses.append([made.update(batch, made.wishes.flags(keeps_time=True))[0][0].item() for batch in batches(5)])
        assert list(made.net.state_dict()) == ["fc.weight", "fc.bias"], "checkpoints keep their names"
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert inductor.compile_threads == 1, "its pool of processes may stand still"


def test_the_newest_numbers_are_those_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=0.5)  # every look at it takes half a second
    monkeypatch.setattr("alexvgg.engine.pace.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    pace = Pace()
    pace.add(64, 0.125)
    pace.add(32, 0.125)
    assert pace.report() == {"perf/images_per_s": 96 / 0.5, "perf/data_wait_share": 0.5}
    pace.add(10, 0.0)
    assert pace.report() == {"perf/images_per_s": 10 / 0.5, "perf/data_wait_share": 0.0}


def test_points_say_how_fast_their_steps_went() -> None:
    notes = Notes()
    trainer(notes).epoch(batches(30), 10**6, 30)
    assert len(notes.paces) == 3
    assert all(0 <= pace["perf/data_wait_share"] <= 1 < pace["perf/images_per_s"] for pace in notes.paces)


def test_a_wish_is_acted_on_once_and_at_the_agreed_step() -> None:
    wishes, saved = Wishes(), []
    wishes.checkpoint.set()
    trainer(Notes(), wishes, saved=saved).epoch(batches(20), 10**6, 20)
    assert saved == [1 + LAG]
    wishes, saved = Wishes(), []
    wishes.stop.set()
    with pytest.raises(Stopped, match=f"step {1 + LAG}"):
        trainer(Notes(), wishes, saved=saved).epoch(batches(20), 10**6, 20)
    assert saved == [1 + LAG], "it stopped without a checkpoint"


def test_looking_around_is_for_every_rank_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looked = [0.0], []
    monkeypatch.setattr("alexvgg.engine.wishes.time.monotonic", lambda: now[0])
    looking = lambda _: looked.append(now[0])  # noqa: E731
    wishes = Wishes(look=looking, checkpoint_seconds=LOOK_SECONDS * 3, _looked=0.0, saved=0.0)
    flags = []
    for _ in range(8):
        now[0] += LOOK_SECONDS / 2 + 0.1
        flags.append(wishes.flags(keeps_time=True))
        assert wishes.flags(keeps_time=False) == (0, 0, 0, 0), "another rank's clock counts, too"
    assert [f[2] for f in flags] == [0, 1] * 4
    assert [f[1] for f in flags] == [0, 0, 0, 0, 0, 1, 0, 0], "a checkpoint by the clock"


def test_a_failure_beside_training_ends_it_with_its_cause() -> None:
    wishes = Wishes(failure=RuntimeError("the disk is full"))
    with pytest.raises(RuntimeError, match="the disk is full"):
        trainer(Notes(), wishes).epoch(batches(20), 10**6, 20)


def test_divergence_ends_training_with_the_step() -> None:
    with pytest.raises(DivergedError, match=r"at step \d+ \(learning rate 1e\+06\)"):
        trainer(Notes(), lr=1e6).epoch(batches(100), 10**6, 100)


def test_the_learning_rate_drops_for_the_optimizer_too() -> None:
    t = trainer(Notes())
    for _ in range(4):
        t.observe(0.5)
    assert [g["lr"] for g in t.optimizer.param_groups] == pytest.approx([1e-4, 1e-4])


def epoch(t: Trainer, error: float) -> None:
    t.epoch(batches(2), 2 * SAMPLES, 2)
    t.observe(error)


def stored(t: Trainer) -> Checkpoint:
    """What a checkpoint of now would hold when it is read."""
    files = {file: {name: tensor.clone() for name, tensor in group.items()} for file, group in t.tensors().items()}
    return Checkpoint(t.step, files["model"], files["momentum"], json.loads(json.dumps(t.progress())))


ERRORS = (0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4)
RATES = [1e-2] * 2 + [1e-3] * 2 + [1e-4] * 3 + [1e-5]  # after each epoch, with a patience of one


@pytest.mark.parametrize("resumed", range(1, len(ERRORS)))
def test_after_a_drop_a_resumed_run_is_bitwise_the_uninterrupted_one(resumed: int) -> None:
    whole, again = (trainer(Notes(), lr=1e-2, patience=1) for _ in range(2))
    trained = [whole]
    for number, error in enumerate(ERRORS):
        if number == resumed:
            again.resume(stored(whole))
            trained.append(again)
        for t in trained:
            epoch(t, error)
            assert [g["lr"] for g in t.optimizer.param_groups] == pytest.approx([RATES[number]] * 2)
    assert again.schedule == whole.schedule
    assert torch.equal(again.net.fc.weight, whole.net.fc.weight)  # type: ignore[union-attr, arg-type]


def test_a_run_that_was_stopped_in_mid_epoch_goes_on_bitwise_with_its_losses() -> None:
    """The last batch of an epoch is short, and some losses since the last point aren't in a point yet."""
    samples, steps = 22 * SAMPLES + 3, 23

    class Impatient(Notes):
        def step(self, batch: Batch, share: Tensor) -> None:
            super().step(batch, share)
            if len(self.losses) == steps + 13:
                wishes.stop.set()

    wishes, notes, before, after = Wishes(), Notes(), Impatient(), Notes()
    whole, stopped, again = trainer(notes, lr=1e-2), trainer(before, wishes, lr=1e-2), trainer(after, lr=1e-2)
    for t in (whole, stopped):
        t.epoch(batches(steps), samples, steps)
        t.observe(0.5)
    expected = whole.epoch(batches(steps), samples, steps)
    with pytest.raises(Stopped):
        stopped.epoch(batches(steps), samples, steps)
    assert stopped.step % STEPS_PER_POINT
    again.resume(stored(stopped))
    left = 2 * steps - again.step
    found = again.epoch(itertools.islice(batches(steps), steps - left, None), samples, left)
    assert (again.step, again.consumed) == (whole.step, whole.consumed) == (2 * steps, 2 * samples)
    assert found["train/loss_epoch"] == pytest.approx(expected["train/loss_epoch"], rel=1e-7)
    assert found["train/top1_error"] == expected["train/top1_error"]
    assert before.points + after.points == notes.points
    assert torch.equal(again.net.fc.weight, whole.net.fc.weight)  # type: ignore[union-attr, arg-type]


def test_the_velocity_outlives_a_drop_of_the_learning_rate() -> None:
    def velocity() -> Tensor:
        return t.optimizer.param_groups[0]["lr"] * t.tensors()["momentum"]["fc.weight"]

    t = trainer(Notes(), lr=1e-2, patience=1)
    epoch(t, 0.5)
    epoch(t, 0.5)
    t.epoch(batches(2), 2 * SAMPLES, 2)
    before = velocity()
    t.observe(0.5)
    assert t.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    torch.testing.assert_close(velocity(), before)


def test_numbers_are_read_two_steps_later_and_none_is_lost() -> None:
    readback, read = Readback(), []
    for step in range(1, 8):
        readback.push(step, torch.tensor([float(step)]))
        read.append([s for s, _ in readback.arrived(step)])
    assert read == [[], [], [1], [2], [3], [4], [5]]
    assert [(s, n.tolist()) for s, n in readback.all()] == [(6, [6.0]), (7, [7.0])]


def test_on_a_cpu_batches_are_passed_on_as_they_are() -> None:
    made = list(batches(3))
    moved = OnDevice(iter(made), CPU, None)
    assert all(next(moved) is batch for batch in made)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_of_products_on_a_cpu(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):  # type: ignore[arg-type]
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_wishes_of_an_epochs_last_steps_are_heard_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small dataset has one step an epoch, after which nothing is acted on before the epoch was scored."""
    monkeypatch.setattr("alexvgg.engine.wishes.LOOK_SECONDS", -1.0)
    looked: list[Wishes] = []
    wishes = Wishes(look=looked.append)
    t = trainer(Notes(), wishes)
    for epochs in range(1, 4):
        t.epoch(batches(1), SAMPLES, 1)
        assert len(looked) == epochs
        assert not t._flags._queue
        t.stop_if_wished()
    wishes.stop.set()
    t.epoch(batches(1), SAMPLES, 1)
    with pytest.raises(Stopped):
        t.stop_if_wished()


@pytest.mark.parametrize("when", [8, 9, 10])
def test_one_wish_to_look_in_an_epochs_last_steps_is_enough(when: int) -> None:
    looked: list[Wishes] = []

    class Once(Wishes):
        calls = 0

        def flags(self, *, keeps_time: bool) -> tuple[float, float, float, float]:
            self.calls += 1
            return 0.0, 0.0, float(self.calls == when), 0.0

    trainer(Notes(), Once(look=looked.append)).epoch(batches(10), 10**6, 10)
    assert len(looked) == 1


def test_weights_are_compared_now_and_then_and_before_every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr("alexvgg.engine.loop.STEPS_PER_CHECK", 5)
    monkeypatch.setattr("alexvgg.engine.loop.check_replicas", lambda _net, _world, step: compared.append(step))
    t = trainer(Notes())
    t.epoch(batches(13), 10**6, 13)
    assert compared == [5, 10, 13], "the last one is at the epoch's end"
    t.progress()
    assert compared == [5, 10, 13, 13]


def test_no_checkpoint_is_made_of_lost_weights() -> None:
    """The losses since the last point are looked at, too."""
    t = trainer(Notes(), lr=1e30)
    with pytest.raises(DivergedError, match=r"at step \d+ "):
        t.epoch(batches(4), 10**6, 4)
    with pytest.raises(DivergedError):
        t.progress()
