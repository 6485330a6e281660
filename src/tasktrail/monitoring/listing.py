"""Pages of the rows that a filter means, the newest first, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy
from sqlalchemy import ColumnElement, Select, func, select, tuple_

from tasktrail.errors import InvalidField
from tasktrail.filters import Filter
from tasktrail.guards import table_of
from tasktrail.models import built_once
from tasktrail.monitoring.failures import in_group
from tasktrail.monitoring.pages import read_token, token_of
from tasktrail.monitoring.reading import CappedCount, count_at_most, count_in_newest
from tasktrail.monitoring.rows import Row, row_of
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.tracker.reading import select_all

INDEXED: Final = (sqlalchemy.Index, sqlalchemy.PrimaryKeyConstraint, sqlalchemy.UniqueConstraint)

MOST_ROWS: Final = 200
"""Largest page."""

MOST_COUNTED: Final = 10_000
"""How far the rows of a filter are counted."""

MOST_SEARCHED: Final = 20_000
"""How many rows are looked at to count those of a filter that no index serves."""

FIRST_STRETCH: Final = 20_000
"""How many ids are searched at first; each further stretch is twice as long."""

PATIENCE: Final = 0.3
"""How long to search for the rows of one page, in seconds; what is found by then is the page."""

EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a filter, the newest first.

    Attributes:
        rows: the rows; fewer than asked for, even none, when looking for more would have taken too long.
        next: token of the page of older rows; ``None`` when this is the last.
        count: how many rows the filter means.
    """

    rows: tuple[Row, ...]
    next: str | None
    count: CappedCount


def page(
    db: Source,
    domain: Domain,
    chosen: Filter,
    *,
    after: str | None = None,
    limit: int = 50,
    group: str | None = None,
    most: int = MOST_COUNTED,
) -> Page:
    """Return rows that a filter means, the newest first.

    Rows come in the order of their ids, or of ``created_at`` where the filter has a time. What no index
    serves, e.g. the text of an error, is searched for from the newest row on, for a bounded time.

    Args:
        db: what to read from.
        domain: the domain.
        chosen: the filter.
        after: the token of the page wanted, as another page of the same filter gave it.
        limit: how many rows, up to ``MOST_ROWS``.
        group: only the FAILED rows of this group of failures, by its id.
        most: how far to count.

    Raises:
        InvalidField: a value of the filter, the limit, the group or the token is not acceptable.
    """
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidField("limit", limit, f"must be from 1 to {MOST_ROWS}")
    conditions = chosen.conditions(domain.model)
    if group is not None:
        conditions += in_group(domain, group)
    context = (domain.name, repr(chosen), group or "")
    key = read_token(after, context) if after is not None else None
    is_searched = group is None and not _is_served(domain, chosen)
    if chosen.created_from is not None or chosen.created_before is not None:
        found, rest = _by_time(db, domain, conditions, key, limit)
    elif is_searched:
        found, rest = _searched(db, domain, conditions, key, limit)
    else:
        found, rest = _by_id(db, domain, conditions, key, limit)
    rows = tuple(row_of(domain, row) for row in found)
    table = table_of(domain.model)
    if after is None and rest is None and len(rows) <= most:
        count = CappedCount(len(rows))
    elif is_searched:
        count = count_in_newest(db, table, conditions, most, MOST_SEARCHED)
    else:
        count = count_at_most(db, select(table.c.id).where(*conditions), most)
    return Page(rows, None if rest is None else token_of(rest, context), count)


def _is_served(domain: Domain, chosen: Filter) -> bool:
    """Say whether an index finds the rows of a filter, or nearly all rows are of it."""
    searched = (chosen.fields, chosen.error, chosen.shown_error, chosen.worker, chosen.attempts_from)
    if chosen.ids or not any(searched):
        return True
    return not _first_columns(domain.model).isdisjoint(chosen.fields)


@built_once
def _first_columns(model: Any) -> frozenset[str]:
    """Return the columns that an index, or a key, of a table begins with."""
    table = table_of(model)
    return frozenset(
        str(next(iter(one.columns)).name)
        for one in (*table.indexes, *table.constraints)
        if isinstance(one, INDEXED) and len(one.columns)
    )


Key = tuple[int, int]
"""Where a page begins: after this id, and where times order them this ``created_at``, in microseconds."""

Found = tuple[Sequence[sqlalchemy.Row[Any]], Key | None]
"""The rows of a page, and where the next one begins."""


def _by_id(
    db: Source, domain: Domain, conditions: list[ColumnElement[bool]], key: Key | None, limit: int
) -> Found:
    table = table_of(domain.model)
    older = [] if key is None else [table.c.id < key[0]]
    ids = select(table.c.id).where(*conditions, *older).order_by(table.c.id.desc())
    found = db.execute(_rows_of(domain, ids.limit(limit + 1)).order_by(table.c.id.desc())).all()
    return found[:limit], (found[limit - 1].id, 0) if len(found) > limit else None


def _by_time(
    db: Source, domain: Domain, conditions: list[ColumnElement[bool]], key: Key | None, limit: int
) -> Found:
    table = table_of(domain.model)
    order = (table.c.created_at.desc(), table.c.id.desc())
    older: list[ColumnElement[bool]] = []
    if key is not None:
        moment = EPOCH + timedelta(microseconds=key[1])
        older = [table.c.created_at <= moment, tuple_(table.c.created_at, table.c.id) < (moment, key[0])]
    ids = select(table.c.id).where(*conditions, *older).order_by(*order).limit(limit + 1)
    found = db.execute(_rows_of(domain, ids).order_by(*order)).all()
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], (last.id, (last.created_at - EPOCH) // timedelta(microseconds=1))


def _searched(
    db: Source, domain: Domain, conditions: list[ColumnElement[bool]], key: Key | None, limit: int
) -> Found:
    """Look through stretches of ids, from the newest on, until there are enough rows or time is up."""
    table = table_of(domain.model)
    found: list[sqlalchemy.Row[Any]] = []
    began, stretch = time.monotonic(), FIRST_STRETCH
    # Each stretch begins at a row, so none is spent on ids that nobody has: in partitions days lie far apart.
    newest = db.execute(_newest(table, None if key is None else key[0])).scalar_one()
    while newest is not None:
        start = newest + 1 - stretch
        within = (table.c.id <= newest, table.c.id >= start)
        query = select_all(domain.model).where(*conditions, *within).order_by(table.c.id.desc())
        found += db.execute(query.limit(limit + 1 - len(found))).all()
        if len(found) > limit:
            return found[:limit], (found[limit - 1].id, 0)
        stretch *= 2
        newest = db.execute(_newest(table, start)).scalar_one()
        if time.monotonic() - began >= PATIENCE:
            break
    return found, None if newest is None else (newest + 1, 0)


def _newest(table: sqlalchemy.Table, end: int | None) -> Select[Any]:
    """Select the largest id, below another if that is given."""
    query = select(func.max(table.c.id))
    return query if end is None else query.where(table.c.id < end)


def _rows_of(domain: Domain, ids: Select[tuple[int]]) -> Select[Any]:
    """Select rows by their ids, which are found on an index without looking at the rows where that can be."""
    return select_all(domain.model).where(table_of(domain.model).c.id.in_(ids))
