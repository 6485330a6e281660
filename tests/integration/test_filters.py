"""Which rows an operator's filter means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text

from tasktrail import InvalidField, Status, tracker
from tasktrail.filters import Filter
from tests.support import OrderTracking

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "usd": {"currency": "USD", "amount": Decimal("9.50")},
    "tagged": {"tags": ["a", "b"], "details": {"deep": [1, 2]}, "urgent": True},
    "failed": {"status": "FAILED", "error_message": "ValueError: 100% of _it_ is WRONG", "attempts": 3},
    "timeout": {"status": "FAILED", "error_message": "TimeLimit: 5 s", "attempts": 1},
    "running": {"status": "PROCESSING", "worker": "w_1@host/12"},
    "elsewhere": {"status": "PROCESSING", "worker": "wx1@host/12"},
    "old": {"status": "COMPLETED", "created_at": NOON},
    "older": {"status": "COMPLETED", "created_at": datetime(2024, 3, 1, 11, 59, tzinfo=UTC)},
    "secret": {"status": "COMPLETED", "error_message": "Refused: password=hunter2 is known"},
}


@pytest.fixture(scope="module")
def engine(make_database: Callable[..., str], library_template: str) -> Any:
    """One database for the file, with one row of each kind."""
    engine = create_engine(make_database(library_template))
    with engine.begin() as db:
        for number, values in enumerate(ROWS.values(), start=1):
            day = date.fromordinal(730_000 + number)
            row = {"id": number, "day": day, "currency": "EUR", **values}
            db.execute(OrderTracking.__table__.insert().values(row))
    yield engine
    engine.dispose()


def found(engine: Engine, **conditions: Any) -> list[str]:
    query = select(OrderTracking.id).where(*Filter(**conditions).conditions(OrderTracking))
    with engine.connect() as db:
        return [list(ROWS)[row - 1] for row in sorted(db.scalars(query))]


ALL = list(ROWS)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ALL),
        ({"states": [Status.FAILED]}, ["failed", "timeout"]),
        ({"states": ["PROCESSING", "COMPLETED"]}, ["running", "elsewhere", "old", "older", "secret"]),
        ({"ids": [2, 4, 404]}, ["usd", "failed"]),
        ({"created_from": NOON}, [name for name in ALL if name != "older"]),
        ({"created_before": NOON}, ["older"]),
        ({"created_before": datetime(2024, 3, 2, tzinfo=UTC)}, ["old", "older"]),
        ({"error": "valueerror"}, ["failed"]),
        ({"error": "wrong"}, ["failed"]),
        ({"error": "100%"}, ["failed"]),
        ({"error": "_it_"}, ["failed"]),
        ({"error": "1__%"}, []),
        ({"error": "%"}, ["failed"]),
        ({"error": ""}, ["failed", "timeout", "secret"]),
        ({"error": "hunter2"}, ["secret"]),
        ({"shown_error": "REFUSED: pass"}, ["secret"]),
        ({"shown_error": "is known"}, ["secret"]),
        ({"shown_error": "hunter2"}, []),
        ({"shown_error": "=h"}, []),
        ({"shown_error": "2 is"}, []),
        ({"shown_error": "100%"}, ["failed"]),
        ({"error": "'; DROP TABLE tracking.order_tracking; --"}, []),
        ({"worker": "w_1@"}, ["running"]),
        ({"worker": "w"}, ["running", "elsewhere"]),
        ({"worker": "host"}, []),
        ({"attempts_from": 1}, ["failed", "timeout"]),
        ({"attempts_from": 3}, ["failed"]),
        ({"fields": {"currency": "USD"}}, ["usd"]),
        ({"fields": {"currency": "EUR", "urgent": True}}, ["tagged"]),
        ({"fields": {"day": date.fromordinal(730_001)}}, ["plain"]),
        ({"fields": {"amount": Decimal("9.5")}}, ["usd"]),
        ({"fields": {"tags": ["a", "b"]}}, ["tagged"]),
        ({"fields": {"details": {"deep": [1, 2]}}}, ["tagged"]),
        ({"fields": {"urgent": None}}, [name for name in ALL if name != "tagged"]),
        ({"states": ["FAILED"], "attempts_from": 1, "error": "TimeLimit", "ids": [4, 5]}, ["timeout"]),
        ({"states": ["FAILED"], "worker": "w"}, []),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_filter_means_the_rows_that_meet_all_its_conditions(
    engine: Engine, conditions: dict[str, Any], expected: list[str]
) -> None:
    assert found(engine, **conditions) == expected


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"states": ["DONE"]},
            "states: is none of PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED",
        ),
        ({"states": ["failed"]}, "states: is none of"),
        ({"ids": ["7"]}, "ids: must be a whole number (got '7')"),
        ({"ids": [2**63]}, "ids: does not fit a 64-bit integer"),
        ({"created_from": NOON.replace(tzinfo=None)}, "created_from: has no time zone"),
        ({"created_before": NOON.replace(tzinfo=None)}, "created_before: has no time zone"),
        ({"created_before": "yesterday"}, "created_before: must be a datetime (got 'yesterday')"),
        ({"error": "\x00"}, "error: holds a NUL"),
        ({"error": 500}, "error: must be text (got 500)"),
        ({"shown_error": "\x00"}, "shown_error: holds a NUL"),
        ({"worker": "\ud800"}, "worker: holds a NUL or a lone surrogate"),
        ({"attempts_from": "many"}, "attempts_from: must be a whole number"),
        ({"fields": {"colour": "red"}}, "colour: is no field of order; it has: day, currency, tags"),
        ({"fields": {"status": "FAILED"}}, "status: is no field of order"),
        ({"fields": {"day": "2024-03-01"}}, "day: must be a date (got '2024-03-01')"),
        ({"fields": {"currency": "euro"}}, "currency: is 4 characters long, 3 fit"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_filter_that_makes_no_sense_is_refused_with_the_field_and_the_value(
    engine: Engine, conditions: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        found(engine, **conditions)

    assert str(caught.value).startswith(message)


def test_every_condition_of_a_filter_is_tested_here() -> None:
    assert [field.name for field in fields(Filter)] == [
        *("states", "ids", "created_from", "created_before", "error", "shown_error"),
        *("worker", "attempts_from", "fields"),
    ]


def test_a_filter_sees_rows_as_they_are_now(engine: Engine) -> None:
    with engine.connect() as db:
        before = found(engine, states=["CANCELLED"])
        tracker.cancel(db, OrderTracking, 1, "nobody wants it")
        query = select(OrderTracking.id).where(*Filter(states=["CANCELLED"]).conditions(OrderTracking))
        during = list(db.scalars(query))
        db.execute(text("ROLLBACK"))

    assert (before, during) == ([], [1])
