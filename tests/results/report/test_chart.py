"""Axes that people can read, and curves that stay small."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexvgg.results.report.chart import MOST_POINTS, Line, Mark, Panel, chart, legend, number, thinned, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-2, 1e6), st.integers(2, 10))
def test_ticks_are_few_round_and_cover_the_values(low: float, span: float, most: int) -> None:
    found = ticks(low, low + span, most)
    assert 2 <= len(found) <= most + 2
    assert found == sorted(set(found))
    tolerance = 1e-6 * max(1.0, abs(low), span)
    assert found[0] <= low + tolerance
    assert found[-1] >= low + span - tolerance


def test_ticks_of_common_ranges() -> None:
    assert ticks(0, 24, 6) == [0, 5, 10, 15, 20, 25]
    assert ticks(0, 2.3, 4) == [0, 1, 2, 3]
    assert ticks(0, 0, 4) == [0, 0.5, 1]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=2000))
def test_a_thinned_line_has_the_same_mean_and_few_points(values: list[float]) -> None:
    points = [(float(i), v) for i, v in enumerate(values)]
    found = thinned(points)
    assert len(found) <= MOST_POINTS
    if len(points) <= MOST_POINTS:
        assert found == points
    if len(points) % -(-len(points) // MOST_POINTS) == 0:
        mean = math.fsum(y for _, y in found) / len(found)
        assert mean == pytest.approx(math.fsum(values) / len(values), abs=1e-6)


def test_a_chart_is_well_formed_and_keeps_within_itself() -> None:
    lines = [Line("a < b", [(1, 90.0), (2, 50.0), (24, 3.0)], 0), Line("one point", [(5, 10.0)], 9)]
    marks = [Mark(23.9, 'lr 0.001 & "low"', "lr"), Mark(1, "attempt 2", "restart")]
    drawn = chart([Panel("error, %", lines), Panel("empty", [])], "epochs", marks=marks, about="a <test>")
    svg = ET.fromstring(drawn)
    width, height = (float(svg.attrib[side]) for side in ("width", "height"))
    for dot in svg.iter("circle"):
        assert 0 <= float(dot.attrib["cx"]) <= width
        assert 0 <= float(dot.attrib["cy"]) <= height
    notes = {t.text: t.attrib["text-anchor"] for t in svg.iter("text") if "note" in t.attrib["class"]}
    assert notes == {'lr 0.001 & "low"': "end", "attempt 2": "start"}, "a label stands where there is room"
    assert ET.fromstring(legend(lines))[0].findtext(".") is not None


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0, 0.25, 12.0, 9000, 370_000)] == ["0", "0.25", "12", "9000", "370k"]
