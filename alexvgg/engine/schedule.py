"""The learning rate: a tenth whenever the validation error stops falling, three times (VGG section 3.1, AlexNet 5)."""

import math
from dataclasses import dataclass, replace
from typing import Any

DROPS = 3


@dataclass(frozen=True)
class Plateau:
    """The schedule's state. `base_lr` is the first learning rate, errors are shares of all images.

    An epoch is better if its error is below the best one by more than `threshold`; after more than `patience` epochs
    in a row that aren't, the rate drops. Both papers leave the judgement to the eye: neither prints the two numbers.
    Before the first epoch that is better than `chance`, the error of guessing, nothing has stopped falling: a deep net
    may need some epochs to begin to learn, which it can't at a thousandth of its rate.
    """

    base_lr: float
    patience: int
    threshold: float
    chance: float = math.inf
    best: float = math.inf
    waited: int = 0
    drops: int = 0

    @property
    def lr(self) -> float:
        return self.base_lr / float(10**self.drops)

    def observe(self, error: float) -> "Plateau":
        """The schedule after one more epoch with validation error `error`; NaN is never better."""
        if self.best == math.inf and error >= self.chance - self.threshold:
            return self
        if error < self.best - self.threshold:
            return replace(self, best=error, waited=0)
        if self.waited < self.patience:
            return replace(self, waited=self.waited + 1)
        return replace(self, waited=0, drops=min(self.drops + 1, DROPS))

    def state(self) -> dict[str, Any]:
        """What changes, as JSON types; `resumed` takes it back."""
        return {"best": self.best if math.isfinite(self.best) else None, "waited": self.waited, "drops": self.drops}

    def resumed(self, state: dict[str, Any]) -> "Plateau":
        best = math.inf if state["best"] is None else state["best"]
        return replace(self, best=best, waited=state["waited"], drops=state["drops"])
