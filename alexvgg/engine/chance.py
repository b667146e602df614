"""The loss of a net that has learned nothing: that of guessing."""

import math

STUCK_STEPS = 200  # without learning, before anything is said: healthy nets of both papers may take 100
BELOW, ABOVE = 0.005, 0.05  # how far it is from chance, as a share of ln(classes): a start is slow, too
LEARNED = 0.9  # of ln(classes): a mean loss that guessing doesn't have


def is_chance(loss: float, classes: int) -> bool:
    """Whether the mean loss of some steps is about ln(classes); never with one class, where nothing is to be learnt."""
    return classes > 1 and -BELOW <= loss / math.log(classes) - 1 <= ABOVE


def has_learned(loss: float, classes: int) -> bool:
    """Whether the mean loss of some steps is below what guessing may have."""
    return loss < LEARNED * math.log(classes)
