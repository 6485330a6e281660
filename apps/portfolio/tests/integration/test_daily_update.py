"""Daily updates: the decision, the updates it orders, and what the row says afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from apps.portfolio.tests.settling import add_etfs, add_rates, only, rows, settle
from sqlalchemy import Engine, text

from portfolio.daily.tracking import daily_fields
from portfolio.etfs.errors import SourceDown
from portfolio.etfs.sources import BundledPrices, EtfInfo, PriceSeries
from portfolio.main import Application
from portfolio.models import DailyUpdateTracking, EtfPrice, EtfUpdateTracking, ExchangeRateUpdateTracking
from portfolio.rates.sources import BundledHistory, DailyRates
from portfolio.schedule import BEAT_SCHEDULE, TASK

# Friday 10 December 2021 is the last day that is stored.
STORED = [date(2021, 12, day) for day in (6, 7, 8, 9, 10)]
MONDAY = date(2021, 12, 13)


@dataclass
class World:
    """The time, and sources that count what they are asked for.

    Attributes:
        now: what the clock says.
        rates: how often the rates of a day were asked for.
        prices: how often the prices of an ETF and a day were asked for.
        is_down: whether the sources answer nothing.
    """

    now: datetime = datetime(2021, 12, 13, 22, tzinfo=UTC)
    rates: Counter[date] = field(default_factory=Counter)
    prices: Counter[tuple[str, date]] = field(default_factory=Counter)
    is_down: bool = False

    def clock(self) -> datetime:
        return self.now


class CountedRates(BundledHistory):
    """The bundled rates."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def fetch(self, day: date, currencies: Any) -> DailyRates:
        self.world.rates[day] += 1
        if self.world.is_down:
            raise SourceDown("rates", "HTTP 503")
        return await super().fetch(day, currencies)


class CountedPrices(BundledPrices):
    """The bundled prices."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        days = (start + timedelta(days=n) for n in range((end - start).days + 1))
        self.world.prices.update((symbol, day) for day in days if day.weekday() < 5)
        if self.world.is_down:
            raise SourceDown("prices", "HTTP 503")
        return await super().fetch(symbol, start, end)

    async def info(self, symbol: str) -> EtfInfo:
        if self.world.is_down:
            raise SourceDown("prices", "HTTP 503")
        return await super().info(symbol)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def application(make_application: Any, engine: Engine, world: World) -> Application:
    """The application with two ETFs, the prices of a week and the rates of it."""
    add_etfs(engine, "MTUM", "QUAL")
    add_rates(engine, STORED[0], STORED[-1])
    application: Application = make_application(
        CountedRates(world), prices=CountedPrices(world), clock=world.clock
    )
    for symbol in ("MTUM", "QUAL"):
        application.tasks.update_etf.enqueue(
            etf_id=symbol, update_type="prices_only", start_date=STORED[0], end_date=STORED[-1]
        )
    settle(application)
    world.prices.clear()
    with engine.begin() as db:
        db.execute(text("DELETE FROM tracking.etf_updates"))
    return application


def run(application: Application, engine: Engine, day: date, update_type: str) -> Any:
    """Run the daily update of one day and type, and return its row."""
    fields = daily_fields(day, update_type, now=application.clock())
    enqueued = application.tasks.update_daily.enqueue(**fields)
    settle(application)
    return next(row for row in rows(engine, DailyUpdateTracking) if row.id == enqueued.id)


# A business day, a holiday, a Saturday


def test_on_a_business_day_the_rates_of_the_day_are_fetched(
    application: Application, engine: Engine, world: World
) -> None:
    row = run(application, engine, MONDAY, "exchange_rates")

    assert (row.status, row.data_found, row.attempts) == ("COMPLETED", True, 0)
    assert row.notes == "1 of 1 updates brought data"
    assert world.rates == {MONDAY: 1}
    assert only(engine, ExchangeRateUpdateTracking).status == "COMPLETED"


def test_on_a_business_day_the_prices_of_all_etfs_are_fetched_with_the_rates_they_need(
    application: Application, engine: Engine, world: World
) -> None:
    row = run(application, engine, MONDAY, "etf_prices")

    assert (row.status, row.data_found, row.attempts) == ("COMPLETED", True, 0)
    assert row.notes == "2 of 2 updates brought data"
    assert world.prices == {("MTUM", MONDAY): 1, ("QUAL", MONDAY): 1}
    assert world.rates == {MONDAY: 1}
    assert {price.etf_id for price in rows(engine, EtfPrice) if price.date == MONDAY} == {"MTUM", "QUAL"}


def test_a_daily_update_of_one_etf_leaves_the_others_alone(
    application: Application, engine: Engine, world: World
) -> None:
    row = run(application, engine, MONDAY, "etf_prices_QUAL")

    assert (row.status, row.data_found) == ("COMPLETED", True)
    assert {symbol for symbol, _ in world.prices} == {"QUAL"}


@pytest.mark.parametrize(
    ("day", "update_type", "reason"),
    [
        # A Saturday.
        (
            date(2021, 12, 11),
            "exchange_rates",
            "2021-12-11 is a Saturday; the newest data are those of 2021-12-10",
        ),
        (
            *(date(2021, 12, 11), "etf_prices"),
            "MTUM, QUAL: 2021-12-11 is a Saturday; the newest data are those of 2021-12-10",
        ),
        # Done already.
        (STORED[-1], "exchange_rates", "the data of 2021-12-10 are there already"),
        (STORED[-1], "etf_prices", "MTUM, QUAL: the data of 2021-12-10 are there already"),
        (STORED[-1], "etf_prices_QUAL", "QUAL: the data of 2021-12-10 are there already"),
    ],
)
def test_an_update_that_is_not_due_is_complete_and_says_why(
    application: Application, engine: Engine, world: World, day: date, update_type: str, reason: str
) -> None:
    row = run(application, engine, day, update_type)

    assert (row.status, row.data_found, row.notes) == ("COMPLETED", False, reason)
    assert (world.rates, world.prices) == ({}, {})
    assert rows(engine, EtfUpdateTracking) == rows(engine, ExchangeRateUpdateTracking) == []


def test_on_a_holiday_of_new_york_the_rates_are_fetched_and_the_prices_are_not(
    application: Application, engine: Engine, world: World
) -> None:
    # Christmas Eve: New York makes up for Christmas Day, a Saturday. The ECB works.
    world.now = datetime(2021, 12, 23, 22, tzinfo=UTC)
    before = [run(application, engine, date(2021, 12, 23), one) for one in ("exchange_rates", "etf_prices")]
    world.now = datetime(2021, 12, 24, 22, tzinfo=UTC)
    world.rates.clear()
    world.prices.clear()
    rates = run(application, engine, date(2021, 12, 24), "exchange_rates")
    prices = run(application, engine, date(2021, 12, 24), "etf_prices")

    assert [(row.status, row.data_found) for row in before] == [("COMPLETED", True)] * 2
    assert (rates.status, rates.data_found) == ("COMPLETED", True)
    assert (prices.status, prices.data_found) == ("COMPLETED", False)
    assert prices.notes == (
        "MTUM, QUAL: 2021-12-24 is Christmas Day (observed), a holiday of XNYS; "
        "the newest data are those of 2021-12-23"
    )
    assert (world.rates, world.prices) == ({date(2021, 12, 24): 1}, {})


def test_on_a_saturday_with_old_data_the_gap_is_closed(
    application: Application, engine: Engine, world: World
) -> None:
    world.now = datetime(2021, 12, 18, 22, tzinfo=UTC)
    row = run(application, engine, date(2021, 12, 18), "exchange_rates")

    assert (row.status, row.data_found) == ("COMPLETED", True)
    assert world.rates == {date(2021, 12, day): 1 for day in (13, 14, 15, 16, 17)}


def test_without_any_data_thirty_days_are_fetched(
    application: Application, engine: Engine, world: World
) -> None:
    with engine.begin() as db:
        db.execute(text("DELETE FROM etf_prices"))
        db.execute(text("DELETE FROM exchange_rates"))
    row = run(application, engine, MONDAY, "etf_prices_MTUM")

    assert (row.status, row.data_found) == ("COMPLETED", True)
    update = only(engine, EtfUpdateTracking)
    assert (update.start_date, update.end_date) == (date(2021, 11, 15), MONDAY)
    assert len(rows(engine, EtfPrice)) == 20
    assert set(world.rates.values()) == {1}


def test_prices_that_are_not_final_are_left_to_the_next_day(
    application: Application, engine: Engine, world: World
) -> None:
    world.now = datetime(2021, 12, 13, 20, tzinfo=UTC)  # New York closes at 21:00 UTC in winter
    fields = daily_fields(MONDAY, "etf_prices", now=world.now)
    application.tasks.update_daily.enqueue(**{**fields, "next_attempt_at": datetime.now(UTC)})
    settle(application)
    row = only(engine, DailyUpdateTracking)

    assert fields["next_attempt_at"] == datetime(2021, 12, 13, 21, 30, tzinfo=UTC)
    assert (row.status, row.data_found, world.prices) == ("COMPLETED", False, {})
    assert row.notes == (
        "MTUM, QUAL: the data of 2021-12-13 are not out yet; everything before them is there already"
    )


# When something goes wrong


def test_updates_that_bring_nothing_fail_the_daily_update_with_their_reasons(
    application: Application, engine: Engine, world: World
) -> None:
    world.is_down = True
    rates = run(application, engine, MONDAY, "exchange_rates")
    prices = run(application, engine, MONDAY, "etf_prices")

    assert (rates.status, rates.data_found, rates.attempts) == ("FAILED", False, 1)
    assert rates.error_message == (
        "NothingFound: 0 of 1 updates brought data\n2021-12-13: FAILED, SourceDown: rates: HTTP 503"
    )
    assert (prices.status, prices.data_found, prices.attempts) == ("FAILED", False, 1)
    assert prices.error_message == (
        "NothingFound: 0 of 2 updates brought data\n"
        "MTUM: FAILED, SourceDown: prices: HTTP 503\nQUAL: FAILED, SourceDown: prices: HTTP 503"
    )
    assert prices.notes == prices.error_message.removeprefix("NothingFound: ")


def test_one_update_that_brings_data_is_enough_and_the_others_are_named(
    application: Application, engine: Engine, world: World
) -> None:
    add_etfs(engine, "ACME")
    row = run(application, engine, MONDAY, "etf_prices")

    assert (row.status, row.data_found, row.error_message) == ("COMPLETED", True, None)
    assert row.notes == (
        "2 of 3 updates brought data\nACME: FAILED, UnknownEtf: bundled knows no ETF with the symbol ACME"
    )


def test_an_update_whose_prices_are_missing_counts_as_a_failure(
    application: Application, engine: Engine, world: World
) -> None:
    async def nothing(symbol: str, start: date, end: date) -> PriceSeries:
        return PriceSeries(symbol, "USD", {})

    application.prices.fetch = nothing  # type: ignore[method-assign]
    row = run(application, engine, MONDAY, "etf_prices")

    assert (row.status, row.data_found) == ("FAILED", False)
    assert row.notes == (
        "0 of 2 updates brought data\nMTUM: no price came for 2021-12-13\nQUAL: no price came for 2021-12-13"
    )


def test_a_failed_daily_update_that_is_started_again_tries_again(
    application: Application, engine: Engine, world: World
) -> None:
    world.is_down = True
    failed = [run(application, engine, MONDAY, one) for one in ("exchange_rates", "etf_prices")]
    world.is_down = False
    for row in failed:
        application.tasks.update_daily.retry(row.id)
    settle(application)

    assert [(row.status, row.data_found) for row in rows(engine, DailyUpdateTracking)] == [
        ("COMPLETED", True)
    ] * 2


def test_a_day_whose_update_failed_is_made_up_for_the_next_day(
    application: Application, engine: Engine, world: World
) -> None:
    world.is_down = True
    run(application, engine, MONDAY, "exchange_rates")
    world.is_down = False
    add_rates(engine, MONDAY + timedelta(days=1), MONDAY + timedelta(days=1))  # by somebody else
    world.now += timedelta(days=2)
    world.rates.clear()
    row = run(application, engine, MONDAY + timedelta(days=2), "exchange_rates")

    assert (row.status, row.data_found) == ("COMPLETED", True)
    assert world.rates == {MONDAY: 1, MONDAY + timedelta(days=2): 1}


def test_rates_that_were_deleted_after_their_update_are_reported_and_not_called_found(
    application: Application, engine: Engine
) -> None:
    run(application, engine, MONDAY, "exchange_rates")
    with engine.begin() as db:
        db.execute(text("DELETE FROM exchange_rates WHERE date = '2021-12-13'"))
        db.execute(text("DELETE FROM tracking.daily_update_tracking"))
    row = run(application, engine, MONDAY, "exchange_rates")

    assert (row.status, row.data_found) == ("FAILED", False)
    assert "but no rate of that day is stored" in row.error_message


def test_an_unknown_etf_fails_the_row_at_once(application: Application, engine: Engine) -> None:
    row = run(application, engine, MONDAY, "etf_prices_ACME")

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message == "UnknownEtf: the database knows no ETF with the symbol ACME"


def test_without_etfs_there_is_nothing_to_do(application: Application, engine: Engine) -> None:
    with engine.begin() as db:
        db.execute(text("DELETE FROM etf_prices"))
        db.execute(text("DELETE FROM etfs"))
    row = run(application, engine, MONDAY, "etf_prices")

    assert (row.status, row.data_found, row.notes) == ("COMPLETED", False, "there are no ETFs")


def test_a_day_in_the_future_fails_the_row_at_once(application: Application, engine: Engine) -> None:
    application.tasks.update_daily.enqueue(update_date=date(2021, 12, 14), update_type="exchange_rates")
    settle(application)
    row = only(engine, DailyUpdateTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message.startswith("InvalidField: update_date: it is in the future")


# On schedule


def send(application: Application, *entries: str) -> None:
    """Do what a worker does with beat's messages, and then all the work that follows."""
    for name in entries:
        entry: Any = BEAT_SCHEDULE[name]
        task = application.celery.tasks[TASK]
        outcome = task.apply(args=entry["args"], kwargs=entry["kwargs"])
        assert outcome.successful(), outcome.traceback
    settle(application)


ALL = ("exchange rates", "ETF prices", "roll call")


def test_the_schedule_of_a_day_adds_two_rows_and_fetches_each_day_once(
    application: Application, engine: Engine, world: World
) -> None:
    send(application, *ALL)
    first = Counter(world.prices), Counter(world.rates)
    send(application, *ALL)

    found = rows(engine, DailyUpdateTracking)
    assert [(row.update_date, row.update_type, row.status) for row in found] == [
        (MONDAY, "exchange_rates", "COMPLETED"),
        (MONDAY, "etf_prices", "COMPLETED"),
    ]
    assert (world.prices, world.rates) == first
    assert set(world.rates.values()) == {1}


def test_an_outage_of_four_days_is_made_up_for_once(
    application: Application, engine: Engine, world: World
) -> None:
    missed = [MONDAY + timedelta(days=n) for n in range(4)]
    world.now = datetime(2021, 12, 17, 22, tzinfo=UTC)
    friday = world.now.date()
    send(application, *ALL)
    send(application, *ALL)  # beat's messages come twice, and the roll call looks again

    assert [
        (row.update_date, row.update_type, row.data_found) for row in rows(engine, DailyUpdateTracking)
    ] == [
        (friday, "exchange_rates", True),
        (friday, "etf_prices", True),
    ]
    assert world.rates == dict.fromkeys([*missed, friday], 1)
    assert world.prices == dict.fromkeys(
        ((one, day) for one in ("MTUM", "QUAL") for day in [*missed, friday]), 1
    )
    updates = rows(engine, EtfUpdateTracking)
    assert [(row.etf_id, row.start_date, row.end_date) for row in updates] == [
        ("MTUM", MONDAY, friday),
        ("QUAL", MONDAY, friday),
    ]
    stored = {(price.etf_id, price.date) for price in rows(engine, EtfPrice)}
    assert stored == {(symbol, day) for symbol in ("MTUM", "QUAL") for day in [*STORED, *missed, friday]}


def test_the_day_after_an_outage_was_made_up_for_is_a_day_like_any_other(
    application: Application, engine: Engine, world: World
) -> None:
    world.now = datetime(2021, 12, 17, 22, tzinfo=UTC)
    send(application, *ALL)
    world.rates.clear()
    world.prices.clear()
    world.now = datetime(2021, 12, 20, 22, tzinfo=UTC)
    send(application, *ALL)

    assert world.rates == {date(2021, 12, 20): 1}
    assert set(world.prices) == {("MTUM", date(2021, 12, 20)), ("QUAL", date(2021, 12, 20))}


def test_the_roll_call_starts_what_failed_today_again_and_the_other_entries_do_not(
    application: Application, engine: Engine, world: World
) -> None:
    world.is_down = True
    send(application, "exchange rates", "ETF prices")
    world.is_down = False
    send(application, "exchange rates", "ETF prices")
    after_the_others = [row.status for row in rows(engine, DailyUpdateTracking)]
    send(application, "roll call")

    assert after_the_others == ["FAILED", "FAILED"]
    assert [row.status for row in rows(engine, DailyUpdateTracking)] == ["COMPLETED", "COMPLETED"]
    assert {price.date for price in rows(engine, EtfPrice)} == {*STORED, MONDAY}


def test_a_roll_call_alone_does_what_the_others_missed(
    application: Application, engine: Engine, world: World
) -> None:
    send(application, "roll call")

    assert [row.data_found for row in rows(engine, DailyUpdateTracking)] == [True, True]


def test_rows_of_messages_that_come_before_the_data_wait_for_them(
    make_application: Any, engine: Engine
) -> None:
    tomorrow = datetime.now(UTC).replace(hour=0, minute=5) + timedelta(days=1)
    while tomorrow.weekday() >= 5 or (tomorrow.month, tomorrow.day) in {(12, 25), (12, 26), (1, 1)}:
        tomorrow += timedelta(days=1)
    application = make_application(clock=lambda: tomorrow)
    send(application, "roll call")

    assert [(row.status, row.next_attempt_at > tomorrow) for row in rows(engine, DailyUpdateTracking)] == [
        ("PENDING", True),
        ("PENDING", True),
    ]
