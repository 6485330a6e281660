"""Charts: exact bars, no style of their own, and words for those who do not see them."""

from __future__ import annotations

import re

import pytest
from defusedxml import ElementTree

from tasktrail.web import charts
from tasktrail.web.charts import Column


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 2), ([2], 2), ([3], 4), ([5, 1], 10), ([11], 20), ([401], 1000), ([1001], 2000)],
)
def test_the_upper_edge_is_a_round_number(values: list[int], expected: int) -> None:
    assert charts.ceiling(values) == expected


def test_a_bar_is_as_high_as_what_it_stands_for_and_says_it() -> None:
    drawn = charts.stacked((Column("12:00: 5", 3, 0, 1), Column("12:01: <b>", 0, 0, 0)), 4, 'all & "more"')
    tree = ElementTree.fromstring(str(drawn))
    labels = [one.get("aria-label") for one in tree.iter() if one.get("aria-roledescription") == "rect mark"]
    heights = {
        fill: float(height)
        for height, fill in re.findall(r'd="[^"]*?v([0-9.]+)[^"]*" fill="var\(--([a-z]+)\)"', str(drawn))
    }

    assert tree.get("aria-label") == 'all & "more"'
    assert labels == ["12:00: 5", "12:01: <b>"]
    assert heights == {"completed": 0.75 * charts.HEIGHT, "failed": 0.25 * charts.HEIGHT}
    assert "style" not in str(drawn)


def test_a_line_of_nothing_can_be_drawn() -> None:
    assert "var(--failed)" in charts.spark((0, 0, 0), "none", "failed")
