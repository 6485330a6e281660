"""Statements that lock tables: never waited for long, since everybody who comes later waits behind them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from psycopg import errors

from tasktrail.errors import MigrationError
from tasktrail.migration.names import qualified, quoted
from tasktrail.migration.session import Session

LOCK_TIMEOUT: Final = 500
"""Longest wait for a lock, in milliseconds: so long others may have to wait behind us."""

ATTEMPTS: Final = 60
"""How often a lock is asked for before we give up."""


def with_short_locks(
    session: Session, what: str, work: Callable[[Session], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Run a transaction that locks tables; while a lock is not had, let others through and try again.

    Args:
        session: outside any transaction.
        what: what is done, in words.
        work: the transaction.
        sleep: how to wait.

    Raises:
        MigrationError: the lock was not had; everything is as before.
    """
    for attempt in range(ATTEMPTS):
        try:
            with session.transaction():
                session.run(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
                work(session)
        except errors.LockNotAvailable:
            sleep(random.uniform(0.1, min(0.2 * 1.3**attempt, 3.0)))  # noqa: S311  # no secret
        else:
            return
    raise MigrationError(
        f"could not {what}: the lock was not had in {ATTEMPTS} attempts of {LOCK_TIMEOUT} ms. "
        f"A long transaction holds it; find it in pg_stat_activity, and run the same command again"
    )


def ensure_unique_index(session: Session, table: str, columns: Sequence[str], name: str) -> bool:
    """Make sure that a unique index is there and VALID, without keeping anybody from writing.

    An interrupted CREATE INDEX CONCURRENTLY leaves an INVALID one behind, which is dropped and built again.

    Args:
        session: outside any transaction.
        table: the table, as ``schema.table``.
        columns: what is to be unique.
        name: of the index, should it have to be built.

    Returns:
        Whether it was built.
    """
    found = session.rows(
        "SELECT indexrelid::regclass::text AS name, indisvalid AS is_valid FROM pg_index "
        "WHERE indrelid = to_regclass(%(table)s) AND indisunique AND indpred IS NULL AND "
        "(SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute "
        " WHERE attrelid = indrelid AND attnum = ANY(indkey)) = %(columns)s",
        table=qualified(table),
        columns=sorted(columns),
    )
    if any(index["is_valid"] for index in found):
        return False
    for index in found:
        session.run(f"DROP INDEX CONCURRENTLY {index['name']}")
    names = ", ".join(map(quoted, columns))
    session.run(f"CREATE UNIQUE INDEX CONCURRENTLY {quoted(name)} ON {qualified(table)} ({names})")
    return True
