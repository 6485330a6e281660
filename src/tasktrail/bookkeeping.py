"""Keeps the rollups: figures of each minute, quarter, six hours and day, replaced by what the rows say.

Nothing is ever added up. Each round makes the newest minutes again, and one slice of the past, going back
until the oldest row and then from the newest on again; wider parts are made from narrower ones. So what came
late, was retried, deleted or moved by a clock is in the rollups after one pass, and a crash loses nothing.
Minutes whose rows are pruned are left.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection, DateTime, Engine, Row, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import dialect, insert

from tasktrail.guards import Model, table_of
from tasktrail.library import library
from tasktrail.models import built_once
from tasktrail.registry import Domain
from tasktrail.rollups import (
    FIGURES,
    MINUTE,
    WIDTHS,
    ceiling,
    figures_sql,
    floor,
    typed,
    wider_figures_sql,
)

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

HOUR: Final = 3600
LONGEST_SLICE: Final = 30 * 86_400

MINUTES_KEPT: Final = timedelta(days=32)
"""How long minutes and quarters are kept whose rows are gone; no window reaches further back."""

ALL_KEPT: Final = timedelta(days=400)
"""How long six hours and days are kept whose rows are gone."""


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
    note_pruned_until(db, domain, func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds))


def note_pruned_until(db: Connection, domain: Domain, moment: Any) -> None:
    """Note that rows were deleted, none of which ended at this moment or later.

    Args:
        db: the transaction that deletes them.
        domain: the domain.
        moment: a time, or an expression of one.
    """
    state = library(domain.schema).rollup_state
    db.execute(
        update(state)
        .where(state.c.domain == domain.name)
        .values(kept_from=func.greatest(state.c.kept_from, moment))
    )


def prune(db: Connection, domain: Domain) -> int:
    """Delete rollups of a time whose rows are gone and that no window shows; return how many.

    Args:
        db: a connection.
        domain: the domain.
    """
    tables = library(domain.schema)
    state, table = tables.rollup_state, tables.rollups
    kept = select(state.c.kept_from).where(state.c.domain == domain.name).scalar_subquery()
    deleted = 0
    for age, widths in ((MINUTES_KEPT, WIDTHS[:2]), (ALL_KEPT, WIDTHS[2:])):
        edge = func.least(
            kept, func.now(type_=DateTime(timezone=True)) - age
        )  # none where nothing was pruned
        statement = delete(table).where(table.c.domain == domain.name, table.c.width.in_(widths))
        deleted += db.execute(statement.where(kept.is_not(None), table.c.start < edge)).rowcount
    return deleted


def _begin(db: Connection, domain: Domain) -> None:
    state = library(domain.schema).rollup_state
    now: datetime = db.execute(select(func.now())).scalar_one()
    start = floor(now - LAG, HOUR)
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
    first = max(state.built_from, _edge(state))
    since = max(min(state.rolled_to, until) - OVERLAP, first)
    if since < until:
        _replace(db, domain, since, until, first=first, last=until)
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
    bottom: datetime = min(state.built_from, floor(oldest, HOUR)) if oldest else state.built_from
    bottom = max(bottom, _edge(state))
    high = state.built_from if bottom < state.built_from else state.audited_to
    if high is None or high <= bottom:
        high = state.rolled_to
    low = max(floor(high - timedelta(seconds=state.slice_seconds), HOUR), bottom)
    if low >= high:
        return False
    reached: datetime = min(state.built_from, low)
    began = time.monotonic()
    _replace(db, domain, low, high, first=max(reached, _edge(state)), last=state.rolled_to)
    took, size = time.monotonic() - began, state.slice_seconds
    if took < BRISK:
        size = min(2 * size, LONGEST_SLICE)
    elif took > SLOW:
        size = max(size // 2 // HOUR * HOUR, HOUR)
    _note(db, domain, audited_to=low, built_from=reached, slice_seconds=size)
    return reached > bottom


def _edge(state: Row[Any]) -> datetime:
    """Return from when on all rows are still there."""
    if state.kept_from is None:
        return datetime.fromtimestamp(0, state.now.tzinfo)
    return ceiling(state.kept_from, HOUR)


def _note(db: Connection, domain: Domain, **values: Any) -> None:
    state = library(domain.schema).rollup_state
    db.execute(update(state).where(state.c.domain == domain.name).values(**values))


def _replace(
    db: Connection, domain: Domain, since: datetime, until: datetime, *, first: datetime, last: datetime
) -> None:
    """Make the minutes of a span again, and what they are part of, as far as that has all its minutes.

    Args:
        db: the transaction.
        domain: the domain.
        since: first moment of the span.
        until: moment after its last.
        first: from when on there are minutes whose rows are all there.
        last: until when there are minutes.
    """
    parameters = {"domain": domain.name, "width": MINUTE, "since": since, "until": until}
    db.execute(replace_if_different(domain.model, domain.schema), parameters)
    for narrow, width in pairwise(WIDTHS):
        start = max(floor(since, width), ceiling(first, width))
        end = min(ceiling(until, width), floor(last, width))
        if start < end:
            parameters = {"domain": domain.name, "width": width, "since": start, "until": end}
            db.execute(widen_if_different(domain.schema), {**parameters, "narrow": narrow})


@built_once
def replace_if_different(model: Model, schema: str | None) -> Any:
    """Make the figures of a span from the rows, and write those that differ from what is there."""
    return typed(text(_if_different(_rollups(schema), figures_sql(model))))


@built_once
def widen_if_different(schema: str | None) -> Any:
    """Make the figures of wider parts from those of narrower ones, and write those that differ."""
    table = _rollups(schema)
    return typed(text(_if_different(table, wider_figures_sql(table))))


def _rollups(schema: str | None) -> str:
    name: str = dialect().identifier_preparer.format_table(library(schema).rollups)  # type: ignore[no-untyped-call]
    return name


def _if_different(table: str, query: str) -> str:
    names = ", ".join(FIGURES)
    fresh = ", ".join(f"excluded.{name}" for name in FIGURES)
    there = ", ".join(f"there.{name}" for name in FIGURES)
    return f"""
        WITH fresh AS MATERIALIZED ({query}),
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
    """
