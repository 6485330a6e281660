"""Lengths of time on the command line: read from a text, refused with a reason, and told to people."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from tasktrail import InvalidField
from tasktrail.cli.durations import duration, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", timedelta(days=7)),
        ("36h", timedelta(hours=36)),
        ("30m", timedelta(minutes=30)),
        (" 90s ", timedelta(seconds=90)),
        ("0s", timedelta(0)),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_number_and_a_unit_are_a_length_of_time(text: str, expected: timedelta) -> None:
    assert expected == duration("--for", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write a whole number and d, h, m or s, e.g. 7d or 30m (got '')"),
        ("7", "write a whole number and d, h, m or s, e.g. 7d or 30m (got '7')"),
        ("1.5h", "write a whole number and d, h, m or s, e.g. 7d or 30m (got '1.5h')"),
        ("-1d", "write a whole number and d, h, m or s, e.g. 7d or 30m (got '-1d')"),
        ("٣d", "write a whole number and d, h, m or s, e.g. 7d or 30m (got '٣d')"),
        ("29s", "must be 30s or more (got '29s')"),
        ("3651d", "must be 3650d or less (got '3651d')"),
    ],
)
def test_another_text_is_refused_with_the_name_of_its_option(text: str, message: str) -> None:
    with pytest.raises(InvalidField, match=f"^{re.escape(f'--for: {message}')}$"):
        duration("--for", text, shortest=timedelta(seconds=30))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1.0 min"),
        (3_600, "1.0 h"),
        (86_399, "24.0 h"),
        (86_400, "1.0 d"),
        (648_000, "7.5 d"),
    ],
)
def test_a_length_is_told_in_the_largest_unit_that_it_fills(seconds: float, expected: str) -> None:
    assert expected == spoken(seconds)
