"""Whether a daily update is due: a table of days, what is stored, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial

import pytest

from portfolio.daily.decision import Stored, decide
from portfolio.etfs.calendar import NEW_YORK, why_it_is_closed
from portfolio.rates.calendar import why_nothing_is_published

RATES = why_nothing_is_published
PRICES = partial(why_it_is_closed, calendar=NEW_YORK)


def days(text: str) -> list[date]:
    """Read days of December 2021 and January 2022: "30 31 3" are two of the one and one of the other."""
    read = [int(word) for word in text.split()]
    return [date(2021, 12, day) if day > 15 else date(2022, 1, day) for day in read]


def day(number: int) -> date:
    return days(str(number))[0]


@pytest.mark.parametrize(
    ("why_none", "on", "stored", "out", "wanted", "reason"),
    [
        # A business day: Monday 3 January 2022; the newest data are those of Friday 31 December 2021.
        (RATES, 3, "28 29 30 31", 3, "3", "the newest data are those of 2021-12-31; 2022-01-03 is missing"),
        (PRICES, 3, "28 29 30 31", 3, "3", "the newest data are those of 2021-12-31; 2022-01-03 is missing"),
        # It was done already.
        (RATES, 3, "28 29 30 31 3", 3, "", "the data of 2022-01-03 are there already"),
        (RATES, 3, "28 29 30 31 3", 7, "", "the data of 2022-01-03 are there already"),
        # The data are not out yet.
        (
            *(RATES, 3, "28 29 30 31", 31, ""),
            "the data of 2022-01-03 are not out yet; everything before them is there already",
        ),
        (RATES, 3, "28 29 30", 31, "31", "the newest data are those of 2021-12-30; 2021-12-31 is missing"),
        # A gap of four days: nobody looked from Tuesday to Friday.
        (
            *(RATES, 7, "30 31 3", 7, "4 5 6 7"),
            "the newest data are those of 2022-01-03; 4 days from 2022-01-04 to 2022-01-07 are missing",
        ),
        # ... and of more than a week, over Christmas, with the holidays of each calendar left out.
        (RATES, 3, "22", 3, "23 24 27 28 29 30 31 3", "8 days from 2021-12-23 to 2022-01-03"),
        (PRICES, 3, "22", 3, "23 27 28 29 30 31 3", "7 days from 2021-12-23 to 2022-01-03"),
        # A weekend.
        (RATES, 8, "5 6 7", 7, "", "2022-01-08 is a Saturday; the newest data are those of 2022-01-07"),
        (RATES, 9, "5 6 7", 7, "", "2022-01-09 is a Sunday; the newest data are those of 2022-01-07"),
        # ... whose newest data are three days old, which is not too old, and four, which is.
        (RATES, 8, "4 5", 7, "", "2022-01-08 is a Saturday; the newest data are those of 2022-01-05"),
        (RATES, 8, "3 4", 7, "5 6 7", "3 days from 2022-01-05 to 2022-01-07"),
        (RATES, 9, "3 4 5", 7, "6 7", "2 days from 2022-01-06 to 2022-01-07"),
        # A holiday in New York, since Christmas Day is a Saturday, and none at the ECB.
        (
            *(PRICES, 24, "20 21 22 23", 23, ""),
            "2021-12-24 is Christmas Day (observed), a holiday of XNYS; the newest data are those of 2021-12",
        ),
        (RATES, 24, "20 21 22 23", 24, "24", "2021-12-24 is missing"),
        # A day left out within the last week is made up for, one before that is not.
        (RATES, 7, "3 5 6", 7, "4 7", "2 days from 2022-01-04 to 2022-01-07"),
        (RATES, 7, "30 3 4 5 6", 7, "7", "2022-01-07 is missing"),
        (RATES, 7, "30 3 4 5 6 7", 7, "", "the data of 2022-01-07 are there already"),
        (RATES, 6, "30 3 4 5 6", 7, "31", "2021-12-31 is missing"),
    ],
)
def test_what_is_due_follows_from_the_day_and_what_is_stored(
    why_none: object, on: int, stored: str, out: int, wanted: str, reason: str
) -> None:
    there = [found for found in days(stored) if (day(on) - found).days < 7]
    decision = decide(
        day(on),
        Stored(max(days(stored)), there),
        newest_out=day(out),
        why_none=why_none,  # type: ignore[arg-type]
    )

    assert decision.days == tuple(days(wanted))
    assert reason in decision.reason


@pytest.mark.parametrize("on", [7, 8, 9])
def test_the_first_fetch_is_of_thirty_days_also_on_a_weekend(on: int) -> None:
    decision = decide(day(on), Stored(None), newest_out=day(7), why_none=RATES)
    last = date(2022, 1, 7)
    every_day = [last - timedelta(days=n) for n in reversed(range(30))]

    assert list(decision.days) == [one for one in every_day if RATES(one) is None]
    assert decision.days[-1] == last
    assert decision.reason.startswith("there are no data yet; 22 days from 2021-12-09 to 2022-01-07 are")


def test_no_outage_is_too_long_to_be_made_up_for() -> None:
    decision = decide(
        date(2026, 10, 30), Stored(date(2021, 12, 31)), newest_out=date(2026, 10, 30), why_none=RATES
    )

    assert (decision.days[0], decision.days[-1]) == (date(2022, 1, 3), date(2026, 10, 30))
    assert len(decision.days) == 1236
    assert decision.ranges == ((date(2022, 1, 3), date(2026, 10, 30)),)


def test_on_a_closed_day_after_closed_days_there_is_nothing_to_make_up_for() -> None:
    easter_monday = date(2026, 4, 6)
    decision = decide(
        easter_monday,
        Stored(date(2026, 4, 2), [date(2026, 4, 2)]),
        newest_out=date(2026, 4, 2),
        why_none=lambda one: RATES(one) if one > date(2026, 4, 2) else "left out of this test",
    )

    assert decision.days == ()
    assert (
        decision.reason
        == "2026-04-06 is Easter Monday, a TARGET holiday; everything up to it is there already"
    )


@pytest.mark.parametrize(
    ("stored", "ranges"),
    [
        ("3 4 5 6", ["7 7"]),
        ("31 3", ["4 7"]),
        ("31 3 5", ["4 4", "6 7"]),
        ("31 4 6", ["3 3", "5 5", "7 7"]),
        ("4 6", ["3 3", "5 5", "7 7"]),
    ],
)
def test_the_ranges_hold_no_day_that_is_stored(stored: str, ranges: Sequence[str]) -> None:
    there = days(stored)
    decision = decide(day(7), Stored(max(there), there), newest_out=day(7), why_none=RATES)

    assert [list(found) for found in decision.ranges if found[0] >= day(3)] == [days(text) for text in ranges]
