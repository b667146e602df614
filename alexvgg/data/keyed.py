"""Random numbers as pure functions of keys: nothing is carried, so threads and resuming can't change a draw.

SplitMix64's finaliser (Steele, Lea & Flood 2014), once per input, so that neighbouring keys are unrelated.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_GAMMA, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def sample_keys(seed: int, epoch: int, samples: Ints) -> Ints:
    """One 64-bit key per sample, from (seed, epoch, sample id): seeds its augmentation and its dropout."""
    with np.errstate(over="ignore"):
        z = _mix(np.uint64(seed) + _GAMMA)
        z = _mix(z ^ (np.uint64(epoch) + _GAMMA))
        return _mix(z ^ (samples.astype(np.uint64) + _GAMMA)).view(np.int64)


def uniforms(keys: Ints, count: int) -> Floats:
    """`count` numbers in [0; 1) for each of n keys: (count, n)."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, count + 1, dtype=np.uint64)[:, None] * _GAMMA
        bits = _mix(keys.view(np.uint64)[None, :] + counter)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(first: Floats, second: Floats) -> Floats:
    """Standard normal numbers from two uniform ones each (Box & Muller 1958)."""
    result: Floats = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
    return result


def _mix(z: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = np.asarray(z, np.uint64)
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        return z ^ (z >> np.uint64(31))
