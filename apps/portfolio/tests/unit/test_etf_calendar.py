"""When exchanges trade, held against every day of the bundled history."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.etfs.calendar import (
    CALENDARS,
    calendar_of,
    final_at,
    first_day,
    missing_dates,
    newest_final_day,
    trading_days,
    why_it_is_closed,
)
from portfolio.etfs.sources import BundledPrices
from tasktrail import InvalidField

EXCEPTIONS: dict[date, str] = {}
"""Days on which the calendar and the bundled history differ, with the reason. There is none."""

MONDAY = date(2022, 12, 19)
FRIDAY = date(2022, 12, 23)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("symbol", ["MTUM", "QUAL", "SIZE", "USMV", "VLUE"])
async def test_the_calendar_agrees_with_every_day_of_the_bundled_history(symbol):
    first, last = date(2014, 1, 2), date(2022, 12, 28)
    traded = set((await BundledPrices().fetch(symbol, first, last)).prices)

    differing = set(trading_days(first, last)) ^ traded

    assert len(traded) == 2264
    assert set(EXCEPTIONS) == differing


@pytest.mark.parametrize(
    ("day", "why"),
    [
        ("2022-12-24", "2022-12-24 is a Saturday"),
        ("2022-12-25", "2022-12-25 is a Sunday"),
        ("2022-12-26", "2022-12-26 is Christmas Day (observed), a holiday of XNYS"),
        ("2014-04-18", "2014-04-18 is Good Friday, a holiday of XNYS"),
        (
            "2018-12-05",
            "2018-12-05 is National Day of Mourning for former President George H. W. Bush, a holiday",
        ),
        ("2025-01-09", "2025-01-09 is National Day of Mourning for former President Jimmy Carter, a holiday"),
        ("2012-10-29", "2012-10-29 is Hurricane Sandy, a holiday"),
        ("2001-09-11", "2001-09-11 is Closed following Attacks on the World Trade Center, a holiday"),
        ("2022-06-20", "2022-06-20 is Juneteenth National Independence Day (observed), a holiday"),
    ],
)
def test_a_day_on_which_new_york_is_closed_says_why(day, why):
    assert why_it_is_closed(date.fromisoformat(day)).startswith(why)


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("2014-04-21", "Easter Monday is no holiday of New York"),
        ("2021-06-18", "Juneteenth is one from 2022 on"),
        ("2021-12-31", "New Year's Day is not moved to a Friday: the year is closed on it"),
        ("2014-12-24", "an early close is a trading day"),
        ("2020-11-27", "likewise the day after Thanksgiving"),
    ],
)
def test_a_day_that_looks_like_a_holiday_may_be_a_trading_day(day, reason):
    assert why_it_is_closed(date.fromisoformat(day)) is None, reason


@pytest.mark.parametrize(
    ("calendar", "holiday"),
    [
        ("XAMS", "2022-04-18"),
        ("XETR", "2022-12-26"),
        ("XLON", "2022-09-19"),
        ("XMIL", "2023-08-15"),
        ("XNYS", "2022-11-24"),
        ("XPAR", "2023-05-01"),
        ("XSWX", "2022-08-01"),
    ],
)
def test_every_exchange_has_holidays_of_its_own(calendar, holiday):
    day = date.fromisoformat(holiday)
    week = trading_days(day - timedelta(days=3), day + timedelta(days=3), calendar)

    assert day not in week
    assert why_it_is_closed(day, calendar).endswith(f"a holiday of {calendar}")


def test_there_is_an_example_for_every_calendar():
    (examples,) = (
        mark.args[1]
        for mark in test_every_exchange_has_holidays_of_its_own.pytestmark
        if mark.name == "parametrize"
    )

    assert {calendar for calendar, _ in examples} == CALENDARS


def test_trading_days_are_in_order_and_both_ends_belong_to_them():
    assert trading_days(MONDAY, FRIDAY) == [MONDAY + timedelta(days=n) for n in range(5)]
    assert trading_days(FRIDAY, FRIDAY) == [FRIDAY]
    assert trading_days(date(2022, 12, 24), date(2022, 12, 26)) == []


def test_days_before_a_calendar_is_known_are_not_expected():
    assert trading_days(date(2015, 12, 1), date(2016, 1, 5), "XETR") == [date(2016, 1, 4), date(2016, 1, 5)]
    assert trading_days(date(2015, 1, 1), date(2015, 12, 31), "XETR") == []
    assert first_day("XETR") == date(2016, 1, 1)


def test_before_a_calendar_is_known_only_weekends_are_sure():
    assert why_it_is_closed(date(2015, 12, 25), "XETR") is None
    assert why_it_is_closed(date(2015, 12, 26), "XETR") == "2015-12-26 is a Saturday"


@given(st.dates(), st.sampled_from(sorted(CALENDARS)))
def test_every_date_python_knows_gets_an_answer(day, calendar):
    why = why_it_is_closed(day, calendar)

    assert why is None or why.startswith(str(day))


def test_missing_dates_are_the_expected_ones_without_a_price_oldest_first():
    expected = trading_days(MONDAY, FRIDAY)
    tuesday, thursday = expected[1], expected[3]

    assert missing_dates(reversed(expected), set(expected) - {thursday, tuesday}) == [tuesday, thursday]
    assert missing_dates(expected, dict.fromkeys(expected)) == []
    assert missing_dates([], expected) == []


def test_a_price_on_an_unexpected_day_does_not_make_up_for_a_missing_one():
    assert missing_dates([MONDAY, FRIDAY], {MONDAY, date(2022, 12, 24)}) == [FRIDAY]


@pytest.mark.parametrize(
    ("calendar", "day", "utc"),
    [
        ("XNYS", "2022-12-28", "2022-12-28T21:30"),
        ("XNYS", "2022-07-28", "2022-07-28T20:30"),
        ("XETR", "2022-12-28", "2022-12-28T17:10"),
        ("XLON", "2022-07-28", "2022-07-28T16:10"),
    ],
)
def test_prices_are_final_half_an_hour_after_the_close_in_summer_and_in_winter(calendar, day, utc):
    assert at(utc) == final_at(date.fromisoformat(day), calendar)


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        ("2022-12-28T21:29", "2022-12-27"),
        ("2022-12-28T21:30", "2022-12-28"),
        ("2022-12-29T03:00", "2022-12-28"),
        ("2022-12-26T23:00", "2022-12-23"),
        ("2022-12-27T12:00", "2022-12-23"),
    ],
)
def test_the_newest_final_day_skips_weekends_holidays_and_the_day_under_way(now, newest):
    assert date.fromisoformat(newest) == newest_final_day(at(now))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: trading_days(FRIDAY, MONDAY), "start"),
        (lambda: trading_days("2022-12-19", FRIDAY), "start"),
        (lambda: trading_days(MONDAY, at("2022-12-23T00:00")), "end"),
        (lambda: trading_days(MONDAY, FRIDAY, "XXXX"), "calendar"),
        (lambda: trading_days(MONDAY, FRIDAY, None), "calendar"),
        (lambda: trading_days(MONDAY, FRIDAY, []), "calendar"),
        (lambda: why_it_is_closed(at("2022-12-23T00:00")), "day"),
        (lambda: why_it_is_closed(None), "day"),
        (lambda: why_it_is_closed(MONDAY, "NYSE"), "calendar"),
        (lambda: first_day("NYSE"), "calendar"),
        (lambda: final_at("2022-12-19"), "day"),
        (lambda: final_at(MONDAY, "NYSE"), "calendar"),
        (lambda: newest_final_day(datetime(2022, 12, 28)), "now"),  # noqa: DTZ001
        (lambda: newest_final_day(at("2022-12-28T12:00"), "NYSE"), "calendar"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_name_of_its_field(call, field):
    with pytest.raises(InvalidField, match=f"^{field}: "):
        call()


def test_an_unknown_calendar_is_told_the_known_ones():
    with pytest.raises(InvalidField, match="known are XAMS, XETR, XLON, XMIL, XNYS, XPAR, XSWX"):
        trading_days(MONDAY, FRIDAY, "XTKS")


@pytest.mark.parametrize(
    ("symbol", "calendar"),
    [
        ("MTUM", "XNYS"),
        ("BRK-B", "XNYS"),
        ("DE", "XNYS"),
        ("EUNL.DE", "XETR"),
        ("VWRL.L", "XLON"),
        ("IWDA.AS", "XAMS"),
        ("CW8.PA", "XPAR"),
        ("SWDA.MI", "XMIL"),
        ("SWDCHA.SW", "XSWX"),
        ("1306.T", "XNYS"),
    ],
)
def test_the_suffix_of_a_symbol_tells_the_calendar(symbol, calendar):
    assert calendar_of(symbol) == calendar
    assert calendar in CALENDARS
