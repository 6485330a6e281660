"""Keeps the rollups: figures of each minute and each hour, made from the rows and replaced by what they say.

Nothing is ever added up. Each round makes the newest minutes again, and one slice of the past, going back
until the oldest row and then from the newest on again. So what came late, was retried, deleted or moved by a
clock is in the rollups after one pass, and a crash loses nothing. Minutes whose rows are pruned are left.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import dialect, insert

from tasktrail.guards import Model, table_of
from tasktrail.library import library
from tasktrail.models import built_once
from tasktrail.registry import Domain
from tasktrail.rollups import FIGURES, HOUR, MINUTE, figures_sql, floor, typed

LAG: Final = timedelta(minutes=1)
"""How long after its end a minute is rolled up; until then it is read from the rows."""

OVERLAP: Final = timedelta(minutes=10)
"""How far behind that the minutes are made again in each round, for what was committed late."""

LONGEST_STEP: Final = timedelta(hours=6)
"""How much is caught up at once after maintenance stood still."""

BUDGET: Final = 1.0
"""How long the first pass over the past may take in one round, in seconds."""

BRISK: Final = 0.05
"""A slice that took less, in seconds, is doubled the next time."""

SLOW: Final = 0.3
"""A slice that took more, in seconds, is halved the next time."""

LONGEST_SLICE: Final = 30 * 86_400

hour_of = partial(floor, seconds=HOUR)


def roll_up(engine: Engine, domain: Domain) -> None:
    """Bring the rollups of a domain up to date, and look at one more slice of the past.

    Args:
        engine: the database.
        domain: the domain.
    """
    deadline = time.monotonic() + BUDGET
    with engine.begin() as db:
        _begin(db, domain)
    while True:
        with engine.begin() as db:
            is_behind = _advance(db, domain)
        with engine.begin() as db:
            is_first_pass = _look_back(db, domain)
        if not (is_behind or is_first_pass) or time.monotonic() >= deadline:
            return


def note_pruned(db: Connection, domain: Domain, seconds: float) -> None:
    """Note that rows were deleted for their age, so that figures of their time are not made again.

    Args:
        db: the transaction that deleted them.
        domain: the domain.
        seconds: the age.
    """
    state = library(domain.schema).rollup_state
    edge = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    db.execute(
        update(state)
        .where(state.c.domain == domain.name)
        .values(kept_from=func.greatest(state.c.kept_from, edge))
    )


def _begin(db: Connection, domain: Domain) -> None:
    state = library(domain.schema).rollup_state
    now: datetime = db.execute(select(func.now())).scalar_one()
    start = hour_of(now - LAG)
    statement = insert(state).values(domain=domain.name, rolled_to=start, built_from=start)
    db.execute(statement.on_conflict_do_nothing())


def _locked(db: Connection, domain: Domain) -> Row[Any]:
    """Read how far the rollups are; whoever prunes or rolls up besides waits for this transaction."""
    state = library(domain.schema).rollup_state
    query = select(state, func.now().label("now")).where(state.c.domain == domain.name)
    return db.execute(query.with_for_update()).one()


def _advance(db: Connection, domain: Domain) -> bool:
    """Roll up the newest minutes, those before them once more; say whether there are more to come."""
    state = _locked(db, domain)
    target: datetime = floor(state.now - LAG, MINUTE)
    until: datetime = min(target, state.rolled_to + LONGEST_STEP)
    since = max(min(state.rolled_to, until) - OVERLAP, state.built_from, _edge(state))
    if since < until:
        _replace(db, domain, MINUTE, since, until)
        if hour_of(since) < hour_of(until):
            _replace(db, domain, HOUR, hour_of(since), hour_of(until))
    _note(db, domain, rolled_to=max(until, state.built_from), rolled_at=func.now())
    return until < target


def _look_back(db: Connection, domain: Domain) -> bool:
    """Make one slice of the past again; say whether the past was not reached yet for the first time."""
    state = _locked(db, domain)
    table = table_of(domain.model)
    oldest: datetime | None = db.execute(
        select(
            func.least(
                select(func.min(table.c.created_at)).scalar_subquery(),
                select(func.min(table.c.completed_at)).scalar_subquery(),
            )
        )
    ).scalar_one()
    bottom: datetime = min(state.built_from, hour_of(oldest)) if oldest else state.built_from
    bottom = max(bottom, _edge(state))
    high = state.built_from if bottom < state.built_from else state.audited_to
    if high is None or high <= bottom:
        high = state.rolled_to
    low = max(hour_of(high - timedelta(seconds=state.slice_seconds)), bottom)
    if low >= high:
        return False
    began = time.monotonic()
    _replace(db, domain, MINUTE, low, high)
    _replace(db, domain, HOUR, low, hour_of(high))
    took, size = time.monotonic() - began, state.slice_seconds
    if took < BRISK:
        size = min(2 * size, LONGEST_SLICE)
    elif took > SLOW:
        size = max(size // 2 // HOUR * HOUR, HOUR)
    reached: datetime = min(state.built_from, low)
    _note(db, domain, audited_to=low, built_from=reached, slice_seconds=size)
    return reached > bottom


def _edge(state: Row[Any]) -> datetime:
    """Return from when on all rows are still there."""
    if state.kept_from is None:
        return floor(datetime.min.replace(year=1970, tzinfo=state.now.tzinfo), HOUR)
    return hour_of(state.kept_from) + timedelta(hours=1)


def _note(db: Connection, domain: Domain, **values: Any) -> None:
    state = library(domain.schema).rollup_state
    db.execute(update(state).where(state.c.domain == domain.name).values(**values))


def _replace(db: Connection, domain: Domain, width: int, since: datetime, until: datetime) -> None:
    parameters = {"domain": domain.name, "width": width, "since": since, "until": until}
    db.execute(replace_if_different(domain.model, domain.schema), parameters)


@built_once
def replace_if_different(model: Model, schema: str | None) -> Any:
    """Make the figures of a span from the rows, and write those that differ from what is there."""
    table = dialect().identifier_preparer.format_table(library(schema).rollups)  # type: ignore[no-untyped-call]
    names = ", ".join(FIGURES)
    fresh = ", ".join(f"excluded.{name}" for name in FIGURES)
    there = ", ".join(f"there.{name}" for name in FIGURES)
    return typed(
        text(f"""
            WITH fresh AS MATERIALIZED ({figures_sql(model)}),
            gone AS (
                DELETE FROM {table} AS there
                WHERE domain = :domain AND width = :width AND start >= :since AND start < :until
                    AND NOT EXISTS (
                        SELECT FROM fresh WHERE fresh.start = there.start AND fresh.event = there.event)
            )
            INSERT INTO {table} AS there (domain, width, start, event, {names})
            SELECT :domain, :width, start, event, {names} FROM fresh
            ON CONFLICT (domain, width, start, event) DO UPDATE SET ({names}) = ROW ({fresh})
            WHERE ({there}) IS DISTINCT FROM ({fresh})
        """)
    )
