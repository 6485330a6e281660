"""What an update leaves in the database: the ECB's own figures, and a row that says how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.main import Application
from portfolio.rates.flaky import FlakySource
from portfolio.rates.sources import BundledHistory, DailyRates
from portfolio.rates.store import upsert_rates
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields

FRIDAY = date(2026, 10, 30)
SATURDAY = date(2026, 10, 24)


def enqueue(application: Application, day: date, *currencies: str) -> int:
    fields = update_fields(day, currencies, application.source.name)
    return application.tasks.update_exchange_rates.enqueue(**fields).id


@pytest.mark.parametrize(
    ("day", "currency", "figure"),
    [(FRIDAY, "USD", "1.1172"), (date(2011, 3, 11), "RUB", "39.582"), (date(1999, 1, 4), "TRL", "372274")],
)
def test_a_stored_rate_is_the_figure_of_the_ecb(
    application: Application, work: Any, published: Any, stored: Any, day: date, currency: str, figure: str
) -> None:
    work(application, enqueue(application, day, currency))

    assert stored() == {(day, currency): Decimal(published[day][currency])}
    assert stored() == {(day, currency): Decimal(figure)}


def test_every_figure_of_a_day_is_stored_digit_for_digit(
    application: Application, work: Any, published: Any, stored: Any
) -> None:
    figures = {currency: text for currency, text in published[FRIDAY].items() if text not in {"N/A", ""}}
    row = work(application, enqueue(application, FRIDAY, *figures))

    assert stored() == {(FRIDAY, currency): Decimal(text) for currency, text in figures.items()}
    assert (row.status, row.success_count, row.total_count) == ("COMPLETED", len(figures), len(figures))
    assert (row.error_message, row.attempts, row.source) == (None, 0, "ecb-bundled")


def test_no_figure_of_the_ecb_since_1999_has_more_digits_than_the_column_holds(
    published: Mapping[date, Mapping[str, str]],
) -> None:
    figures = {text for line in published.values() for text in line.values() if text not in {"N/A", ""}}
    digits = [(len(whole), len(rest)) for whole, _, rest in (text.partition(".") for text in figures)]

    assert len(published) > 7000
    assert max(whole for whole, _ in digits) <= 14
    assert max(rest for _, rest in digits) <= 6


async def test_rates_stored_twice_are_there_once(async_session: AsyncSession, stored: Any) -> None:
    rates = DailyRates(FRIDAY, "EUR", {"USD": Decimal("1.1172"), "CHF": Decimal("0.9194")}, ())

    for _ in range(2):
        await upsert_rates(async_session, rates)
        await async_session.commit()

    assert stored() == {(FRIDAY, "USD"): Decimal("1.1172"), (FRIDAY, "CHF"): Decimal("0.9194")}


async def test_a_corrected_rate_replaces_the_stored_one_and_leaves_the_others(
    async_session: AsyncSession, stored: Callable[[], Any]
) -> None:
    for rates in ({"USD": Decimal(1), "CHF": Decimal("0.9194")}, {"USD": Decimal("1.1172")}):
        await upsert_rates(async_session, DailyRates(FRIDAY, "EUR", rates, ()))
        await async_session.commit()

    assert stored() == {(FRIDAY, "USD"): Decimal("1.1172"), (FRIDAY, "CHF"): Decimal("0.9194")}


async def test_no_rates_store_nothing(async_session: AsyncSession, stored: Callable[[], Any]) -> None:
    await upsert_rates(async_session, DailyRates(FRIDAY, "EUR", {}, ("RUB",)))
    await async_session.commit()

    assert stored() == {}


def test_a_currency_that_is_not_published_is_named_in_the_completed_row(
    application: Application, work: Any, stored: Any
) -> None:
    row = work(application, enqueue(application, FRIDAY, "USD", "RUB", "HRK", "CHF"))

    assert (row.status, row.attempts) == ("COMPLETED", 0)
    assert (row.success_count, row.total_count) == (2, 4)
    assert row.error_message == "no rate published for RUB, HRK"
    assert set(stored()) == {(FRIDAY, "USD"), (FRIDAY, "CHF")}


def test_an_update_for_which_nothing_is_published_fails_at_once(
    application: Application, work: Any, stored: Any
) -> None:
    row = work(application, enqueue(application, FRIDAY, "RUB"))

    assert (row.status, row.attempts, row.success_count) == ("FAILED", 1, 0)
    assert row.error_message == "NoRates: ecb-bundled has none of RUB on 2026-10-30"
    assert stored() == {}


def test_a_saturday_fails_after_one_attempt_and_says_why(
    application: Application, work: Any, stored: Any
) -> None:
    row = work(application, enqueue(application, SATURDAY, *DEFAULT_CURRENCIES))

    reason = "NothingPublished: no rates are published for 2026-10-24: 2026-10-24 is a Saturday"
    assert (row.status, row.attempts, row.max_attempts, row.success_count) == ("FAILED", 1, 3, 0)
    assert row.error_message == reason
    assert [(entry["number"], entry["outcome"], entry["error"]) for entry in row.attempt_log] == [
        (1, "error", reason)
    ]
    assert stored() == {}


@pytest.mark.parametrize(("failures", "status"), [(2, "COMPLETED"), (3, "FAILED")])
def test_a_source_that_is_down_is_asked_again_while_attempts_are_left(
    make_application: Any, work: Any, stored: Any, tmp_path: Path, failures: int, status: str
) -> None:
    source = FlakySource(BundledHistory(), {FRIDAY: failures}, tmp_path / "calls")
    application = make_application(source)
    row = work(application, enqueue(application, FRIDAY, "USD"))

    assert (row.status, row.attempts, source.calls(FRIDAY)) == (status, failures, 3)
    assert [entry["error"] for entry in row.attempt_log] == [
        f"SourceDown: flaky ecb-bundled: planned failure {call} of {failures} for 2026-10-30"
        for call in range(1, failures + 1)
    ]
    assert stored() == ({(FRIDAY, "USD"): Decimal("1.1172")} if status == "COMPLETED" else {})


def test_a_completed_update_is_not_done_again_by_a_second_message(
    application: Application, work: Any, engine: Any, stored: Any
) -> None:
    first = work(application, enqueue(application, FRIDAY, "USD"))
    with engine.begin() as db:
        db.exec_driver_sql("UPDATE exchange_rates SET rate = 9")
    second = work(application, enqueue(application, FRIDAY, "USD"))

    assert (second.id, second.completed_at) == (first.id, first.completed_at)
    assert stored() == {(FRIDAY, "USD"): Decimal(9)}
