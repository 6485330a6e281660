"""Live sync: triggers note which legacy rows changed, and those rows are reconciled.

The queue says only *that* a row changed, never to what: whoever applies an entry reads the row as it is
then. So entries may be applied late, twice or out of order. A deleted row cannot be read any more, so its
last state is noted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tasktrail.migration.ddl import with_short_locks
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, listed, quoted
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.workspace import Workspace

BATCH: Final = 2_000
"""How many entries of the queue one transaction takes."""

EVENTS: Final = {
    "insert": ("AFTER INSERT", "REFERENCING NEW TABLE AS new_rows"),
    "update": ("AFTER UPDATE", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    "delete": ("AFTER DELETE", "REFERENCING OLD TABLE AS old_rows"),
    "truncate": ("BEFORE TRUNCATE", ""),
}


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the new tables are behind the legacy ones.

    Attributes:
        entries: changes that were noted and not applied.
        seconds: age of the oldest of them; 0 when there is none.
    """

    entries: int
    seconds: float


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

    Both happen under the lock that putting on a trigger takes, which waits for all who are writing. So a
    row that is committed later is noted by a trigger, and all others are below the bound.

    Args:
        session: within a transaction.
        workspace: the plan and the database.
        staging: of the table.
    """
    transform = staging.transform
    table, source = transform.table, transform.source
    key = key_text("s", table.key)
    newest = (
        f"SELECT {key} FROM {source} s ORDER BY {', '.join(f's.{quoted(k)} DESC' for k in table.key)} LIMIT 1"
    )
    changes = _resolved(session, workspace.own("tasktrail_changes"))
    session.run(_function(workspace, staging, changes, _resolved(session, source)))
    for event, (when, transition) in EVENTS.items():
        session.run(
            f"CREATE OR REPLACE TRIGGER {_trigger(staging, event)} {when} ON {source} {transition} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {_function_name(workspace, staging)}()"
        )
        session.run(f"ALTER TABLE {source} ENABLE ALWAYS TRIGGER {_trigger(staging, event)}")
    session.run(
        f"INSERT INTO {workspace.own('tasktrail_migration_tables')} (migration, table_name, bound) "
        f"VALUES ({literal(workspace.plan.name)}, {literal(table.name)}, ({newest})) ON CONFLICT DO NOTHING"
    )


def uninstall(session: Session, workspace: Workspace, staging: Staging) -> None:
    """Take the triggers off a legacy table, and forget what they noted.

    Raises:
        MigrationError: the lock was not had; nothing was changed.
    """
    with_short_locks(
        session,
        f"take the triggers off {staging.transform.table.source}",
        lambda db: take_off(db, workspace, staging),
    )


def take_off(session: Session, workspace: Workspace, staging: Staging) -> None:
    """Take the triggers off a legacy table, and forget what they noted.

    Args:
        session: within a transaction.
        workspace: the plan and the database.
        staging: of the table.
    """
    for event in EVENTS:
        session.run(f"DROP TRIGGER IF EXISTS {_trigger(staging, event)} ON {staging.transform.source}")
    session.run(f"DROP FUNCTION IF EXISTS {_function_name(workspace, staging)}()")
    session.run(
        f"DELETE FROM {workspace.own('tasktrail_changes')} "
        f"WHERE side = 'legacy' AND table_name = {literal(staging.transform.table.name)}"
    )


def problems(session: Session, staging: Staging) -> list[str]:
    """Return which triggers of a legacy table are missing or disabled, in words."""
    there = {
        row["name"]: row["state"]
        for row in session.rows(
            "SELECT tgname AS name, tgenabled::text AS state FROM pg_trigger "
            "WHERE tgrelid = to_regclass(%(table)s) AND NOT tgisinternal",
            table=staging.transform.source,
        )
    }
    source = staging.transform.table.source
    found = []
    for event in EVENTS:
        name = _trigger(staging, event).strip('"')
        if name not in there:
            found.append(f"{source} lacks the trigger {name}")
        elif there[name] != "A":
            found.append(f"the trigger {name} of {source} is disabled")
    return found


def lag(session: Session, workspace: Workspace, side: str = "legacy") -> Lag:
    """Return how far one side is behind the other.

    Args:
        session: a connection.
        workspace: the plan and the database.
        side: where the changes were made, ``legacy`` or ``new``.
    """
    row = session.row(
        f"SELECT count(*) AS entries, "
        "coalesce(extract(epoch FROM clock_timestamp() - min(noted_at)), 0)::float8 AS seconds "
        f"FROM {workspace.own('tasktrail_changes')} WHERE side = %(side)s",
        side=side,
    )
    return Lag(row["entries"], row["seconds"]) if row else Lag(0, 0.0)


def apply_changes(session: Session, workspace: Workspace, reconcilers: list[Reconciler]) -> int:
    """Apply what is in the queue, until it is empty or only holds what came meanwhile.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        reconcilers: of the tables whose changes are applied.

    Returns:
        How many entries were applied.
    """
    applied = 0
    for reconciler in reconcilers:
        newest = session.value(
            f"SELECT max(id) FROM {workspace.own('tasktrail_changes')} "
            "WHERE side = 'legacy' AND table_name = %(table)s",
            table=reconciler.staging.transform.table.name,
        )
        if newest is None:
            continue
        while taken := _apply_batch(session, workspace, reconciler, newest):
            applied += taken
    return applied


def follow(
    session: Session,
    workspace: Workspace,
    reconcilers: list[Reconciler],
    stop: threading.Event,
    *,
    interval: float = 0.2,
    report: Callable[[int, Lag], None] = lambda _, __: None,
) -> None:
    """Apply changes as they come, until told to stop.

    Args:
        session: a connection of its own.
        workspace: the plan and the database.
        reconcilers: of the tables whose changes are applied.
        stop: ends it.
        interval: rest when there is nothing to do, in seconds.
        report: is told how many entries were applied, and the lag before.
    """
    with session.alone(workspace.plan.name, "follower", doing="follow changes"):
        while not stop.is_set():
            before = lag(session, workspace)
            applied = apply_changes(session, workspace, reconcilers) if before.entries else 0
            report(applied, before)
            if not applied:
                stop.wait(interval)


def _apply_batch(session: Session, workspace: Workspace, reconciler: Reconciler, newest: int) -> int:
    staging = reconciler.staging
    changes = workspace.own("tasktrail_changes")
    name = literal(staging.transform.table.name)
    values = ", ".join(staging.transform.key_values("source_key"))
    taken = 0

    def fill(db: Session) -> int:
        nonlocal taken
        taken = 0
        row = db.row(f"""
            WITH batch AS (
                DELETE FROM {changes} WHERE id IN (
                    SELECT id FROM {changes} WHERE side = 'legacy' AND table_name = {name} AND id <=
                    {newest} ORDER BY id LIMIT {BATCH}
                ) RETURNING id, source_key, old_row
            ), latest AS (
                SELECT source_key, (array_agg(old_row ORDER BY id DESC) FILTER (WHERE old_row IS NOT
                NULL))[1] AS old_row FROM batch GROUP BY source_key
            ), filled AS (
                INSERT INTO {staging.keys} (_source_key, {staging.key_columns}, _old_row)
                SELECT source_key, {values}, old_row FROM latest RETURNING 1
            )
            SELECT (SELECT count(*) FROM batch) AS taken, (SELECT count(*) FROM filled) AS keys
        """)
        taken = row["taken"] if row else 0
        return row["keys"] if row else 0

    reconciler.run(session, fill)
    return taken


def _trigger(staging: Staging, event: str) -> str:
    return quoted(f"tasktrail_{event}_{staging.transform.table.name}")


def _function_name(workspace: Workspace, staging: Staging) -> str:
    return workspace.own(f"tasktrail_note_{staging.transform.table.name}")


def _resolved(session: Session, name: str) -> str:
    """Return the name of a table with its schema: a trigger function has a search path of its own."""
    found = session.value(
        "SELECT format('%%I.%%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = "
        "relnamespace "
        "WHERE pg_class.oid = to_regclass(%(name)s)",
        name=name,
    )
    return str(found)


def _function(workspace: Workspace, staging: Staging, changes: str, source: str) -> str:
    """Return the trigger function of a legacy table.

    It runs with its owner's rights, since old writers have none on our tables, and turns any error of its
    own into a
    warning: a change that was not noted is found by the comparison, a writer that failed is not made good
        again.
    """
    table = staging.transform.table
    head = f"INSERT INTO {changes} (side, table_name, source_key, operation"
    name = literal(table.name)
    new, old, all_rows = (key_text(alias, table.key) for alias in ("n", "o", "s"))
    moved = f"({listed(table.key, 'n')}) = ({listed(table.key, 'o')})"
    body = f"""
        BEGIN
            IF TG_OP = 'INSERT' THEN
                {head}) SELECT 'legacy', {name}, {new}, 'I' FROM new_rows n;
            ELSIF TG_OP = 'UPDATE' THEN
                {head}) SELECT 'legacy', {name}, {new}, 'U' FROM new_rows n;
                {head}, old_row) SELECT 'legacy', {name}, {old}, 'D', row_to_json(o)::text FROM old_rows o
                    WHERE NOT EXISTS (SELECT FROM new_rows n WHERE {moved});
            ELSIF TG_OP = 'DELETE' THEN
                {head}, old_row) SELECT 'legacy', {name}, {old}, 'D', row_to_json(o)::text FROM old_rows o;
            ELSE
                {head}, old_row) SELECT 'legacy', {name}, {all_rows}, 'D', row_to_json(s)::text
                    FROM {source} s;
            END IF;
            RETURN NULL;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'tasktrail did not note a change of %: %', TG_RELID::regclass, SQLERRM;
            RETURN NULL;
        END
    """
    return (
        f"CREATE OR REPLACE FUNCTION {_function_name(workspace, staging)}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $tasktrail${body}$tasktrail$"
    )
