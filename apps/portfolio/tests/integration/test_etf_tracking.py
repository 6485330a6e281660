"""The services of ETF updates, ETF creation and daily updates: no row for bad input."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from apps.portfolio.tests.settling import add_etfs, rows
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.daily.tracking import DailyUpdateTrackingService
from portfolio.etfs.tracking import EtfCreationTrackingService, EtfUpdateTrackingService
from portfolio.models import DailyUpdateTracking, EtfCreationTracking, EtfUpdateTracking
from tasktrail import InvalidField

NOW = datetime(2022, 12, 29, 12, tzinfo=UTC)
TUESDAY, THURSDAY, SATURDAY = date(2022, 12, 27), date(2022, 12, 29), date(2022, 12, 24)
UPDATE = {"etf_id": "MTUM", "update_type": "full", "start_date": TUESDAY, "end_date": THURSDAY, "now": NOW}


async def test_a_new_etf_update_is_pending_and_has_what_it_was_given(
    async_session: AsyncSession, engine: Engine
) -> None:
    add_etfs(engine, "MTUM")
    service = EtfUpdateTrackingService(async_session)
    row = await service.get_tracking(await service.create_update_tracking(**UPDATE, max_attempts=5))

    assert (row.status, row.etf_id, row.update_type, row.max_attempts) == ("PENDING", "MTUM", "full", 5)
    assert (row.start_date, row.end_date, row.missing_dates) == (TUESDAY, THURSDAY, None)


async def test_the_clock_tells_the_time_when_nobody_else_does(
    async_session: AsyncSession, engine: Engine
) -> None:
    add_etfs(engine, "MTUM")
    service = EtfUpdateTrackingService(async_session)
    given = {name: value for name, value in UPDATE.items() if name != "now"}

    assert await service.create_update_tracking(**given) > 0
    with pytest.raises(InvalidField, match="end_date: it is in the future"):
        await service.create_update_tracking(**{**given, "end_date": date(2999, 1, 1)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"etf_id": "ACME"}, "etf_id: there is no such ETF (got 'ACME')"),
        ({"etf_id": ""}, "etf_id: an id is 1 to 255 printable characters"),
        ({"etf_id": 7}, "etf_id: an id is 1 to 255 printable characters"),
        ({"etf_id": None}, "etf_id: an id is 1 to 255 printable characters"),
        ({"etf_id": "MTUM\0"}, "etf_id: an id is 1 to 255 printable characters"),
        ({"etf_id": "\ud800"}, "etf_id: an id is 1 to 255 printable characters"),
        ({"etf_id": "x" * 256}, "etf_id: an id is 1 to 255 printable characters"),
        ({"update_type": "everything"}, "update_type: it is none of full, prices_only, info_only, manual"),
        ({"update_type": None}, "update_type: it is none of"),
        ({"update_type": ["full"]}, "update_type: it is none of"),
        ({"start_date": date(2022, 12, 30)}, "start_date: it is after end_date 2022-12-29"),
        ({"end_date": date(2022, 12, 30)}, "end_date: it is in the future: in UTC it is 2022-12-29"),
        ({"start_date": date(1998, 12, 31)}, "start_date: the first exchange rates of the euro are"),
        ({"start_date": "2022-12-27"}, "start_date: a date without a time is needed"),
        ({"end_date": NOW}, "end_date: a date without a time is needed"),
        ({"end_date": None}, "end_date: a date without a time is needed"),
        ({"missing_dates": ["x"]}, "missing_dates[0]: must be a date"),
        ({"colour": "red"}, "colour: is no field of etf_update"),
    ],
)
async def test_bad_input_for_an_etf_update_names_its_field_and_leaves_no_row(
    async_session: AsyncSession, engine: Engine, given: dict[str, Any], message: str
) -> None:
    add_etfs(engine, "MTUM")
    with pytest.raises(InvalidField) as refused:
        await EtfUpdateTrackingService(async_session).create_update_tracking(**{**UPDATE, **given})

    assert str(refused.value).startswith(message)
    assert rows(engine, EtfUpdateTracking) == []


async def test_a_creation_is_one_row_for_each_etf(async_session: AsyncSession, engine: Engine) -> None:
    service = EtfCreationTrackingService(async_session)
    first = await service.create_creation_tracking("MTUM", history_start=TUESDAY, resource_id=17)
    second = await service.create_creation_tracking("MTUM")
    row = await service.get_tracking(first)

    assert second == first
    assert (row.etf_id, row.resource_id, row.task_metadata) == (
        "MTUM",
        17,
        {"history_start": "2022-12-27"},
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"symbol": "mtum"}, "symbol: a symbol is 1 to 20 capital letters"),
        ({"symbol": "US46432F3964"}, "symbol: this is an ISIN"),
        ({"symbol": None}, "symbol: a symbol is"),
        ({"history_start": "2022-12-27"}, "history_start: a date without a time is needed"),
        (
            {"history_start": THURSDAY, "history_end": TUESDAY},
            "history_start: it is after history_end 2022-12-27",
        ),
        ({"resource_id": "x"}, "resource_id: must be a whole number"),
    ],
)
async def test_bad_input_for_a_creation_names_its_field_and_leaves_no_row(
    async_session: AsyncSession, engine: Engine, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        await EtfCreationTrackingService(async_session).create_creation_tracking(
            **{"symbol": "MTUM", **given}
        )

    assert str(refused.value).startswith(message)
    assert rows(engine, EtfCreationTracking) == []


async def test_a_daily_update_is_one_row_for_each_day_and_type(
    async_session: AsyncSession, engine: Engine
) -> None:
    service = DailyUpdateTrackingService(async_session)
    types = ["exchange_rates", "etf_prices", "etf_prices_MTUM", "etf_prices", "exchange_rates"]
    ids = [await service.create_update_tracking(TUESDAY, one, now=NOW) for one in types]

    assert ids[:3] == sorted(set(ids))
    assert ids[3:] == [ids[1], ids[0]]
    assert [(row.status, row.data_found, row.notes) for row in rows(engine, DailyUpdateTracking)] == [
        ("PENDING", None, None)
    ] * 3


@pytest.mark.parametrize(
    ("day", "update_type", "hour", "due"),
    [
        (THURSDAY, "exchange_rates", 12, datetime(2022, 12, 29, 15, tzinfo=UTC)),
        (THURSDAY, "etf_prices", 12, datetime(2022, 12, 29, 21, 30, tzinfo=UTC)),
        (THURSDAY, "etf_prices_MTUM", 12, datetime(2022, 12, 29, 21, 30, tzinfo=UTC)),
        (THURSDAY, "exchange_rates", 15, None),
        (THURSDAY, "etf_prices", 22, None),
        (TUESDAY, "exchange_rates", 12, None),
        (SATURDAY, "etf_prices", 12, None),
    ],
)
async def test_a_row_for_today_is_due_when_the_data_of_today_are_out(
    async_session: AsyncSession, day: date, update_type: str, hour: int, due: datetime | None
) -> None:
    service = DailyUpdateTrackingService(async_session)
    tracking_id = await service.create_update_tracking(day, update_type, now=NOW.replace(hour=hour))
    row = await service.get_tracking(tracking_id)

    assert row.next_attempt_at == (due or row.created_at)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"update_type": "weather"}, "update_type: it is none of exchange_rates, etf_prices"),
        ({"update_type": "etf_prices_"}, "update_type: it is none of"),
        ({"update_type": None}, "update_type: it is none of"),
        ({"update_type": "etf_prices_" + "x" * 40}, "update_type: is 51 characters long, 50 fit"),
        ({"update_date": date(2022, 12, 30)}, "update_date: it is in the future: in UTC it is 2022-12-29"),
        ({"update_date": "2022-12-27"}, "update_date: a date without a time is needed"),
        ({"update_date": NOW}, "update_date: a date without a time is needed"),
    ],
)
async def test_bad_input_for_a_daily_update_names_its_field_and_leaves_no_row(
    async_session: AsyncSession, engine: Engine, given: dict[str, Any], message: str
) -> None:
    fields: dict[str, Any] = {"update_date": TUESDAY, "update_type": "exchange_rates", "now": NOW, **given}
    with pytest.raises(InvalidField) as refused:
        await DailyUpdateTrackingService(async_session).create_update_tracking(**fields)

    assert str(refused.value).startswith(message)
    assert rows(engine, DailyUpdateTracking) == []
