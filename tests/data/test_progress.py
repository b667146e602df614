"""What long work says of itself: lines now and then, or what a bar needs after each step."""

import pytest

from alexvgg.data import progress
from alexvgg.data.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_a_line_every_few_seconds_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), list[str]()
    packed = Progress("packed", 100, said.append)
    for second in range(1, 101):
        clock.now = 100.0 + 2 * second
        packed.add(10_000_000)
    assert said[0] == "packed 3 of 100 shards, 0.03 GB, 5 MB/s, 3 min left"
    assert said[-1] == "packed 100 of 100 shards, 1.00 GB, 5 MB/s"
    assert len(said) == 34


def test_what_moves_no_bytes_says_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), list[str]()
    scored = Progress("scored", 1, said.append, "parts")
    clock.now += 1
    scored.add()
    assert said == ["scored 1 of 1 parts"]


def test_a_bar_is_told_of_every_step() -> None:
    shown = []

    class Bar:
        def __call__(self, line: str) -> None:
            raise AssertionError(line)

        def show(self, *step: object) -> None:
            shown.append(step)

    packed, scored = Progress("packed", 2, Bar()), Progress("scored", 1, Bar(), "parts")
    packed.add(20_000_000)
    packed.add(20_000_000)
    scored.add()
    assert shown == [
        ("packed", 1, 2, "shards, 0.02 GB"), ("packed", 2, 2, "shards, 0.04 GB"), ("scored", 1, 1, "parts"),
    ]  # fmt: skip
