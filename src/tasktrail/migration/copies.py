"""The archives: copies of the legacy tables in the library's schema, and what is recorded of them.

The checksum of a table is the sum, over all of its rows, of the first 64 bits of the MD5 of the row's text,
as a signed number. Together with the number of rows it says whether two tables hold the same rows, in
whatever order. Anyone can work it out, in a session whose settings are those of ``session.SETTINGS`` and
whose time zone is UTC::

    SELECT count(*), coalesce(sum(('x' || left(md5((s.*)::text), 16))::bit(64)::bigint), 0) FROM public.t s
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import psycopg

from tasktrail.errors import GateClosed, MigrationError
from tasktrail.migration.definition import Definition, located, read
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import listed, matching, qualified, quoted
from tasktrail.migration.plan import TableMigration
from tasktrail.migration.session import Row, Session
from tasktrail.migration.workspace import Workspace

CHECKSUM: Final = "coalesce(sum(('x' || left(md5((s.*)::text), 16))::bit(64)::bigint), 0)::text"
"""SQL for the checksum of the rows ``s``."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a table holds, in short.

    Attributes:
        rows: how many there are.
        checksum: of all their columns, in whatever order they come.
    """

    rows: int
    checksum: str

    def __str__(self) -> str:
        return f"{self.rows} rows with the checksum {self.checksum}"


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive of one legacy table.

    Attributes:
        table: its name in the plan.
        name: of the archive, with its schema, quoted.
        measure: what was archived.
        definition: from which the legacy table can be made again.
        archived_at: when it was copied, or brought up to date.
        tested_at: when the table was made again from it for a test; None when that was before the copy was
            brought up to date.
        dropped_at: when the legacy table was dropped.
    """

    table: str
    name: str
    measure: Measure
    definition: Definition
    archived_at: datetime
    tested_at: datetime | None
    dropped_at: datetime | None


def measure(session: Session, table: str) -> Measure:
    """Count the rows of a table and work out their checksum.

    Args:
        session: a connection.
        table: quoted.
    """
    row = session.rows(f"SELECT count(*) AS rows, {CHECKSUM} AS checksum FROM {table} s")[0]
    return Measure(row["rows"], row["checksum"])


def recorded(session: Session, workspace: Workspace) -> list[Archive]:
    """Return the archives that there are, in the order of the plan."""
    found = {
        row.pop("table_name"): row
        for row in session.rows(
            "SELECT table_name, archive, rows, checksum, definition, archived_at, tested_at, dropped_at "
            f"FROM {workspace.own('tasktrail_archives')} WHERE migration = %(name)s",
            name=workspace.plan.name,
        )
    }
    return [
        Archive(
            table.name,
            row["archive"],
            Measure(row["rows"], row["checksum"]),
            row["definition"],
            row["archived_at"],
            row["tested_at"],
            row["dropped_at"],
        )
        for table in workspace.plan.tables
        if (row := found.get(table.name)) is not None
    ]


def required(session: Session, workspace: Workspace, step: str) -> list[Archive]:
    """Return the archives of all tables of the plan.

    Raises:
        GateClosed: one is missing.
    """
    archives = recorded(session, workspace)
    missing = {table.name for table in workspace.plan.tables} - {archive.table for archive in archives}
    if missing:
        names = ", ".join(sorted(missing))
        raise GateClosed(
            workspace.plan.name, step, [f"{names} has no archive; make it with `tasktrail migrate archive`"]
        )
    return archives


def as_archived(workspace: Workspace) -> Workspace:
    """Return the same with the archives in place of the legacy tables."""
    prefix = f"{workspace.schema}." if workspace.schema else ""
    tables = tuple(replace(table, source=f"{prefix}{archive_name(table)}") for table in workspace.plan.tables)
    return replace(workspace, plan=replace(workspace.plan, tables=tables))


def archive_name(table: TableMigration) -> str:
    """Return the bare name of a table's archive."""
    return f"archived_{table.name}"


def bring_up_to_date(session: Session, workspace: Workspace, table: TableMigration) -> bool:
    """Copy a legacy table into its archive; of one that is there already, only the rows that differ.

    All of it is one transaction that looks at one moment.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        table: the table.

    Returns:
        Whether the archive was made; else it was there.

    Raises:
        MigrationError: the table could not be made again from an archive, or something that is no archive
            has its name; nothing was changed.
    """
    source, archive = qualified(table.source), workspace.own(archive_name(table))
    with session.snapshot(), explained(session, f"{table.source} cannot be archived"):
        session.run(f"LOCK TABLE {source} IN ACCESS SHARE MODE")
        definition = read(session, located(session, source) or source)
        known = next((one for one in recorded(session, workspace) if one.table == table.name), None)
        is_new = _prepare(session, archive, table, definition, known)
        columns = [one["name"] for one in definition["columns"]]
        missing = "TRUE"
        if not is_new:
            same = f"{matching('s', 'a', table.key)} AND (s.*)::text = (a.*)::text"
            session.run(f"DELETE FROM {archive} a WHERE NOT EXISTS (SELECT FROM {source} s WHERE {same})")
            missing = f"NOT EXISTS (SELECT FROM {archive} a WHERE {matching('s', 'a', table.key)})"
        session.run(
            f"INSERT INTO {archive} ({listed(columns)}) SELECT {listed(columns, 's')} FROM {source} s "
            f"WHERE {missing}"
        )
        copied, there = measure(session, archive), measure(session, source)
        if copied != there:
            raise MigrationError(
                f"{archive} holds {copied}, {source} holds {there}: has it a rule or a trigger? "
                "Nothing was changed"
            )
        _record(session, workspace, table, located(session, archive) or archive, copied, definition)
    return is_new


def _prepare(
    session: Session,
    archive: str,
    table: TableMigration,
    definition: Definition,
    known: Archive | None,
) -> bool:
    """Make sure that the archive is there and has the columns of the table; return whether it is new."""
    is_there = located(session, archive) is not None
    if is_there and known is None:
        raise MigrationError(
            f"there is a table {archive} that is no archive of this migration; rename or drop it, and run "
            "the same command again"
        )
    if is_there and known is not None and _shape(known.definition) == _shape(definition):
        return False
    session.run(f"DROP TABLE IF EXISTS {archive}")
    parts = []
    for column in definition["columns"]:
        collation = f" COLLATE {column['collation']}" if column["collation"] else ""
        required = " NOT NULL" if column["is_required"] else ""
        parts.append(f"{quoted(column['name'])} {column['type']}{collation}{required}")
    parts.append(f"PRIMARY KEY ({listed(table.key)})")
    parts += [f"CONSTRAINT {quoted(one['name'])} {one['definition']}" for one in _checks(definition)]
    session.run(f"CREATE TABLE {archive} ({', '.join(parts)})")
    return True


def _shape(definition: Definition) -> list[object]:
    columns = [
        [one[part] for part in ("name", "type", "collation", "is_required")] for one in definition["columns"]
    ]
    return [columns, _checks(definition)]


def _checks(definition: Definition) -> list[Row]:
    """Return the checks that all rows meet; one that was never validated may be broken by older rows."""
    return [one for one in definition["constraints"] if one["kind"] == "c" and one["is_valid"]]


def _record(
    session: Session,
    workspace: Workspace,
    table: TableMigration,
    archive: str,
    copied: Measure,
    definition: Definition,
) -> None:
    session.run(
        f"INSERT INTO {workspace.own('tasktrail_archives')} AS a "
        "(migration, table_name, archive, rows, checksum, definition, archived_at) VALUES (%(migration)s, "
        "%(table)s, %(archive)s, %(rows)s, %(checksum)s, %(definition)s::jsonb, clock_timestamp()) "
        "ON CONFLICT (migration, table_name) DO UPDATE SET archive = excluded.archive, "
        "rows = excluded.rows, checksum = excluded.checksum, definition = excluded.definition, "
        "archived_at = excluded.archived_at, tested_at = NULL WHERE a.dropped_at IS NULL",
        migration=workspace.plan.name,
        table=table.name,
        archive=archive,
        rows=copied.rows,
        checksum=copied.checksum,
        definition=json.dumps(definition),
    )
    moment = session.value("SELECT date_trunc('second', clock_timestamp())::text")
    session.run(
        f"COMMENT ON TABLE {archive} IS "
        + literal(
            f"Archive of {table.source}, made or brought up to date at {moment} by the migration "
            f"{workspace.plan.name}: {copied}. The legacy table can be made again from it with "
            "`tasktrail migrate restore`."
        )
    )


@contextmanager
def explained(session: Session, what: str) -> Iterator[None]:
    """Turn what the server refuses into one line for people.

    Raises:
        MigrationError: in place of the driver's error.
    """
    try:
        yield
    except psycopg.Error as error:
        if session.connection.closed:
            raise
        raise MigrationError(f"{what}: {in_words(error)}. Everything is as before") from error


def in_words(error: psycopg.Error) -> str:
    """Return what the server said, in one line."""
    lines = (error.diag.message_primary or str(error), error.diag.message_detail, error.diag.message_hint)
    return "; ".join(line.strip().rstrip(".") for line in lines if line)
