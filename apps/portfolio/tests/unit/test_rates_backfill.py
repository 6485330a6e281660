"""Which days of a range a backfill asks for."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.rates.backfill import Backfill, plan_backfill
from portfolio.rates.calendar import FIRST_DAY, newest_published_day, why_nothing_is_published
from tasktrail import InvalidField

BEFORE_FOUR = datetime(2026, 11, 24, 14, 59, tzinfo=UTC)
AFTER_FOUR = datetime(2026, 11, 24, 15, 1, tzinfo=UTC)  # in Frankfurt: 16:01


@pytest.mark.parametrize(
    ("first", "last", "now", "days", "without", "to_come"),
    [
        (date(2026, 10, 30), date(2026, 10, 30), AFTER_FOUR, 1, 0, 0),
        (date(2026, 10, 24), date(2026, 10, 25), AFTER_FOUR, 0, 2, 0),
        (date(2026, 10, 1), date(2026, 10, 31), AFTER_FOUR, 22, 9, 0),
        (date(2026, 11, 23), date(2026, 11, 24), AFTER_FOUR, 2, 0, 0),
        (date(2026, 11, 23), date(2026, 11, 24), BEFORE_FOUR, 1, 0, 1),
        (date(2026, 11, 21), date(2026, 12, 31), BEFORE_FOUR, 1, 2, 38),
        (date(2027, 1, 1), date(2027, 1, 31), AFTER_FOUR, 0, 0, 31),
        (date(1998, 12, 31), date(1999, 1, 4), AFTER_FOUR, 1, 4, 0),
        (date(1998, 1, 1), date(1998, 1, 2), AFTER_FOUR, 0, 2, 0),
    ],
)
def test_the_days_of_a_range_are_sorted(
    first: date, last: date, now: datetime, days: int, without: int, to_come: int
) -> None:
    planned = plan_backfill(first, last, now)

    assert (len(planned.days), planned.without, planned.to_come) == (days, without, to_come)


def test_the_days_are_in_order_and_those_of_the_calendar() -> None:
    planned = plan_backfill(date(2026, 10, 23), date(2026, 10, 27), AFTER_FOUR)

    assert planned == Backfill((date(2026, 10, 23), date(2026, 10, 26), date(2026, 10, 27)), 2, 0)


def test_the_longest_range_there_is_ends_with_the_newest_rates() -> None:
    planned = plan_backfill(date.min, date.max, BEFORE_FOUR)

    assert (planned.days[0], planned.days[-1]) == (FIRST_DAY, date(2026, 11, 23))
    assert len(planned.days) + planned.without + planned.to_come == date.max.toordinal()


@given(
    st.dates(date(2026, 9, 1), date(2027, 1, 31)),
    st.integers(0, 120),
    st.datetimes(datetime(2026, 9, 1), datetime(2027, 1, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_each_day_of_a_range_is_counted_once(first: date, length: int, now: datetime) -> None:
    last = first + timedelta(days=length)
    everything = [first + timedelta(days=number) for number in range(length + 1)]
    newest = newest_published_day(now)

    planned = plan_backfill(first, last, now)

    assert planned.days == tuple(
        day for day in everything if day <= newest and why_nothing_is_published(day) is None
    )
    assert planned.to_come == sum(day > newest for day in everything)
    assert len(planned.days) + planned.without + planned.to_come == length + 1


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InvalidField, match="from: is after the end of the range, 2026-10-01"):
        plan_backfill(date(2026, 10, 2), date(2026, 10, 1), AFTER_FOUR)
