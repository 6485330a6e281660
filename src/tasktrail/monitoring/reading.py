"""Transactions for reading: one snapshot, no writes, and no statement that runs for long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from psycopg.errors import QueryCanceled, SerializationFailure
from sqlalchemy import ColumnElement, Engine, Select, Table, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from tasktrail.errors import ReadTimeout
from tasktrail.monitoring.windows import Source

SMALLEST_ID: Final = -(2**63)
TIMEOUT: Final = 5.0
"""Longest time a statement of the read model may take, in seconds."""


@dataclass(frozen=True, slots=True)
class CappedCount:
    """A number of rows that was counted up to a limit.

    Attributes:
        count: how many were counted.
        is_more: whether there are, or may be, more than that.
        searched: of how many of the newest rows, where the others were not looked at; ``None`` else.
    """

    count: int
    is_more: bool = False
    searched: int | None = None

    def __str__(self) -> str:
        if self.searched is not None:
            return f"{self.count:,} among the newest {self.searched:,}"
        return f"more than {self.count:,}" if self.is_more else f"{self.count:,}"


@contextmanager
def bounded(db: Source, timeout: float = TIMEOUT) -> Iterator[None]:
    """Make a transaction that has not begun yet one for reading: one snapshot for all of its statements.

    Args:
        db: a session or connection before its first statement; also inside ``run_sync``.
        timeout: longest time of a statement, in seconds.

    Raises:
        ReadTimeout: a statement took longer, or a replica ended it.
    """
    db.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    db.execute(
        text("SELECT set_config('statement_timeout', :milliseconds, true)"),
        {"milliseconds": str(max(1, round(timeout * 1000)))},
    )
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, QueryCanceled):
            raise ReadTimeout(timeout) from error
        if isinstance(error.orig, SerializationFailure):  # a reader meets none but on a replica
            raise ReadTimeout from error
        raise


@contextmanager
def reading(engine: Engine, timeout: float = TIMEOUT) -> Iterator[Source]:
    """Lend a connection in such a transaction; see ``bounded``."""
    with engine.connect() as db:
        with bounded(db, timeout):
            yield db
        db.commit()  # after a ROLLBACK the driver forgets what it has prepared, and plans it all again


def count_at_most(db: Source, query: Select[tuple[int]], most: int) -> CappedCount:
    """Count the rows of a query, no further than to a limit."""
    inner = query.limit(most + 1).subquery()
    found: int = db.execute(select(func.count(literal_column("1"))).select_from(inner)).scalar_one()
    return CappedCount(min(found, most), is_more=found > most)


def count_in_newest(
    db: Source, table: Table, conditions: Sequence[ColumnElement[bool]], most: int, searched: int
) -> CappedCount:
    """Count the rows that meet conditions no index serves: in the newest rows, no further than to a limit.

    Args:
        db: what to read from.
        table: the tracking table.
        conditions: the conditions.
        most: how far to count.
        searched: how many of the newest rows to look at.
    """
    oldest = select(table.c.id).order_by(table.c.id.desc()).offset(searched - 1).limit(1).scalar_subquery()
    met = func.count().filter(*conditions)
    found, looked_at = db.execute(
        select(met, func.count()).where(table.c.id >= func.coalesce(oldest, SMALLEST_ID))
    ).one()
    if found > most:
        return CappedCount(most, is_more=True)
    return CappedCount(found) if looked_at < searched else CappedCount(found, is_more=True, searched=searched)
