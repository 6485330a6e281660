"""One old worker: writes to the legacy tables the way the old code does, until it is told to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from portfolio.legacy.history import ERRORS, ETF_IDS, WHOLE_TYPES

Wait: TypeAlias = Callable[[float], bool]
"""Waits so many seconds, or less when the worker is to stop; returns whether it is."""

DAYS: Final = 60
"""How many of the newest days the workers are busy with, if nobody says otherwise."""

RECONNECT_AFTER: Final = 0.2
OLD: Final = timedelta(days=30)
DELETED_AT_ONCE: Final = 20
"""How many rows a nightly deletion takes; it never has more to do, since it ran the night before."""

NEWEST_TASK: Final = """
    id = (SELECT id FROM task_status WHERE task_type = 'exchange_rate_update' AND resource_id = %s
          ORDER BY id DESC LIMIT 1)
"""
LATEST_UPDATE: Final = "id = (SELECT id FROM etf_updates WHERE etf_id = %s ORDER BY id DESC LIMIT 1)"


@dataclass
class Tally:
    """What a worker did.

    Attributes:
        changes: kind of write -> how many succeeded.
        writes: when each successful write ended, by the monotonic clock, and how long it took, its commit
            included, in seconds.
        errors: class of error -> how many writes ended in it.
        first_error: its text, if there was any.
    """

    changes: Counter[str] = field(default_factory=Counter)
    writes: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    first_error: str | None = None


class OldWorker:
    """Writes at a steady rate.

    Args:
        engine: the database.
        seed: decides what it does.
        number: which of the workers it is, from 0; the first one also deletes.
        days: how many of the newest days it is busy with.
    """

    def __init__(self, engine: Engine, seed: int, number: int, days: int = DAYS) -> None:
        self.tally = Tally()
        self._days = days
        self._engine = engine
        self._random = Random(f"{seed} {number}")
        self._deletes = number == 0
        self._task_states: dict[int, str] = {}
        self._open_day: tuple[date, str] | None = None
        self._number = number

    def work(self, rate: float, wait: Wait) -> None:
        """Write until told to stop, also through restarts of the server.

        Args:
            rate: writes a second.
            wait: waits; says when to stop.
        """
        while not wait(0):
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
                    self._write_on(db, rate, wait)
            except DBAPIError as error:
                self._note(error)
                wait(RECONNECT_AFTER)

    def _write_on(self, db: Connection, rate: float, wait: Wait) -> None:
        due = time.monotonic()
        while not wait(max(0.0, due - time.monotonic())):
            # A worker that was held up goes on at its rate, it does not make up for lost time.
            due = max(due + 1 / rate, time.monotonic() - 1)
            try:
                self._write(db)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                self._note(error)

    def _note(self, error: DBAPIError) -> None:
        self.tally.errors[type(error.orig).__name__] += 1
        self.tally.first_error = self.tally.first_error or " ".join(str(error.orig).split())

    def _write(self, db: Connection) -> None:
        chance = self._random.random()
        if chance < 0.5:
            self._exchange_rates(db)
        elif chance < 0.8:
            self._etf(db)
        elif chance < 0.98 or not self._deletes:
            self._daily(db)
        else:
            self._nightly(db)

    @contextmanager
    def _measured(self, kind: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        after = time.monotonic()
        self.tally.writes.append((after, after - before))
        self.tally.changes[kind] += 1

    def _run(self, db: Connection, kind: str, sql: str, *values: Any) -> int:
        with self._measured(kind):
            return db.exec_driver_sql(sql, values).rowcount

    def _exchange_rates(self, db: Connection) -> None:
        """A new row for each try; the newest row of the resource is updated in place."""
        # Up to ten workers have days of their own, as a task has one worker.
        day = _today() - timedelta(days=self._random.randrange(self._days // 10) * 10 + self._number % 10)
        resource = day.year * 10_000 + day.month * 100 + day.day
        state = self._task_states.get(resource)
        if state is None:
            metadata = f'{{"date": "{day}", "currencies": ["USD", "CHF", "JPY"]}}'
            self._run(
                db,
                "task added",
                "INSERT INTO task_status"
                " (task_type, status, resource_id, task_metadata, created_at, updated_at)"
                " VALUES ('exchange_rate_update', 'pending', %s, %s, %s, %s)",
                *(resource, metadata, _now(), _now()),
            )
            self._task_states[resource] = "pending"
            return
        following, error = self._after(state)
        self._run(
            db,
            f"task {following}",
            f"UPDATE task_status SET status = %s, error = %s, updated_at = %s WHERE {NEWEST_TASK}",
            *(following, error, _now(), resource),
        )
        if following == "processing":
            self._task_states[resource] = following
        else:  # the next try, or the next day's, is a new row
            del self._task_states[resource]

    def _etf(self, db: Connection) -> None:
        """The latest row of an ETF is updated in place; a retry counts up in the same row."""
        etf_id = self._random.choice(ETF_IDS)
        latest = db.exec_driver_sql(
            f"SELECT status FROM etf_updates WHERE {LATEST_UPDATE}", (etf_id,)
        ).scalar()
        if latest not in {"pending", "processing", "retrying"}:
            end = _today() - timedelta(days=self._random.randrange(self._days))
            self._run(
                db,
                "ETF update added",
                "INSERT INTO etf_updates (etf_id, update_type, start_date, end_date, status, created_at)"
                " VALUES (%s, 'prices_only', %s, %s, 'pending', %s)",
                *(etf_id, end - timedelta(days=30), end, _now()),
            )
        elif latest == "processing" and self._random.random() < 0.2:
            self._run(
                db,
                "ETF update retrying",
                "UPDATE etf_updates SET status = 'retrying', retry_count = retry_count + 1, error = %s "
                f"WHERE {LATEST_UPDATE}",
                *(self._random.choice(ERRORS), etf_id),
            )
        else:
            following, error = self._after("pending" if latest == "retrying" else latest)
            ended = None if following == "processing" else _now()
            self._run(
                db,
                f"ETF update {following}",
                f"UPDATE etf_updates SET status = %s, error = %s, completed_at = %s WHERE {LATEST_UPDATE}",
                *(following, error, ended, etf_id),
            )

    def _daily(self, db: Connection) -> None:
        """Get or create the row of a day, say that it was attempted, then whether data were found."""
        if self._open_day is None:
            kinds = (*WHOLE_TYPES, *(f"etf_prices_{etf_id}" for etf_id in ETF_IDS))
            days_ago = timedelta(days=self._random.randrange(self._days))
            self._open_day = (_today() - days_ago, self._random.choice(kinds))
        key = self._open_day
        where = "WHERE date = %s AND update_type = %s"
        found = db.exec_driver_sql(f"SELECT attempted FROM daily_update_tracking {where}", key).first()
        if found is None:
            self._run(
                db,
                "day added",
                "INSERT INTO daily_update_tracking (date, update_type) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                *key,
            )
        elif not found.attempted:
            self._run(db, "day attempted", f"UPDATE daily_update_tracking SET attempted = true {where}", *key)
        else:
            has_data = self._random.random() < 0.9
            sql = f"UPDATE daily_update_tracking SET data_found = %s, notes = %s {where}"
            self._run(db, "day done", sql, has_data, None if has_data else "no data from the source", *key)
            self._open_day = None

    def _nightly(self, db: Connection) -> None:
        """Completed rows older than 30 days are deleted, the oldest first."""
        table, column = self._random.choice((("task_status", "updated_at"), ("etf_updates", "completed_at")))
        self._run(
            db,
            "rows deleted",
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE status = 'completed' "
            f"AND {column} < %s ORDER BY id LIMIT {DELETED_AT_ONCE})",
            _now() - OLD,
        )

    def _after(self, state: str) -> tuple[str, str | None]:
        if state == "pending":
            return "processing", None
        chance = self._random.random()
        if chance < 0.85:
            return "completed", None
        if chance < 0.92:
            return "completed_with_errors", "SEK: no rate"
        return "failed", self._random.choice(ERRORS)


def _now() -> datetime:
    """Return the time by the clock of an old worker: in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def _today() -> date:
    return datetime.now(UTC).date()
