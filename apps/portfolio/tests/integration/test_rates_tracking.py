"""The service of the exchange-rate updates: one row a day, and no row for bad input."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.rates.tracking import DEFAULT_CURRENCIES, ExchangeRateTrackingService
from tasktrail import InvalidField

FRIDAY = date(2026, 10, 30)


@pytest.fixture
def service(async_session: AsyncSession) -> ExchangeRateTrackingService:
    return ExchangeRateTrackingService(async_session)


def rows(engine: Engine) -> int:
    with engine.connect() as db:
        return db.exec_driver_sql("SELECT count(*) FROM tracking.exchange_rate_update_tracking").scalar_one()


async def test_a_new_row_is_pending_and_has_what_it_was_given(service: ExchangeRateTrackingService) -> None:
    later = datetime(2027, 1, 1, 12, tzinfo=UTC)
    tracking_id = await service.create_update_tracking(
        FRIDAY, ["USD", "CHF"], source="ecb-live", max_attempts=5, next_attempt_at=later
    )
    row = await service.get_tracking(tracking_id)

    assert (row.status, row.update_date, row.base_currency) == ("PENDING", FRIDAY, "EUR")
    assert (row.target_currencies, row.total_count, row.success_count) == (["USD", "CHF"], 2, 0)
    assert (row.source, row.max_attempts, row.next_attempt_at) == ("ecb-live", 5, later)


async def test_the_same_day_twice_is_one_row(service: ExchangeRateTrackingService, engine: Engine) -> None:
    first = await service.create_update_tracking(FRIDAY, ["USD"], source="a")
    second = await service.create_update_tracking(FRIDAY, DEFAULT_CURRENCIES, source="b")

    assert second == first
    assert (await service.get_tracking(first)).target_currencies == ["USD"]
    assert rows(engine) == 1


async def test_another_day_is_another_row(service: ExchangeRateTrackingService, engine: Engine) -> None:
    first = await service.create_update_tracking(FRIDAY, ["USD"], source="a")

    assert await service.create_update_tracking(date(2026, 10, 29), ["USD"], source="a") != first
    assert rows(engine) == 2


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"colour": "red"}, "colour", "is no field of exchange_rate"),
        ({"status": "COMPLETED"}, "status", "is kept by tasktrail"),
        ({"attempts": 0}, "attempts", "is kept by tasktrail"),
        ({"id": 7}, "id", "is kept by tasktrail"),
        ({"update_date": datetime(2026, 10, 30)}, "update_date", "must be a date"),  # noqa: DTZ001
        ({"update_date": datetime(2026, 10, 30, tzinfo=UTC)}, "update_date", "must be a date"),
        ({"update_date": "2026-10-30"}, "update_date", "must be a date"),
        ({"update_date": None}, "update_date", "may not be empty"),
        ({"base_currency": "USD"}, "base_currency", "for one EUR only"),
        ({"base_currency": "EURO"}, "base_currency", "4 characters long, 3 fit"),
        ({"base_currency": "eur"}, "base_currency", "must have the form"),
        ({"base_currency": None}, "base_currency", "may not be empty"),
        ({"target_currencies": ["USD", "USDX"]}, "target_currencies[1]", "4 characters long, 3 fit"),
        ({"target_currencies": ["usd"]}, "target_currencies[0]", "must have the form"),
        ({"target_currencies": ["U$D"]}, "target_currencies[0]", "must have the form"),
        ({"target_currencies": ["US\n"]}, "target_currencies[0]", "must have the form"),
        ({"target_currencies": ["US\0"]}, "target_currencies[0]", "holds a NUL"),
        ({"target_currencies": [None]}, "target_currencies[0]", "may not be empty"),
        ({"target_currencies": [840]}, "target_currencies[0]", "must be text"),
        ({"target_currencies": [["USD"]]}, "target_currencies[0]", "must be text"),
        ({"target_currencies": []}, "target_currencies", "at least one currency is needed"),
        ({"target_currencies": ["USD", "CHF", "USD"]}, "target_currencies", "names USD more than once"),
        ({"target_currencies": ["USD", "EUR"]}, "target_currencies", "holds the base currency"),
        ({"target_currencies": "USD"}, "target_currencies", "must be a list"),
        ({"target_currencies": None}, "target_currencies", "may not be empty"),
        ({"target_currencies": 7}, "target_currencies", "must be a list"),
        ({"source": "x" * 51}, "source", "51 characters long, 50 fit"),
        ({"source": None}, "source", "may not be empty"),
        ({"source": 7}, "source", "must be text"),
        ({"max_attempts": 0}, "max_attempts", "must be at least 1"),
        ({"max_attempts": -3}, "max_attempts", "must be at least 1"),
        ({"max_attempts": True}, "max_attempts", "must be a whole number"),
        ({"max_attempts": 2**31}, "max_attempts", "does not fit a 32-bit integer"),
        ({"next_attempt_at": datetime(2027, 1, 1)}, "next_attempt_at", "has no time zone"),  # noqa: DTZ001
        ({"celery_task_id": "x" * 256}, "celery_task_id", "256 characters long, 255 fit"),
    ],
)
async def test_bad_input_is_refused_by_the_name_of_its_field_and_leaves_no_row(
    service: ExchangeRateTrackingService, engine: Engine, given: dict[str, Any], field: str, reason: str
) -> None:
    good = {"update_date": FRIDAY, "target_currencies": ["USD"], "source": "ecb-live"}
    with pytest.raises(InvalidField) as refused:
        await service.create_update_tracking(**{**good, **given})

    assert refused.value.field == field
    assert reason in refused.value.reason
    assert str(refused.value).startswith(f"{field}: ")
    assert rows(engine) == 0


async def test_after_bad_input_the_service_goes_on(service: ExchangeRateTrackingService) -> None:
    with pytest.raises(InvalidField):
        await service.create_update_tracking(FRIDAY, [], source="a")

    assert await service.create_update_tracking(FRIDAY, ["USD"], source="a") > 0


async def test_a_set_of_fifty_currencies_and_a_name_of_fifty_characters_fit(
    service: ExchangeRateTrackingService,
) -> None:
    currencies = frozenset(f"{first}{second}X" for first in "ABCDE" for second in "ABCDEFGHIJ")
    tracking_id = await service.create_update_tracking(FRIDAY, currencies, source="ü" * 50)
    row = await service.get_tracking(tracking_id)

    assert (set(row.target_currencies), row.total_count) == (currencies, 50)
