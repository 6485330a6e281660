"""What the old system asks its tables, word for word: after a rollback it must find everything there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, func, select

from portfolio.legacy.tables import DAILY_UPDATES, ETF_UPDATES, TASK_STATUS

ACTIVE: Final = ("pending", "processing", "retrying")
"""What the old code compares a status with; it does not trim or fold the case."""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of ``task_status``, as the old progress display shows it.

    Attributes:
        id: the row.
        status: its word.
        error: what went wrong, if anything did.
        task_metadata: what it was asked for.
        updated_at: when it was last written.
    """

    id: int
    status: str
    error: str | None
    task_metadata: Any
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class EtfUpdate:
    """A row of ``etf_updates``, as the old update page shows it.

    Attributes:
        id: the row.
        update_type: what is fetched.
        status: its word.
        start_date: first day.
        end_date: last day.
        retry_count: how often it was tried again.
        error: what went wrong, if anything did.
        missing_dates: days without a price.
    """

    id: int
    update_type: str
    status: str
    start_date: date
    end_date: date
    retry_count: int
    error: str | None
    missing_dates: list[date] | None


def newest_task(db: Connection, task_type: str, resource_id: int) -> Task | None:
    """Return the newest task of a resource; what "the status" of it means in the old system.

    Args:
        db: the database.
        task_type: e.g. ``exchange_rate_update``.
        resource_id: e.g. 20240301, the day, for exchange rates.
    """
    row = TASK_STATUS.c
    found = db.execute(
        select(row.id, row.status, row.error, row.task_metadata, row.updated_at)
        .where(row.task_type == task_type, row.resource_id == resource_id)
        .order_by(row.id.desc())
        .limit(1)
    ).first()
    return None if found is None else Task(*found)


def active_updates(db: Connection, etf_id: str) -> list[EtfUpdate]:
    """Return the updates of an ETF that are under way, oldest first.

    While there is one, the old system starts no other.

    Args:
        db: the database.
        etf_id: the ETF.
    """
    row = ETF_UPDATES.c
    query = _updates().where(row.etf_id == etf_id, row.status.in_(ACTIVE)).order_by(row.id)
    return [EtfUpdate(*found) for found in db.execute(query)]


def latest_update(db: Connection, etf_id: str) -> EtfUpdate | None:
    """Return the latest update of an ETF, the one that the old workers write to.

    Args:
        db: the database.
        etf_id: the ETF.
    """
    row = ETF_UPDATES.c
    found = db.execute(_updates().where(row.etf_id == etf_id).order_by(row.id.desc()).limit(1)).first()
    return None if found is None else EtfUpdate(*found)


def missing_dates(db: Connection, etf_id: str) -> set[date]:
    """Return the days for which some completed update of an ETF found no price.

    Args:
        db: the database.
        etf_id: the ETF.
    """
    row = ETF_UPDATES.c
    days = func.unnest(row.missing_dates)
    return set(db.scalars(select(days).where(row.etf_id == etf_id, row.status == "completed")))


def daily_update_is_done(db: Connection, day: date, update_type: str) -> bool:
    """Return whether the old system leaves a day alone: it attempted it, and found data.

    Args:
        db: the database.
        day: the day.
        update_type: ``exchange_rates``, ``etf_prices`` or ``etf_prices_<etf id>``.
    """
    row = DAILY_UPDATES.c
    query = select(row.attempted.is_(True) & row.data_found.is_(True)).where(
        row.date == day, row.update_type == update_type
    )
    return bool(db.scalar(query))


def open_days(db: Connection, update_type: str, since: date) -> list[date]:
    """Return the days that the old system would attempt again, oldest first.

    Args:
        db: the database.
        update_type: ``exchange_rates``, ``etf_prices`` or ``etf_prices_<etf id>``.
        since: the first day that is looked at.
    """
    row = DAILY_UPDATES.c
    query = (
        select(row.date)
        .where(row.update_type == update_type, row.date >= since, row.data_found.is_not(True))
        .order_by(row.date)
    )
    return list(db.scalars(query))


def count_by_status(db: Connection, table: Table) -> dict[str, int]:
    """Return how many rows a table has of each status, as the old statistics page counts them.

    Args:
        db: the database.
        table: ``TASK_STATUS`` or ``ETF_UPDATES``.
    """
    query = select(table.c.status, func.count()).group_by(table.c.status)
    return {row.status: row[1] for row in db.execute(query)}


def every_row(db: Connection, table: Table) -> list[Row[Any]]:
    """Return all rows of a legacy table in the order of its key, for comparing two moments.

    Args:
        db: the database.
        table: one of the legacy tables.
    """
    return list(db.execute(select(table).order_by(*table.primary_key)))


def _updates() -> Any:
    row = ETF_UPDATES.c
    return select(
        row.id,
        row.update_type,
        row.status,
        row.start_date,
        row.end_date,
        row.retry_count,
        row.error,
        row.missing_dates,
    )
