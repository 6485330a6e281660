"""Doing the work of workers and maintenance in this process, and reading what it left in the database."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable
from datetime import date
from importlib.resources import files
from typing import Any

from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session

from portfolio.main import Application
from portfolio.models import Etf, ExchangeRate
from tasktrail import Status
from tests.waiting import until

SOON = text("now() + interval '5 seconds'")


def settle(application: Application) -> None:
    """Work on every row that is due, and on those that become due by it, until none is left.

    Retries with a short delay are waited for; rows that are due later stay as they are.
    """
    trail = application.trail
    maintenance = trail.maintenance()

    def nothing_is_left() -> bool:
        with trail.engines.pooled() as db:
            maintenance.tick(db)
        waiting = [(domain, due(application, domain.model, func.now())) for domain in trail.registry]
        for domain, ids in waiting:
            for tracking_id in ids:
                trail.task_of(domain.name).celery_task.apply(args=(tracking_id,))
        held = any(ids for _, ids in waiting)
        return not held and not any(due(application, domain.model, SOON) for domain in trail.registry)

    until(nothing_is_left, seconds=120)


def due(application: Application, model: Any, moment: Any) -> list[int]:
    """Return the rows that wait for a worker and are due at some moment."""
    query = select(model.id).where(model.status == Status.PENDING, model.next_attempt_at <= moment)
    with Session(application.trail.engines.sync) as db:
        return list(db.scalars(query.order_by(model.id)))


def rows(engine: Engine, model: Any) -> list[Any]:
    """Return all rows of a table, by primary key, detached."""
    with Session(engine) as db:
        return list(db.scalars(select(model).order_by(*model.__table__.primary_key)))


def only(engine: Engine, model: Any) -> Any:
    """Return the one row of a table."""
    (row,) = rows(engine, model)
    return row


def add_etfs(engine: Engine, *symbols: str) -> None:
    """Store ETFs, each under its symbol."""
    with Session(engine) as db:
        db.add_all(Etf(id=symbol, symbol=symbol) for symbol in symbols)
        db.commit()


def add_rates(engine: Engine, first: date, last: date, *, without: Iterable[date] = ()) -> int:
    """Store the ECB's dollar rates of a range, read without any code of ours; return how many."""
    archive = zipfile.ZipFile(io.BytesIO((files("currency_converter") / "eurofxref-hist.zip").read_bytes()))
    with archive, archive.open("eurofxref-hist.csv") as table:
        lines = {
            date.fromisoformat(line["Date"]): line["USD"]
            for line in csv.DictReader(io.TextIOWrapper(table, encoding="ascii"))
        }
    days = sorted(day for day in lines.keys() - set(without) if first <= day <= last)
    with engine.begin() as db:
        db.execute(
            insert(ExchangeRate), [{"date": day, "currency": "USD", "rate": lines[day]} for day in days]
        )
    return len(days)
