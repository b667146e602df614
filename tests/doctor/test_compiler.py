"""Whether nets will be compiled."""

import pytest

from alexvgg.doctor import machine
from alexvgg.doctor.machine import check_compiler


@pytest.mark.parametrize(("there", "state"), [(True, "ok"), (False, "warning")])
def test_without_a_compiler_training_is_slower(there: bool, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "chosen_compile", lambda device, asked: there and device.type == "cuda")
    assert check_compiler().state == state
