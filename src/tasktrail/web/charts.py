"""Charts as SVG, drawn on the server; colours are variables of the style sheet, and so follow the theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import vl_convert
from markupsafe import Markup, escape

SERIES: Final = ("completed", "cancelled", "failed")
"""From the bottom to the top."""

WIDTH: Final = 640
HEIGHT: Final = 120
SPARK: Final = (120, 24)


@dataclass(frozen=True, slots=True)
class Column:
    """One bar of a chart.

    Attributes:
        label: what it says when it is looked at.
        completed: height of its parts.
        cancelled: height of its parts.
        failed: height of its parts.
    """

    label: str
    completed: int
    cancelled: int
    failed: int

    @property
    def total(self) -> int:
        """Its height."""
        return self.completed + self.cancelled + self.failed


def ceiling(values: Sequence[int]) -> int:
    """Return a round number that no value exceeds: 2, 4 or 10 times a power of ten."""
    most = max(values, default=0)
    power = 1
    while True:
        for step in (2, 4, 10):
            if most <= step * power:
                return step * power
        power *= 10


@lru_cache(maxsize=256)
def stacked(columns: tuple[Column, ...], top: int, summary: str) -> Markup:
    """Draw bars of completed, cancelled and failed rows.

    Args:
        columns: the bars.
        top: value at the upper edge.
        summary: what the chart says, for those who do not see it.
    """
    parts: list[dict[str, Any]] = []
    for place, column in enumerate(columns):
        begin = 0
        for name in SERIES:
            end = begin + getattr(column, name)
            if end > begin:
                parts.append({"x": place, "from": begin, "to": end, "series": name})
            begin = end
    places = [{"x": place, "label": column.label} for place, column in enumerate(columns)]
    band = {"scale": "x", "band": 1}
    marks: list[dict[str, Any]] = [
        {
            "type": "rule",
            "from": {"data": "lines"},
            "encode": {
                "enter": {
                    "x": {"value": 0},
                    "x2": {"value": WIDTH},
                    "y": {"scale": "y", "field": "data"},
                    "stroke": {"value": "var(--grid)"},
                }
            },
        },
        {
            "type": "rect",
            "from": {"data": "parts"},
            "encode": {
                "enter": {
                    "x": {"scale": "x", "field": "x"},
                    "width": band,
                    "y": {"scale": "y", "field": "from"},
                    "y2": {"scale": "y", "field": "to"},
                    "fill": {"scale": "colour", "field": "series"},
                }
            },
        },
        {
            "type": "rect",
            "from": {"data": "places"},
            "encode": {
                "enter": {
                    "x": {"scale": "x", "field": "x"},
                    "width": band,
                    "y": {"value": 0},
                    "height": {"value": HEIGHT},
                    "fill": {"value": "transparent"},
                    "description": {"field": "label"},
                }
            },
        },
    ]
    scales: list[dict[str, Any]] = [
        {
            "name": "x",
            "type": "band",
            "range": "width",
            "domain": list(range(len(columns))),
            "paddingInner": 0.15,
        },
        {"name": "y", "type": "linear", "range": "height", "domain": [0, top]},
        {
            "name": "colour",
            "type": "ordinal",
            "domain": list(SERIES),
            "range": [f"var(--{name})" for name in SERIES],
        },
    ]
    data: list[dict[str, Any]] = [
        {"name": "parts", "values": parts},
        {"name": "places", "values": places},
        {"name": "lines", "values": [0, top / 2, top]},
    ]
    return _draw(WIDTH, HEIGHT, data, scales, marks, summary)


@lru_cache(maxsize=1024)
def spark(values: tuple[int, ...], summary: str, colour: str = "accent") -> Markup:
    """Draw a line of the size of a word.

    Args:
        values: the heights.
        summary: what it says, for those who do not see it.
        colour: name of the style sheet's variable.
    """
    width, height = SPARK
    points = [{"x": place, "y": value} for place, value in enumerate(values)]
    position = {"x": {"scale": "x", "field": "x"}, "y": {"scale": "y", "field": "y"}}
    area = {**position, "y2": {"value": height}, "fill": {"value": f"var(--{colour})"}}
    line = {**position, "stroke": {"value": f"var(--{colour})"}, "strokeWidth": {"value": 1.5}}
    marks: list[dict[str, Any]] = [
        {
            "type": "area",
            "from": {"data": "points"},
            "encode": {"enter": {**area, "fillOpacity": {"value": 0.15}}},
        },
        {"type": "line", "from": {"data": "points"}, "encode": {"enter": line}},
    ]
    scales: list[dict[str, Any]] = [
        {"name": "x", "type": "linear", "range": "width", "domain": [0, max(1, len(values) - 1)]},
        {"name": "y", "type": "linear", "range": [height, 1], "domain": [0, max(1, *values, 1)]},
    ]
    return _draw(width, height, [{"name": "points", "values": points}], scales, marks, summary)


def warm() -> None:
    """Draw something, as the first chart takes a second."""
    spark((0, 1), "")


def _draw(
    width: int,
    height: int,
    data: list[dict[str, Any]],
    scales: list[dict[str, Any]],
    marks: list[dict[str, Any]],
    summary: str,
) -> Markup:
    drawn = vl_convert.vega_to_svg(
        {
            "$schema": "https://vega.github.io/schema/vega/v5.json",
            "width": width,
            "height": height,
            "padding": 0,
            "autosize": "none",
            "data": data,
            "scales": scales,
            "marks": marks,
        }
    )
    inside = drawn[drawn.index(">") + 1 :]
    head = (
        f'<svg class="drawn" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(summary)}">'
    )
    return Markup(head + inside)  # noqa: S704  # the library escapes what it is given
