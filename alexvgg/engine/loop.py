"""The steps of training: updates, the numbers they give, what is done between two of them. No step waits for one."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from alexvgg.batch import Batch
from alexvgg.config import STEPS_PER_POINT, TrainConfig
from alexvgg.engine.checkpoint import Checkpoint
from alexvgg.engine.device import OnDevice, Readback, copy_stream
from alexvgg.engine.exchange import Net, agree, distributed
from alexvgg.engine.guards import Learning, StallWatch, check_finite
from alexvgg.engine.pace import Pace
from alexvgg.engine.replicas import check_replicas
from alexvgg.engine.schedule import Plateau
from alexvgg.engine.step import Normalisation, Precision, Updater, set_lr, sgd
from alexvgg.engine.traffic import Exchange
from alexvgg.engine.wishes import Stopped, Wishes
from alexvgg.engine.world import World

STEPS_PER_CHECK = 500  # the ranks' weights are compared; and before every checkpoint, so that none holds a drift


class Recorder(Protocol):
    """Where a trainer writes down what happens; called on every rank, at the same steps."""

    def step(self, batch: Batch, share: Tensor) -> None: ...
    def point(self, step: int, loss: float, pace: dict[str, float]) -> None: ...
    def warning(self, step: int, message: str) -> None: ...


class Trainer:
    """One rank's net, optimizer and schedule, and how far they have come: `step` updates, `consumed` samples.

    `save` writes a checkpoint; it is called on every rank at the same step. `stage` says what the loader is doing.
    `most_rows` is the most samples that a rank holds in a step; by default a rank may hold the global batch.
    Raises InputError, on every rank, if the world can't exchange gradients as asked.
    """

    def __init__(
        self,
        net: nn.Module,
        config: TrainConfig,
        world: World,
        normalise: Normalisation,
        recorder: Recorder,
        learning: Learning,
        *,
        save: Callable[[], None] = lambda: None,
        stage: Callable[[], str] = lambda: "fetching or decoding images",
        wishes: Wishes | None = None,
        precision: Precision = "auto",
        micro_batch: int | None = None,
        compiled: bool = False,
        exchange: Exchange = "auto",
        most_rows: int | None = None,
    ) -> None:
        self.config, self.world, self.recorder = config, world, recorder
        self.net = net.to(world.device).to(memory_format=torch.channels_last)
        chance = 1 - 1 / learning.classes
        self.schedule = Plateau(config.lr, config.plateau_patience, config.plateau_threshold, chance)
        self.optimizer = sgd(
            self.net, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
            decay_biases=config.decay_biases,
        )  # fmt: skip
        rows = most_rows or config.global_batch
        self.exchange = agree(self.net, world, exchange, config.global_batch, rows)
        model = distributed(self.net, world, self.exchange, compiled=compiled)
        self.update = Updater(model, self.optimizer, normalise, world, precision, micro_batch)
        if world.size > 1:
            self.update.settle(cast(Net, net).crop, rows)
        self.wishes = wishes if wishes is not None else Wishes()
        self.step = self.consumed = 0
        self._learning, self._save, self._stage = learning, save, stage
        self._pace = Pace()
        self._flags, self._numbers, self._copies = Readback(), Readback(), copy_stream(world.device)
        self._tail: list[Tensor] = []  # this rank's numbers of the steps since the last point
        self._sums, self._steps = [0.0, 0.0, 0.0], 0  # of this epoch's points: losses, wrong answers, samples

    def epoch(self, batches: Iterator[Batch], samples: int, steps: int) -> dict[str, float]:
        """The next `steps` steps of an epoch of `samples` samples. Returns its metrics once the epoch is complete.

        Raises Stopped, after a checkpoint, if any rank was asked to stop, and DivergedError.
        """
        self.net.train()
        started, first = time.perf_counter(), self.consumed
        watch, self._pace = StallWatch(self._stage), Pace()
        try:
            moved = OnDevice(batches, self.world.device, self._copies)
            for left in reversed(range(steps)):
                before = moved.waited
                with watch:
                    batch = next(moved)
                numbers, flags = self.update(batch, self._wished())
                self.step += 1
                images = min(self.config.global_batch, samples - self.consumed % samples)
                self.consumed += images
                self._pace.add(images, moved.waited - before)
                self._tail.append(numbers)
                self.recorder.step(batch, numbers[0])
                self._flags.push(self.step, flags)
                if len(self._tail) == STEPS_PER_POINT:
                    self._numbers.push(self.step, self.world.sum(torch.stack(self._tail)))
                    self._tail = []
                if left:  # a checkpoint after the last step, before the epoch was scored, would lose the score
                    self._act()
        finally:
            watch.close()
        metrics = self._close_epoch()
        seconds = time.perf_counter() - started
        return metrics | {
            "train/lr": self.schedule.lr,
            "perf/images_per_s": (self.consumed - first) / seconds,
            "perf/data_wait_share": moved.waited / seconds,
        }

    def observe(self, error: float) -> None:
        """Tell the schedule an epoch's validation error, as a share of all images."""
        self.schedule = self.schedule.observe(error)
        set_lr(self.optimizer, self.schedule.lr)

    def progress(self) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors, as JSON types. Every rank calls this at the same step.

        Raises DriftError if the ranks no longer hold the same weights, and DivergedError.
        """
        check_replicas(self.net, self.world, self.step)
        for step, numbers in self._numbers.all():
            self._note(step, numbers)
        tail = self.world.sum(torch.stack(self._tail)).tolist() if self._tail else []
        check_finite([loss for loss, _, _ in tail], self.step, self.schedule.lr)  # no checkpoint of lost weights
        return {
            "consumed": self.consumed, "schedule": self.schedule.state(),
            "epoch": {"sums": self._sums, "steps": self._steps, "tail": tail},
        }  # fmt: skip

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of the net and the optimizer, by file; not copied."""
        state = self.optimizer.state
        momentum = {name: state[p]["momentum_buffer"] for name, p in self.net.named_parameters()}
        return {"model": dict(self.net.state_dict()), "momentum": momentum}

    def resume(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, on any number of ranks; on as many as wrote it, bitwise as if nothing had been."""
        self.net.load_state_dict(saved.model)
        for name, parameter in self.net.named_parameters():
            buffer = torch.empty_like(parameter).copy_(saved.momentum[name])
            self.optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
        self.step, self.consumed = saved.step, saved.progress["consumed"]
        self.schedule = self.schedule.resumed(saved.progress["schedule"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr  # not set_lr: the buffers are those of this learning rate
        epoch = saved.progress["epoch"]
        self._sums, self._steps = epoch["sums"], epoch["steps"]
        # The saved numbers are sums over ranks: rank 0 holds them, and the others nothing of them.
        tail = torch.tensor(epoch["tail"], dtype=torch.float32, device=self.world.device)
        self._tail = list(tail if self.world.rank == 0 else torch.zeros_like(tail))

    def stop_if_wished(self) -> None:
        """As between two steps, but at once, and where a checkpoint was just stored. Every rank calls this."""
        stop, _, _, failed = self.world.sum(torch.tensor(self._wished(), device=self.world.device)).tolist()
        self._end_if(stop > 0, failed > 0)

    def _act(self) -> None:
        """Note the losses that have arrived, and do what all ranks agreed on some steps ago."""
        if self.step % STEPS_PER_CHECK == 0:
            check_replicas(self.net, self.world, self.step)
        for step, numbers in self._numbers.arrived(self.step):
            self._note(step, numbers)
        for _, flags in self._flags.arrived(self.step):
            stop, checkpoint, look, failed = flags.tolist()
            if look and self.wishes.look is not None:
                self.wishes.look(self.wishes)
            if stop or checkpoint:
                self._save()
            self._end_if(stop > 0, failed > 0)

    def _wished(self) -> tuple[float, float, float, float]:
        return self.wishes.flags(keeps_time=self.world.rank == 0)

    def _end_if(self, stop: bool, failed: bool) -> None:
        if failed:
            raise self.wishes.failure or Stopped(f"stopped at step {self.step}: another rank failed, see its log")
        if stop:
            raise Stopped(f"stopped at step {self.step}, with a checkpoint")

    def _note(self, step: int, numbers: Tensor) -> None:
        """Take in all ranks' numbers of the steps up to `step`, (steps, 3)."""
        losses = numbers[:, 0].tolist()
        check_finite(losses, step, self.schedule.lr)
        self._add(numbers.tolist())
        self.recorder.point(step, math.fsum(losses) / len(losses), self._pace.report())
        if (message := self._learning.observe(losses, step, self.schedule.lr)) is not None:
            self.recorder.warning(step, message)

    def _add(self, steps: list[list[float]]) -> None:
        self._sums = [math.fsum(column) for column in zip(self._sums, *steps, strict=True)]
        self._steps += len(steps)

    def _close_epoch(self) -> dict[str, float]:
        """The mean loss of the epoch's steps and the error on its samples; the next epoch starts from nothing.

        Of the wishes of its last steps none is lost: it is stored now, and then `stop_if_wished` is asked.
        """
        looks = [flags[2] for _, flags in self._flags.all()]
        if any(looks) and self.wishes.look is not None:
            self.wishes.look(self.wishes)
        self._add(self.progress()["epoch"]["tail"])
        (loss, wrong, samples), steps = self._sums, self._steps
        self._tail, self._sums, self._steps = [], [0.0, 0.0, 0.0], 0
        return {"train/loss_epoch": loss / steps} | ({"train/top1_error": 100 * wrong / samples} if samples else {})
