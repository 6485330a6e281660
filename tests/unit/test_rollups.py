"""Spans of time cut into the widest parts that rollups are kept of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktrail.rollups import DAY, MINUTE, QUARTER, SIX_HOURS, ceiling, floor, middle, spans, upper_bound

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
MINUTES = st.integers(0, 10_000).map(lambda minutes: NOON + timedelta(minutes=minutes))


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


@pytest.mark.parametrize(
    ("since", "until", "runs"),
    [
        ("28T12:00", "28T12:00", []),
        ("28T12:01", "28T12:00", []),
        ("28T12:01", "28T12:14", [(MINUTE, "28T12:01", "28T12:14")]),
        ("28T12:00", "28T12:15", [(QUARTER, "28T12:00", "28T12:15")]),
        (
            "28T11:59",
            "29T00:16",
            [
                (MINUTE, "28T11:59", "28T12:00"),
                (SIX_HOURS, "28T12:00", "29T00:00"),
                (QUARTER, "29T00:00", "29T00:15"),
                (MINUTE, "29T00:15", "29T00:16"),
            ],
        ),
        ("27T00:00", "29T00:00", [(DAY, "27T00:00", "29T00:00")]),
    ],
)
def test_a_span_is_cut_into_the_widest_parts_that_fit(
    since: str, until: str, runs: list[tuple[int, str, str]]
) -> None:
    assert spans(at(since), at(until)) == [(width, at(start), at(end)) for width, start, end in runs]


@given(since=MINUTES, until=MINUTES)
def test_parts_follow_each_other_without_gap(since: datetime, until: datetime) -> None:
    reached = since
    for width, start, end in spans(since, until):
        assert (start, start < end) == (reached, True)
        assert start == floor(start, width)
        assert end == ceiling(end, width)
        reached = end

    assert reached == max(since, until) if since < until else reached == since


def test_a_class_of_durations_is_off_by_9_percent_at_most() -> None:
    for number in range(1, 100):
        shortest, longest = upper_bound(number - 1), upper_bound(number)

        assert longest / middle(number) == pytest.approx(middle(number) / shortest)
        assert longest / middle(number) < 1.0906


def test_the_begin_of_a_part_before_1970_is_before_the_moment() -> None:
    moment = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)

    assert floor(moment, MINUTE) == datetime(1969, 12, 31, 23, 59, tzinfo=UTC)
