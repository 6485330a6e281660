"""Live sync: triggers note which legacy rows changed, and those rows are reconciled.

The queue says only *that* a row changed, never to what: whoever applies an entry reads the row as it is
then. So entries may be applied late, twice or out of order. A deleted row cannot be read any more, so its
last state is noted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tasktrail.migration.ddl import with_short_locks
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, quoted
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.triggers import Noted, Side
from tasktrail.migration.workspace import Workspace

BATCH: Final = 5_000
"""How many entries of the queue one transaction takes; many changes of one unit of work cost little more."""


FollowUp: TypeAlias = Callable[[Session, Staging], None]
"""What is to be done with the rows of a reconciliation, within its transaction."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the new tables are behind the legacy ones.

    Attributes:
        entries: changes that were noted and not applied.
        seconds: age of the oldest of them; 0 when there is none.
    """

    entries: int
    seconds: float


def noted(staging: Staging) -> Noted:
    """Return the triggers of a legacy table."""
    table = staging.transform.table
    return Noted("legacy", table.name, table.name, staging.transform.source, table.key, staging.schema)


def install(session: Session, workspace: Workspace, staging: Staging) -> None:
    """Put the triggers on a legacy table, and set the bound of its backfill.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        staging: of the table.

    Raises:
        MigrationError: the lock was not had; nothing was changed.
    """
    with_short_locks(
        session,
        f"put triggers on {staging.transform.table.source}",
        lambda db: put_on(db, workspace, staging),
    )


def put_on(session: Session, workspace: Workspace, staging: Staging) -> None:
    """Put the triggers on a legacy table, and set the bound of its backfill, if it has none.

    Args:
        session: within a transaction.
        workspace: the plan and the database.
        staging: of the table.
    """
    noted(staging).put_on(session)
    session.run(
        f"INSERT INTO {workspace.own('tasktrail_migration_tables')} (migration, table_name, bound) "
        f"VALUES ({literal(workspace.plan.name)}, {literal(staging.transform.table.name)}, "
        f"({_newest_key(staging)})) ON CONFLICT DO NOTHING"
    )


def move_bound(session: Session, workspace: Workspace, staging: Staging) -> str | None:
    """Move the bound of a table's backfill to its newest row, unless its first chunk was copied already.

    Args:
        session: within a transaction, under the lock of the table's migration.
        workspace: the plan and the database.
        staging: of the table.

    Returns:
        The bound, as the ledger writes keys; None for a table that never had a row, or whose copy began.
    """
    bound: str | None = session.value(
        f"UPDATE {workspace.own('tasktrail_migration_tables')} "
        f"SET bound = coalesce(({_newest_key(staging)}), bound) "
        f"WHERE migration = {literal(workspace.plan.name)} "
        f"AND table_name = {literal(staging.transform.table.name)} AND chunk = 0 RETURNING bound"
    )
    return bound


def _newest_key(staging: Staging) -> str:
    table = staging.transform.table
    descending = ", ".join(f"s.{quoted(name)} DESC" for name in table.key)
    key = key_text("s", table.key)
    return f"SELECT {key} FROM {staging.transform.source} s ORDER BY {descending} LIMIT 1"


def uninstall(session: Session, staging: Staging) -> None:
    """Take the triggers off a legacy table, and forget what they noted.

    Raises:
        MigrationError: the lock was not had; nothing was changed.
    """
    noted(staging).uninstall(session)


def problems(session: Session, staging: Staging) -> list[str]:
    """Return which triggers of a legacy table are missing or disabled, in words."""
    return noted(staging).problems(session)


def lag(session: Session, workspace: Workspace, side: Side | None = "legacy") -> Lag:
    """Return how far one side is behind the other.

    Args:
        session: a connection.
        workspace: the plan and the database.
        side: where the changes were made; None for both.
    """
    row = session.row(
        f"SELECT count(*) AS entries, "
        "coalesce(extract(epoch FROM clock_timestamp() - min(noted_at)), 0)::float8 AS seconds "
        f"FROM {workspace.own('tasktrail_changes')} WHERE %(side)s::text IS NULL OR side = %(side)s",
        side=side,
    )
    return Lag(row["entries"], row["seconds"]) if row else Lag(0, 0.0)


def newest_entry(session: Session, workspace: Workspace, side: Side, name: str) -> int | None:
    """Return the id of the newest entry of the queue for a table; None when there is none.

    Args:
        session: a connection.
        workspace: the plan and the database.
        side: where the change was made.
        name: of the table in the queue.
    """
    newest: int | None = session.value(
        f"SELECT max(id) FROM {workspace.own('tasktrail_changes')} "
        "WHERE side = %(side)s AND table_name = %(name)s",
        side=side,
        name=name,
    )
    return newest


def apply_changes(
    session: Session,
    workspace: Workspace,
    reconcilers: Sequence[Reconciler],
    stop: threading.Event | None = None,
    *,
    batches: float = math.inf,
    follow_up: FollowUp | None = None,
) -> int:
    """Apply what is in the queue, until it is empty or only holds what came meanwhile.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        reconcilers: of the tables whose changes are applied.
        stop: ends it after the transaction it is at.
        batches: how many transactions there may be for each table.
        follow_up: what is to be done within each transaction besides.

    Returns:
        How many entries were applied.
    """
    applied = 0
    for reconciler in reconcilers:
        newest = newest_entry(session, workspace, "legacy", reconciler.staging.transform.table.name)
        if newest is None:
            continue
        left = batches
        while left > 0 and not (stop and stop.is_set()):
            taken = _apply_batch(session, workspace, reconciler, newest, follow_up)
            if not taken:
                break
            applied, left = applied + taken, left - 1
    return applied


def apply_last(session: Session, workspace: Workspace, reconciler: Reconciler) -> bool:
    """Apply a batch of the queue within a transaction that keeps all who would add to it from writing.

    Args:
        session: within a snapshot that carries changes over, the working tables made and empty.
        workspace: the plan and the database.
        reconciler: of one table.

    Returns:
        Whether there was anything to apply.
    """
    staging = reconciler.staging
    newest = newest_entry(session, workspace, "legacy", staging.transform.table.name)
    if newest is None:
        return False
    reconciler.within(session, lambda db: take(db, workspace, staging, newest)[1])
    return True


def _apply_batch(
    session: Session, workspace: Workspace, reconciler: Reconciler, newest: int, follow_up: FollowUp | None
) -> int:
    taken = 0

    def fill(db: Session) -> int:
        nonlocal taken
        taken, keys = take(db, workspace, reconciler.staging, newest)
        return keys

    def finish(db: Session, keys: int) -> None:
        if keys and follow_up is not None:
            follow_up(db, reconciler.staging)

    reconciler.run(session, fill, finish=finish)
    return taken


def take(session: Session, workspace: Workspace, staging: Staging, newest: int) -> tuple[int, int]:
    """Take a batch of entries from the queue, and name their keys to a reconciliation.

    A row that the backfill has not reached is left to it, unless it was deleted: it would be carried over
    twice, and old workers would be slower by it. Until the first chunk is copied that is every row, also one
    that is new: the bound of the backfill moves along.

    Args:
        session: within the transaction of the reconciliation.
        workspace: the plan and the database.
        staging: of the table.
        newest: id of the last entry to take.

    Returns:
        How many entries were taken, and how many keys they have.
    """
    changes = workspace.own("tasktrail_changes")
    name = literal(staging.transform.table.name)
    values = ", ".join(staging.transform.key_values("source_key"))
    is_left = _is_ahead(session, workspace, staging)
    row = session.row(f"""
        WITH batch AS (
            DELETE FROM {changes} WHERE id IN (
                SELECT id FROM {changes} WHERE side = 'legacy' AND table_name = {name} AND id <= {newest}
                ORDER BY id LIMIT {BATCH}
            ) RETURNING id, source_key, old_row
        ), latest AS (
            SELECT source_key, (array_agg(old_row ORDER BY id DESC) FILTER (WHERE old_row IS NOT NULL))[1]
                AS old_row FROM batch GROUP BY source_key
        ), filled AS (
            INSERT INTO {staging.keys} (_source_key, {staging.key_columns}, _old_row)
            SELECT source_key, {values}, old_row FROM latest WHERE NOT ({is_left}) RETURNING 1
        )
        SELECT (SELECT count(*) FROM batch) AS taken, (SELECT count(*) FROM filled) AS keys
    """)
    return (row["taken"], row["keys"]) if row else (0, 0)


def _is_ahead(session: Session, workspace: Workspace, staging: Staging) -> str:
    """Return SQL over ``latest`` that is true for rows that the backfill copies yet."""
    table = staging.transform.table
    at = session.row(
        f"SELECT cursor, bound, chunk FROM {workspace.own('tasktrail_migration_tables')} "
        f"WHERE migration = {literal(workspace.plan.name)} AND table_name = {literal(table.name)} "
        "AND finished_at IS NULL"
    )
    if at is None:
        return "FALSE"
    bound = at["bound"] if at["chunk"] else move_bound(session, workspace, staging)
    values = staging.transform.key_values("latest.source_key")
    key = [f"s.{quoted(name)} = {value}" for name, value in zip(table.key, values, strict=True)]
    # Scalar subqueries are looked up key by key; an EXISTS may read the whole table for each batch.
    return f"""
        old_row IS NULL
        AND (SELECT TRUE FROM {staging.transform.source} s WHERE {" AND ".join(key)}
            AND {staging.transform.is_within(at["cursor"], bound)} LIMIT 1) IS TRUE
        AND (SELECT TRUE FROM {staging.ledger} l
            WHERE {staging.is_known} AND l.source_key = latest.source_key LIMIT 1) IS NULL
    """
