"""Reads how long a server asks to be left alone (RFC 9110, section 10.2.3, Retry-After)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_PAUSE = 86_400.0
"""Longest pause believed, in seconds: rates are published every day."""

_SECONDS = re.compile(r"[0-9]+")


def retry_after_seconds(value: str | None, server_time: str | None, now: datetime) -> float | None:
    """Return the pause a server asks for.

    A date is taken relative to the server's own clock where it tells the time, so that a wrong clock
    here does not lengthen the pause.

    Args:
        value: the header Retry-After: seconds, or a date.
        server_time: the header Date.
        now: the time here, with a time zone, for servers that do not tell theirs.

    Returns:
        Seconds from 0 to ``LONGEST_PAUSE``; None if there is no header or nobody could read it.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return LONGEST_PAUSE if len(text) > len("86400") else min(float(text), LONGEST_PAUSE)
    until = _time(text)
    if until is None:
        return None
    pause = (until - (_time(server_time or "") or now)).total_seconds()
    return min(max(pause, 0.0), LONGEST_PAUSE)


def _time(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
