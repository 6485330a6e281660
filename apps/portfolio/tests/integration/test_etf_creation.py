"""Creating an ETF: its facts are filled in, its history is fetched, and the row says how it went."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from apps.portfolio.tests.settling import add_rates, only, rows, settle
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from portfolio.etfs.errors import SourceDown
from portfolio.etfs.sources import BundledPrices, EtfInfo, PriceSeries
from portfolio.etfs.tracking import creation_fields
from portfolio.main import Application
from portfolio.models import Etf, EtfCreationTracking, EtfPrice, EtfUpdateTracking

NOW = datetime(2022, 12, 29, 22, tzinfo=UTC)
A_WEEK = {"history_start": date(2022, 12, 12), "history_end": date(2022, 12, 16)}


class Moody(BundledPrices):
    """The bundled history, which can be told to fail.

    Attributes:
        facts_fail: whether it says nothing about an ETF.
        prices_fail: whether it gives no prices.
        first_day: what it says is the first day.
    """

    def __init__(self) -> None:
        super().__init__()
        self.facts_fail = False
        self.prices_fail = False
        self.first_day: date | None = None

    async def info(self, symbol: str) -> EtfInfo:
        if self.facts_fail:
            raise SourceDown("moody", "HTTP 503")
        info = await super().info(symbol)
        return replace(info, first_day=self.first_day or info.first_day)

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        if self.prices_fail:
            raise SourceDown("moody", "HTTP 503")
        return await super().fetch(symbol, start, end)


@pytest.fixture
def source() -> Moody:
    return Moody()


@pytest.fixture
def application(make_application: Any, engine: Engine, source: Moody) -> Application:
    add_rates(engine, date(2022, 11, 25), date(2022, 12, 30))
    application: Application = make_application(prices=source, clock=lambda: NOW)
    return application


def create(application: Application, symbol: str = "MTUM", **history: date) -> Any:
    fields = creation_fields(symbol, **(history or A_WEEK))
    return application.tasks.create_etf.enqueue(on_duplicate="restart", **fields)


def test_a_new_etf_gets_its_facts_and_its_history(application: Application, engine: Engine) -> None:
    create(application)
    settle(application)
    row, update, etf = (only(engine, model) for model in (EtfCreationTracking, EtfUpdateTracking, Etf))

    assert (row.status, row.attempts, row.error_message) == ("COMPLETED", 0, None)
    assert (etf.id, etf.symbol, etf.name) == ("MTUM", "MTUM", "iShares MSCI USA Momentum Factor ETF")
    assert (etf.currency, etf.isin) == ("USD", "US46432F3964")
    assert (update.etf_id, update.update_type, update.status) == ("MTUM", "full", "COMPLETED")
    assert [price.date.day for price in rows(engine, EtfPrice)] == [12, 13, 14, 15, 16]


def test_the_whole_history_reaches_from_the_first_day_of_the_source_to_its_last(
    application: Application, engine: Engine
) -> None:
    fields = creation_fields("MTUM")
    application.tasks.create_etf.enqueue(**fields)
    application.tasks.create_etf.celery_task.apply(args=(1,))
    update = only(engine, EtfUpdateTracking)

    assert fields == {"etf_id": "MTUM", "task_metadata": None}
    assert (update.start_date, update.end_date) == (date(2014, 1, 2), date(2022, 12, 28))


def test_facts_and_update_are_there_together_and_before_the_history(
    application: Application, engine: Engine
) -> None:
    create(application)
    application.tasks.create_etf.celery_task.apply(args=(1,))
    row, update = only(engine, EtfCreationTracking), only(engine, EtfUpdateTracking)

    assert (row.status, row.next_attempt_at) == ("PENDING", None)
    assert (update.status, only(engine, Etf).name) == ("PENDING", "iShares MSCI USA Momentum Factor ETF")
    (needed,) = application.tasks.create_etf.prerequisites(row.id)
    assert (needed.ref.domain, needed.ref.id, needed.is_met) == ("etf_update", update.id, False)


def test_creating_it_twice_is_one_row(application: Application, engine: Engine) -> None:
    create(application)
    settle(application)
    again = create(application)
    settle(application)

    assert (again.outcome, again.status) == ("existing", "COMPLETED")
    assert len(rows(engine, EtfUpdateTracking)) == 1


def test_a_history_that_cannot_be_fetched_fails_the_creation_with_the_reason(
    application: Application, source: Moody, engine: Engine
) -> None:
    source.prices_fail = True
    create(application)
    settle(application)
    row, update = only(engine, EtfCreationTracking), only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts, update.status, update.attempts) == ("FAILED", 1, "FAILED", 3)
    assert row.error_message == (
        f"HistoryNotFetched: etf_update {update.id} is FAILED: SourceDown: moody: HTTP 503"
    )
    assert only(engine, Etf).name == "iShares MSCI USA Momentum Factor ETF"


def test_a_failed_creation_that_is_started_again_has_the_history_fetched_again(
    application: Application, source: Moody, engine: Engine
) -> None:
    source.prices_fail = True
    create(application)
    settle(application)
    source.prices_fail = False
    again = create(application)
    settle(application)

    assert again.outcome == "restarted"
    assert only(engine, EtfCreationTracking).status == "COMPLETED"
    assert [update.status for update in rows(engine, EtfUpdateTracking)] == ["FAILED", "COMPLETED"]
    assert len(rows(engine, EtfPrice)) == 5


def test_a_history_that_was_cancelled_or_deleted_fails_the_creation(
    application: Application, engine: Engine
) -> None:
    for symbol in ("MTUM", "QUAL"):
        create(application, symbol)
        application.tasks.create_etf.celery_task.apply(args=(rows(engine, EtfCreationTracking)[-1].id,))
    first, second = rows(engine, EtfUpdateTracking)
    application.tasks.update_etf.cancel(first.id, "too much")
    with Session(engine) as db:
        db.execute(text(f"DELETE FROM tracking.etf_updates WHERE id = {second.id}"))
        db.commit()
    settle(application)

    assert [(row.status, row.error_message) for row in rows(engine, EtfCreationTracking)] == [
        ("FAILED", f"HistoryNotFetched: etf_update {first.id} is CANCELLED: too much"),
        ("FAILED", "HistoryNotFetched: the update that was to fetch the history is gone"),
    ]


@pytest.mark.parametrize("symbol", ["ACME", "EUNL.DE"])
def test_an_etf_that_the_source_does_not_know_is_not_created(
    application: Application, engine: Engine, symbol: str
) -> None:
    create(application, symbol)
    settle(application)
    row = only(engine, EtfCreationTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message == f"UnknownEtf: bundled knows no ETF with the symbol {symbol}"
    assert (rows(engine, Etf), rows(engine, EtfUpdateTracking)) == ([], [])


def test_a_source_that_is_down_costs_attempts_and_leaves_nothing_behind(
    application: Application, source: Moody, engine: Engine
) -> None:
    source.facts_fail = True
    create(application)
    settle(application)
    row = only(engine, EtfCreationTracking)

    assert (row.status, row.attempts) == ("FAILED", 3)
    assert rows(engine, Etf) == []


def test_an_etf_without_a_day_of_trading_yet_is_complete_and_says_so(
    application: Application, source: Moody, engine: Engine
) -> None:
    source.first_day = date(2022, 12, 30)
    application.tasks.create_etf.enqueue(**creation_fields("MTUM"))
    settle(application)
    row = only(engine, EtfCreationTracking)

    assert (row.status, row.error_message) == ("COMPLETED", "there are no prices yet")
    assert rows(engine, EtfUpdateTracking) == []


def test_an_etf_that_has_a_symbol_already_is_asked_for_by_that(
    application: Application, engine: Engine
) -> None:
    with Session(engine) as db:
        db.add(Etf(id="etf 17", symbol="MTUM"))
        db.commit()
    metadata = {"history_start": "2022-12-16", "realize_historical_contributions": True}
    application.tasks.create_etf.enqueue(etf_id="etf 17", resource_id=17, task_metadata=metadata)
    settle(application)
    row = only(engine, EtfCreationTracking)

    assert (row.status, row.resource_id, row.task_metadata) == ("COMPLETED", 17, metadata)
    assert only(engine, Etf).name == "iShares MSCI USA Momentum Factor ETF"
    with Session(engine) as db:
        assert db.scalar(select(func.count()).where(EtfPrice.etf_id == "etf 17")) == 8


@pytest.mark.parametrize("value", ["yesterday", "2022-02-30", 7, ["2022-12-16"], True])
def test_metadata_that_make_no_sense_fail_the_row_at_once_and_name_the_field(
    application: Application, engine: Engine, value: Any
) -> None:
    application.tasks.create_etf.enqueue(etf_id="MTUM", task_metadata={"history_start": value})
    settle(application)
    row = only(engine, EtfCreationTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message.startswith("InvalidField: task_metadata.history_start: a date such as")
    assert rows(engine, Etf) == []


def test_days_that_stay_missing_are_noted_in_the_completed_row(
    make_application: Any, engine: Engine, source: Moody
) -> None:
    add_rates(engine, date(2022, 11, 25), date(2022, 12, 30))

    async def fetch(symbol: str, start: date, end: date) -> PriceSeries:
        series = await BundledPrices().fetch(symbol, start, end)
        return replace(series, prices={day: series.prices[day] for day in list(series.prices)[1:]})

    source.fetch = fetch  # type: ignore[method-assign]
    application: Application = make_application(prices=source, clock=lambda: NOW)
    create(application)
    settle(application)
    row, update = only(engine, EtfCreationTracking), only(engine, EtfUpdateTracking)

    assert row.status == "COMPLETED"
    assert row.error_message == f"no price came for 1 trading days; see etf_update {update.id}"
