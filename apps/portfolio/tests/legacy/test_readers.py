"""The old system's questions are answered as it would answer them."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from apps.portfolio.tests.legacy import loose
from apps.portfolio.tests.legacy.case import daily, etf_update, task
from sqlalchemy import Engine

from portfolio.legacy import readers
from portfolio.legacy.tables import ETF_UPDATES, MIGRATED, TASK_STATUS

DAY = date(2024, 3, 1)


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    with engine.begin() as db:
        loose.add_etfs(db)
        loose.add_rows(
            db,
            "task_status",
            [
                task(status="failed", error="Timeout", updated_at=datetime(2024, 3, 9)),
                task(status="processing"),
                task(status="completed", resource_id=20240302),
                task(status="pending", task_type="etf_creation"),
            ],
        )
        loose.add_rows(
            db,
            "etf_updates",
            [
                etf_update(id=1, status="completed", missing_dates=[date(2024, 2, 5), date(2024, 2, 6)]),
                etf_update(id=2, status="retrying", retry_count=1, error="Timeout"),
                etf_update(id=3, status="pending"),
                etf_update(id=4, status="failed", missing_dates=[date(2024, 2, 9)]),
                etf_update(id=5, status="pending", etf_id="MTUM"),
            ],
        )
        loose.add_rows(
            db,
            "daily_update_tracking",
            [
                daily(),
                daily(date=date(2024, 3, 4), data_found=False),
                daily(date=date(2024, 3, 5), attempted=False, data_found=False),
                daily(date=date(2024, 3, 6), attempted=None, data_found=None),
                daily(date=date(2024, 3, 7), attempted=None, data_found=True),
            ],
        )


def test_the_newest_task_of_a_resource_is_the_last_that_was_added(engine: Engine) -> None:
    with engine.connect() as db:
        found = readers.newest_task(db, "exchange_rate_update", 20240301)
        other = readers.newest_task(db, "exchange_rate_update", 20240303)

    assert found is not None
    assert found.task_metadata["date"] == "2024-03-01"
    assert (found.id, found.status, found.error) == (2, "processing", None)
    assert other is None


def test_the_active_updates_of_an_etf_are_those_under_way(engine: Engine) -> None:
    with engine.connect() as db:
        updates = readers.active_updates(db, "EUNL.DE")
        latest = readers.latest_update(db, "EUNL.DE")
        none = (readers.active_updates(db, "GONE"), readers.latest_update(db, "GONE"))

    assert [(one.id, one.status, one.retry_count) for one in updates] == [
        (2, "retrying", 1),
        (3, "pending", 0),
    ]
    assert latest is not None
    assert (latest.id, latest.status) == (4, "failed")
    assert none == ([], None)


def test_missing_days_are_those_of_completed_updates(engine: Engine) -> None:
    with engine.connect() as db:
        assert readers.missing_dates(db, "EUNL.DE") == {date(2024, 2, 5), date(2024, 2, 6)}


@pytest.mark.parametrize(
    ("day", "is_done"), [(1, True), (4, False), (5, False), (6, False), (7, False), (8, False)]
)
def test_a_day_is_done_when_it_was_attempted_and_data_were_found(
    engine: Engine, day: int, is_done: bool
) -> None:
    with engine.connect() as db:
        assert readers.daily_update_is_done(db, date(2024, 3, day), "exchange_rates") is is_done


def test_open_days_are_those_without_data(engine: Engine) -> None:
    with engine.connect() as db:
        assert [day.day for day in readers.open_days(db, "exchange_rates", DAY)] == [4, 5, 6]
        assert [day.day for day in readers.open_days(db, "exchange_rates", date(2024, 3, 6))] == [6]
        assert readers.open_days(db, "etf_prices", DAY) == []


def test_rows_are_counted_by_status_and_read_whole(engine: Engine) -> None:
    with engine.connect() as db:
        tasks = readers.count_by_status(db, TASK_STATUS)
        updates = readers.count_by_status(db, ETF_UPDATES)
        rows = [len(readers.every_row(db, table)) for table in MIGRATED]

    assert tasks == {"failed": 1, "processing": 1, "completed": 1, "pending": 1}
    assert updates == {"completed": 1, "retrying": 1, "pending": 2, "failed": 1}
    assert rows == [4, 5, 5]
