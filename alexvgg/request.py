"""What an evaluation is asked for: data, which takes no library to read."""

import hashlib
import json
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
        for name, values in (("run", self.runs), ("test scale", self.test_scales or ())):
            if len(set(values)) < len(values):
                raise InputError(f"a {name} stands twice in {', '.join(map(str, values))}; name each once")
        if self.fuse and len(self.runs) == 1:
            raise InputError(f"fusing needs at least two runs, and {self.runs[0]} is one; leave --fuse away")

    @property
    def name(self) -> str:
        """Derived, not random: `evaluate-3f2a91c4`."""
        return f"evaluate-{hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()[:8]}"
