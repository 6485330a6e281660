"""Lengths of time on the command line: asked for as ``7d`` or ``30m``, told as ``7.0 d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from tasktrail.errors import InvalidField

UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
LONGEST: Final = timedelta(days=3650)


def duration(option: str, text: str, *, shortest: timedelta = timedelta(0)) -> timedelta:
    """Return the length of time that a text means.

    Args:
        option: where it was given, for the message.
        text: a whole number and a unit: d, h, m or s.
        shortest: the least that makes sense.

    Raises:
        InvalidField: it is none, or too short or too long.
    """
    match = re.fullmatch(r"([0-9]{1,9})([dhms])", text.strip())
    if match is None:
        raise InvalidField(option, text, "write a whole number and d, h, m or s, e.g. 7d or 30m")
    found = timedelta(**{UNITS[match[2]]: int(match[1])})
    if found < shortest:
        raise InvalidField(option, text, f"must be {shortest.total_seconds():g}s or more")
    if found > LONGEST:
        raise InvalidField(option, text, f"must be {LONGEST.days}d or less")
    return found


def spoken(seconds: float) -> str:
    """Return a length of time for people, in the largest unit of which there is at least one.

    Args:
        seconds: how long, 0 or more.
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
