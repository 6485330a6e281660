"""Making the legacy tables again from their archives: for a test, for people to look at, and in earnest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from tasktrail.errors import ConfigurationError, MigrationError
from tasktrail.migration import account, rebuild, sync
from tasktrail.migration.copies import Archive, as_archived, explained, measure, recorded, required
from tasktrail.migration.ddl import with_short_locks
from tasktrail.migration.definition import Definition, differences, moved, read
from tasktrail.migration.locks import all_locked
from tasktrail.migration.names import quoted
from tasktrail.migration.reverse import ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace

BELONGING: Final = frozenset({"owner", "grants"})
"""Who owns a table and may do what with it; that of a restored copy in another schema is its maker's."""


def try_out(session: Session, workspace: Workspace) -> None:
    """Make the tables again in a schema of its own, compare them with what was archived, and undo it all.

    Nobody else ever sees the schema, so the foreign keys keep nobody from deleting rows.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Raises:
        GateClosed: a table has no archive.
        MigrationError: a restored table differs; the message says which and how.
    """
    archives = required(session, workspace, "restore the tables for a test")
    schema = f"tasktrail_restore_{workspace.plan.name}"
    with session.snapshot(keep=False), explained(session, "the legacy tables cannot be made again"):
        session.run(f"CREATE SCHEMA {quoted(schema)}")
        definitions = moved(session, [archive.definition for archive in archives], schema)
        _make(session, archives, definitions)
        _compare(session, archives, definitions, ignoring=BELONGING | {"foreign_keys"})
        # Last, since the tables that they refer to are locked from here on.
        with_short_locks(session, "put foreign keys on a restored table", partial(_try_keys, definitions))
    with session.transaction():
        for archive in archives:
            session.run(
                f"UPDATE {workspace.own('tasktrail_archives')} SET tested_at = clock_timestamp() "
                "WHERE migration = %(migration)s AND table_name = %(table)s AND archived_at = %(moment)s",
                migration=workspace.plan.name,
                table=archive.table,
                moment=archive.archived_at,
            )


def restore(session: Session, workspace: Workspace, into: str) -> list[Definition]:
    """Make the tables again in another schema, for people to look at; without foreign keys.

    A foreign key would keep others from deleting the rows that it refers to.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        into: the schema; it is made when it is not there.

    Returns:
        The definitions of the tables that were made.

    Raises:
        WrongPhase: nothing is archived yet.
        ConfigurationError: the schema is that of a legacy table, or holds a table of the same name.
        MigrationError: a restored table differs, and nothing was made.
    """
    step = f"restore the legacy tables into {into}"
    workspace.journal.require(session, step, Phase.ARCHIVED, Phase.DROPPED)
    archives = required(session, workspace, step)
    for archive in archives:
        if into == archive.definition["schema"]:
            raise ConfigurationError(
                f"--into {into}: the legacy table {archive.table} itself belongs there; name another schema, "
                "or, once it is dropped, run `tasktrail migrate restore` without --into"
            )
    with session.snapshot(), explained(session, "the legacy tables cannot be made again"):
        session.run(f"CREATE SCHEMA IF NOT EXISTS {quoted(into)}")
        definitions = moved(session, [archive.definition for archive in archives], into)
        _refuse_taken(session, definitions)
        _make(session, archives, definitions)
        _compare(session, archives, definitions, ignoring=BELONGING | {"foreign_keys"})
        workspace.journal.note(session, "restored for a look", into=into)
    return definitions


def restore_dropped(session: Session, workspace: Workspace) -> list[str]:
    """Make the legacy tables again in their place, with their triggers, and have them follow again.

    Killed after that, it is finished by running it again: foreign keys are looked at last.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Returns:
        What could not be made as it was, in words; each with what to do.

    Raises:
        WrongPhase: the tables were not dropped.
        GateClosed: an archive is missing.
        MigrationError: there is a table of such a name, a restored table differs, or a lock was not had;
            everything is as before.
    """
    step = "restore the legacy tables"
    journal = workspace.journal
    with session.alone(workspace.plan.name, "runner", doing=step), all_locked(session, workspace):
        if journal.require(session, step).phase is Phase.CUT_OVER and _is_unfinished(session, workspace):
            return _validate(session, [archive.definition for archive in recorded(session, workspace)])
        journal.require(session, step, Phase.DROPPED)
        archives = required(session, workspace, step)
        definitions = [archive.definition for archive in archives]
        dropped_at = _dropped_at(session, workspace)
        stagings = [
            Staging(replace(staging.transform, table=table), staging.number, staging.schema)
            for table, staging in zip(
                workspace.plan.tables, as_archived(workspace).stagings(session), strict=True
            )
        ]
        notes: list[str] = []

        def work(db: Session) -> None:
            notes.clear()
            _refuse_taken(db, definitions)
            _make(db, archives, definitions)
            given = [note for definition in definitions for note in rebuild.give_away(db, definition)]
            _compare(db, archives, definitions, ignoring={"foreign_keys", *(BELONGING if given else ())})
            for staging in stagings:
                sync.put_on(db, workspace, staging)
            account.create_view(db, workspace, stagings)
            keys = [note for definition in definitions for note in rebuild.add_foreign_keys(db, definition)]
            notes.extend([*given, *keys])
            db.run(
                f"UPDATE {workspace.own('tasktrail_archives')} SET dropped_at = NULL "
                "WHERE migration = %(migration)s",
                migration=workspace.plan.name,
            )
            for way in ways_back(workspace, stagings):
                way.noted.put_on(db)
                way.note_since(db, dropped_at)
            journal.move(db, Phase.CUT_OVER, step=step, sources=frozenset({Phase.DROPPED}), notes=notes)

        with explained(session, "the legacy tables cannot be made again"):
            with_short_locks(session, step, work)
        notes.extend(_validate(session, definitions))
    return notes


def _is_unfinished(session: Session, workspace: Workspace) -> bool:
    """Return whether a restored table has foreign keys that were to be looked at, and were not yet."""
    return any(rebuild.unchecked(session, archive.definition) for archive in recorded(session, workspace))


def _validate(session: Session, definitions: Sequence[Definition]) -> list[str]:
    """Look at the foreign keys of the tables that were made; it can be repeated."""
    with explained(session, "the foreign keys cannot be looked at"):
        return [note for definition in definitions for note in rebuild.validate(session, definition)]


def _dropped_at(session: Session, workspace: Workspace) -> datetime:
    moment: datetime = session.value(
        f"SELECT min(dropped_at) FROM {workspace.own('tasktrail_archives')} WHERE migration = %(name)s",
        name=workspace.plan.name,
    )
    return moment


def _make(session: Session, archives: Sequence[Archive], definitions: Sequence[Definition]) -> None:
    for archive, definition in zip(archives, definitions, strict=True):
        rebuild.create(session, definition, partial(_fill, archive))
    for definition in definitions:
        rebuild.add_triggers(session, definition)


def _fill(archive: Archive, table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {archive.name} s"


def _compare(
    session: Session,
    archives: Sequence[Archive],
    definitions: Sequence[Definition],
    *,
    ignoring: Collection[str],
) -> None:
    problems = []
    for archive, definition in zip(archives, definitions, strict=True):
        table = definition["written"]
        found = {name: measure(session, name) for name in (archive.name, table)}
        problems += [
            f"{name} holds {one}, but {archive.measure} were archived"
            for name, one in found.items()
            if one != archive.measure
        ]
        told = differences(definition, read(session, table), ignoring=ignoring)
        problems += [f"{table}, {one}" for one in told]
    _refuse(problems)


def _try_keys(definitions: Sequence[Definition], session: Session) -> None:
    problems = [note for definition in definitions for note in rebuild.add_foreign_keys(session, definition)]
    for definition in definitions:
        found = read(session, definition["written"])
        parts = ({"foreign_keys": one["foreign_keys"]} for one in (definition, found))
        problems += [
            f"{definition['written']}, {one}" for one in differences(*parts, ignoring={"is_checked"})
        ]
    _refuse(problems)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise MigrationError(
            f"a restored table is not as the legacy table was: {'; '.join(problems)}. Nothing was changed; "
            "while the legacy tables are there, make the archives anew with `tasktrail migrate archive`"
        )


def _refuse_taken(session: Session, definitions: Sequence[Definition]) -> None:
    taken = [
        definition["written"]
        for definition in definitions
        if session.value("SELECT to_regclass(%(name)s)", name=definition["written"]) is not None
    ]
    if taken:
        raise MigrationError(
            f"there is a table {', '.join(taken)} already, and it is not overwritten; rename or drop it, "
            "and run the same command again"
        )
