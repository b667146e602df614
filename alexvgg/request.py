"""What an evaluation is asked for: data, which takes no library to read."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from alexvgg.config import check_test_scales, to_dict
from alexvgg.errors import InputError
from alexvgg.results.paper import Method


@dataclass(frozen=True)
class Request:
    """What to evaluate: each run, or with `fuse` the mean of them all.

    Without `test_scales` each run is tested at the Q's that its recipe averages (Table 4's for VGG).
    Raises InputError for a request that makes no sense.
    """

    runs: tuple[str, ...]
    method: Method = "dense"
    test_scales: tuple[int, ...] | None = None
    fuse: bool = False

    def __post_init__(self) -> None:
        check_test_scales(self.test_scales or ())
        check_once("run", self.runs)
        check_once("test scale", self.test_scales or ())
        if self.fuse and len(self.runs) == 1:
            raise InputError(f"fusing needs at least two runs, and {self.runs[0]} is one; omit --fuse")

    @property
    def name(self) -> str:
        """Derived, not random: `evaluate-3f2a91c4`. In which order runs and scales are named says nothing."""
        values = to_dict(self) | {"runs": sorted(self.runs), "test_scales": sorted(self.test_scales or ()) or None}
        return f"evaluate-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"

    @property
    def passes(self) -> frozenset[str]:
        """The posteriors that it needs, as run/pass: of whole images and of crops for `both`."""
        methods = ("dense", "multicrop") if self.method == "both" else (self.method,)
        return frozenset(f"{run}/{method}" for run in self.runs for method in methods)


def check_once(what: str, values: Sequence[object]) -> None:
    """Raise InputError if one of the values stands twice."""
    if len(set(values)) < len(values):
        raise InputError(f"a {what} stands twice in {', '.join(map(str, values))}; name each once")
