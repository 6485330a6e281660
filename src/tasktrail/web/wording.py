"""Numbers, times and texts as pages show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from tasktrail.display import visible
from tasktrail.masking import mask_text

UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))
LONGEST_LINE: Final = 100
"""A flat list or object that is no longer than this is shown on one line, in characters."""


def number(value: float | None) -> str:
    """Return a number exactly, with separators."""
    return "—" if value is None else f"{value:,}"


def rate(value: float | None) -> str:
    """Return a number per minute."""
    if value is None:
        return "—"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004  # three digits are enough


def percent(share: float | None) -> str:
    """Return a share of 1 as a percentage; never 100 % when something is missing."""
    if share is None:
        return "—"
    shown = f"{share:.1%}"
    return "> 99.9 %" if shown == "100.0%" and share < 1 else shown.replace("%", " %")


def seconds(value: float | None) -> str:
    """Return a length of time in the largest unit of which there is at least one."""
    if value is None:
        return "—"
    size = abs(value)
    for unit, length in UNITS:
        if size >= length:
            return f"{value / length:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value * 1000:.0f} ms" if size < 1 else f"{value:.1f} s"


def ago(moment: datetime, now: datetime) -> str:
    """Return a moment as seen from now."""
    passed = (now - moment).total_seconds()
    if abs(passed) < 1:
        return "now"
    return f"{seconds(passed)} ago" if passed > 0 else f"in {seconds(-passed)}"


def moment(value: datetime) -> str:
    """Return a moment with its zone."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def shown(text: str | None) -> str:
    """Return the text of an error as people may see it."""
    return "" if text is None else visible(mask_text(text))


def value(content: Any) -> str:
    """Return the value of a field, already masked."""
    if content is None:
        return "—"
    if isinstance(content, datetime):
        return moment(content)
    if isinstance(content, date):
        return content.isoformat()
    if isinstance(content, Mapping | list | tuple):
        line = json.dumps(content, ensure_ascii=False, default=str)
        parts = content.values() if isinstance(content, Mapping) else content
        is_flat = not any(isinstance(part, Mapping | list | tuple) for part in parts)
        if is_flat and len(line) <= LONGEST_LINE:
            return visible(line)
        return visible(json.dumps(content, ensure_ascii=False, default=str, indent=2))
    return visible(str(content))
