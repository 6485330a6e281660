"""When the ECB publishes, held against every day it did publish."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.rates.calendar import (
    FIRST_DAY,
    is_in_the_future,
    newest_published_day,
    publication_time,
    today,
    why_nothing_is_published,
)
from portfolio.rates.sources import BundledHistory
from tasktrail import InvalidField

EXCEPTIONS: dict[date, str] = {}
"""Days on which the calendar and the published history differ, with the reason. There is none."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_calendar_agrees_with_every_day_the_ecb_published_since_1999():
    published = set(BundledHistory().published_days())
    first, last = min(published), max(published)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]

    differing = {day for day in days if (why_nothing_is_published(day) is None) != (day in published)}

    assert first == FIRST_DAY
    assert set(EXCEPTIONS) == differing


@pytest.mark.parametrize(
    ("day", "why"),
    [
        ("2026-10-24", "2026-10-24 is a Saturday"),
        ("2026-10-25", "2026-10-25 is a Sunday"),
        ("2026-12-25", "2026-12-25 is Christmas Day, a TARGET holiday"),
        ("2025-12-26", "2025-12-26 is Christmas Holiday, a TARGET holiday"),
        ("2026-12-26", "2026-12-26 is a Saturday"),
        ("2027-01-01", "2027-01-01 is New Year's Day, a TARGET holiday"),
        ("2027-03-26", "2027-03-26 is Good Friday, a TARGET holiday"),
        ("2027-03-29", "2027-03-29 is Easter Monday, a TARGET holiday"),
        ("2026-05-01", "2026-05-01 is Labour Day, a TARGET holiday"),
        ("1999-01-01", "1999-01-01 is before 1999-01-04, the day of the first reference rates"),
        ("0001-01-01", "0001-01-01 is before 1999-01-04, the day of the first reference rates"),
    ],
)
def test_a_day_without_publication_says_why(day, why):
    assert why == why_nothing_is_published(date.fromisoformat(day))


@pytest.mark.parametrize(
    ("day", "is_published", "decision"),
    [
        ("1999-04-02", True, "Good Friday was a working day of TARGET in 1999 (decision of 1998-09-03)"),
        ("1999-04-05", True, "Easter Monday likewise"),
        ("2000-04-21", False, "Good Friday is closed from 2000 on (decision of 1999-07-15)"),
        ("2000-05-01", False, "1 May is closed from 2000 on (decision of 1999-07-15)"),
        ("2000-12-26", False, "26 December is closed from 2000 on (decision of 1999-07-15)"),
        ("1999-12-31", False, "closed for the transition to the year 2000 (decision of 1999-03-31)"),
        ("2001-12-31", False, "closed for the changeover to euro notes (decision of 2000-05-25)"),
        ("2002-12-31", True, "an ordinary day in the long-term calendar (decision of 2000-12-14)"),
        ("2026-12-24", True, "Christmas Eve is a working day"),
        ("2024-10-03", True, "a German holiday is none of TARGET"),
    ],
)
def test_the_special_days_of_the_early_years_follow_the_decisions_of_the_ecb(day, is_published, decision):
    assert is_published is (why_nothing_is_published(date.fromisoformat(day)) is None), decision


def test_an_additional_closing_day_is_called_so():
    assert why_nothing_is_published(date(1999, 12, 31)) == "1999-12-31 is an additional closing day of TARGET"


@given(st.dates())
def test_every_date_python_knows_gets_an_answer(day):
    why = why_nothing_is_published(day)

    assert why is None or why.startswith(str(day))


@pytest.mark.parametrize("day", [datetime(2026, 10, 30, tzinfo=UTC), "2026-10-30", None, 20261030])
def test_what_is_not_a_plain_date_is_refused(day):
    with pytest.raises(InvalidField, match=r"^day: a date without a time is needed"):
        why_nothing_is_published(day)


@pytest.mark.parametrize(
    ("day", "utc"),
    [
        (date(2026, 1, 15), "2026-01-15T15:00"),
        (date(2026, 7, 15), "2026-07-15T14:00"),
        (date.min, "0001-01-01T15:06:32"),
        (date.max, "9999-12-31T15:00"),
    ],
)
def test_publication_is_at_four_in_frankfurt_in_summer_and_in_winter(day, utc):
    assert at(utc) == publication_time(day)


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        ("2026-10-30T14:59", "2026-10-29"),
        ("2026-10-30T15:00", "2026-10-30"),
        ("2026-11-01T12:00", "2026-10-30"),
        ("2026-11-02T14:00", "2026-10-30"),
        ("2026-04-06T20:00", "2026-04-02"),
        ("1999-01-04T15:00", "1999-01-04"),
    ],
)
def test_the_newest_published_day_skips_weekends_and_holidays(now, newest):
    assert date.fromisoformat(newest) == newest_published_day(at(now))


def test_before_the_euro_there_is_no_newest_published_day():
    with pytest.raises(InvalidField, match="the first reference rates were published on 1999-01-04"):
        newest_published_day(at("1999-01-04T14:59"))


@pytest.mark.parametrize(
    ("day", "future"), [("2026-10-30", False), ("2026-10-31", False), ("2026-11-01", True)]
)
def test_tomorrow_in_frankfurt_is_no_future_because_it_is_today_somewhere(day, future):
    assert is_in_the_future(date.fromisoformat(day), at("2026-10-30T12:00")) is future


def test_no_place_on_earth_is_further_ahead_of_frankfurt_than_tomorrow():
    for hour in range(24):
        now = at(f"2026-10-30T{hour:02}:30")
        in_kiribati = now.astimezone(timezone(timedelta(hours=14))).date()

        assert not is_in_the_future(in_kiribati, now)


def test_the_day_changes_at_midnight_in_frankfurt():
    assert today(at("2026-10-30T22:59")) == date(2026, 10, 30)
    assert today(at("2026-10-30T23:00")) == date(2026, 10, 31)


@pytest.mark.parametrize(
    "function", [today, newest_published_day, lambda now: is_in_the_future(FIRST_DAY, now)]
)
def test_a_time_without_a_zone_is_refused(function):
    with pytest.raises(InvalidField, match=r"^now: a time needs a time zone"):
        function(datetime(2026, 10, 30, 12))  # noqa: DTZ001
