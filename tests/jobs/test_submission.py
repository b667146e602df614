"""What is decided before anything is sent."""

import math
from pathlib import Path

import pytest
from records import SPECS, store_finished

from alexvgg.data.store import open_store
from alexvgg.errors import InputError
from alexvgg.profiles import Profile
from jobs.submission import decide


def test_a_child_of_a_net_that_has_learned_nothing_is_refused_before_it_starts(tmp_path: Path) -> None:
    storage, parent, child = open_store(tmp_path.as_uri()), SPECS["vgg_a-s256"], SPECS["vgg_b-s256"]
    profile = Profile(storage.url, "file:///digits", "http://127.0.0.1:8265")
    store_finished(storage, parent, loss=math.log(10), step=552)
    with pytest.raises(InputError, match=f"{child.name} starts from {parent.name}, which has learned nothing"):
        decide(None, [parent, child], (), profile, (1, 1), storage, 1437)
    assert decide(None, [parent], (), profile, (1, 1), storage, 1437).is_done
    store_finished(storage, child, loss=0.5, step=552)  # by a version that didn't look
    assert decide(None, [parent, child], (), profile, (1, 1), storage, 1437).is_done
