"""Lengths of time as people write them: ``7d``, ``12h``, ``30m``, ``5s``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def as_duration(text: str | timedelta) -> timedelta:
    """Return a length of time.

    Args:
        text: one or more numbers, each with its unit, e.g. ``1d12h``; a default passes as it is.

    Raises:
        typer.BadParameter: it is none.
    """
    if isinstance(text, timedelta):
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text!r} is no length of time; write e.g. 7d, 12h, 30m or 5s")
    try:
        return sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than can be reckoned with") from None
