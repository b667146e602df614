"""Text in columns."""

from alexvgg.columns import Column, aligned

COLUMNS = (
    Column("run", ["a", "alexnet_no_overlap-s256-8e36c5db"], left=True),
    Column("state", ["finished", "planned"], left=True),
    Column("step", ["1", "-"], spare=2),
    Column("loss", ["0.5", "2.25"], spare=1),
)


def test_columns_are_as_wide_as_their_longest_text() -> None:
    assert aligned(COLUMNS) == [
        "run                               state     step  loss",
        "a                                 finished     1   0.5",
        "alexnet_no_overlap-s256-8e36c5db  planned      -  2.25",
    ]


def test_what_can_be_spared_goes_first_and_then_the_widest_is_cut() -> None:
    heads = {width: aligned(COLUMNS, width)[0].split() for width in (60, 54, 53, 48, 47, 42)}
    assert heads == {
        60: ["run", "state", "step", "loss"], 54: ["run", "state", "step", "loss"], 53: ["run", "state", "loss"],
        48: ["run", "state", "loss"], 47: ["run", "state"], 42: ["run", "state"],
    }  # fmt: skip
    assert aligned(COLUMNS, 20) == ["run         state", "a           finished", "alexnet_n…  planned"]
