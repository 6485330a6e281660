"""How long a server asks to be left alone."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.rates.sources.retry_after import LONGEST_PAUSE, retry_after_seconds

NOW = datetime(2026, 10, 30, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("86401", LONGEST_PAUSE),
        ("9" * 5000, LONGEST_PAUSE),
        ("Fri, 30 Oct 2026 18:02:00 GMT", 120.0),
        ("Fri, 30 Oct 2026 18:02:00 -0000", 120.0),
        ("Fri, 30 Oct 2026 19:02:00 +0100", 120.0),
        ("Friday, 30-Oct-26 18:02:00 GMT", 120.0),
        ("Fri Oct 30 18:02:00 2026", 120.0),
        ("Fri, 30 Oct 2026 17:00:00 GMT", 0.0),
        ("Fri, 30 Oct 2099 17:00:00 GMT", LONGEST_PAUSE),
        ("Fri, 30 Oct 99999 17:00:00 GMT", None),
    ],
)
def test_a_pause_is_read_in_both_its_forms(value, expected):
    assert expected == retry_after_seconds(value, None, NOW)


@given(st.text(), st.text())
def test_any_retry_after_is_a_pause_of_at_most_a_day_or_none(value, server_time):
    pause = retry_after_seconds(value, server_time, NOW)

    assert pause is None or 0 <= pause <= LONGEST_PAUSE
