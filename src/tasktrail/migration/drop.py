"""Dropping the legacy tables, once everything that is in them is somewhere else, and nothing needs them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from tasktrail.errors import GateClosed
from tasktrail.migration import account, sync
from tasktrail.migration.archive import renew
from tasktrail.migration.copies import Archive, as_archived, in_words, measure, recorded
from tasktrail.migration.ddl import with_short_locks
from tasktrail.migration.definition import differences, read
from tasktrail.migration.inspection import dependents
from tasktrail.migration.locks import all_locked
from tasktrail.migration.reverse import ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.state import NEXT_COMMAND, Phase
from tasktrail.migration.workspace import Workspace

STEP = "drop the legacy tables"
AGAIN = "then run `tasktrail migrate drop --yes` again"


def gate(session: Session, workspace: Workspace, *, is_renewing: bool = False) -> list[str]:
    """Return why the legacy tables may not be dropped now, each reason with what to do; empty when they may.

    Args:
        session: a connection.
        workspace: the plan and the database.
        is_renewing: the archives are about to be brought up to date and tested, so that those which a killed
            run brought up to date and did not test are in nobody's way.

    Raises:
        WrongPhase: there is no such migration.
    """
    state = workspace.journal.require(session, STEP)
    if state.phase is not Phase.ARCHIVED:
        return [
            f"the migration is {state.phase.value}, not archived; go on with `{NEXT_COMMAND[state.phase]}`"
        ]
    reasons = []
    if not state.is_window_over:
        reasons.append(
            f"the window in which a rollback is to be possible lasts until {state.window_ends_at}; "
            "look again then with `tasktrail migrate drop`"
        )
    archives = {archive.table: archive for archive in recorded(session, workspace)}
    for table in workspace.plan.tables:
        archive = archives.get(table.name)
        if archive is None or (archive.tested_at is None and not is_renewing):
            what = "has no archive" if archive is None else "has an archive that was not restored for a test"
            reasons.append(f"{table.source} {what}; make it anew with `tasktrail migrate archive`")
    return reasons + _needed(session, workspace) + _unheard(session, workspace)


def drop(session: Session, workspace: Workspace) -> list[Archive]:
    """Drop the legacy tables, after their archives were brought up to date and tested once more.

    Nothing is dropped but in one transaction, which looks again, under locks that keep all others out,
    whether each table holds exactly what its archive does.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Returns:
        The archives; empty when the tables were dropped before.

    Raises:
        GateClosed: a condition is not met; nothing was dropped.
        MigrationError: an archive differs, or a lock was not had; nothing was dropped.
    """
    name = workspace.plan.name
    with session.alone(name, "runner", doing=STEP):
        if workspace.journal.require(session, STEP).phase is Phase.DROPPED:
            return []
        _refuse(workspace, gate(session, workspace, is_renewing=True))
        with all_locked(session, workspace):
            renew(session, workspace)
            stagings = workspace.stagings(session)
            archived = as_archived(workspace)
            archived_stagings = archived.stagings(session)

            def work(db: Session) -> None:
                sources = ", ".join(staging.transform.source for staging in stagings)
                db.run(f"LOCK TABLE {sources} IN ACCESS EXCLUSIVE MODE")
                _refuse(
                    workspace,
                    _needed(db, workspace) + _unheard(db, workspace) + _changed(db, workspace, stagings),
                )
                account.create_view(db, archived, archived_stagings)
                _take_triggers_off(db, workspace, stagings)
                db.run(f"DROP TABLE {sources}")
                db.run(
                    f"UPDATE {workspace.own('tasktrail_archives')} SET dropped_at = clock_timestamp() "
                    "WHERE migration = %(name)s",
                    name=name,
                )
                workspace.journal.move(
                    db, Phase.DROPPED, step=STEP, sources=frozenset({Phase.ARCHIVED}), tables=sources
                )

            try:
                with_short_locks(session, STEP, work)
            except (
                psycopg.errors.DependentObjectsStillExist,
                psycopg.errors.InsufficientPrivilege,
            ) as error:
                raise GateClosed(name, STEP, [f"{in_words(error)}; see to that, {AGAIN}"]) from error
        return recorded(session, workspace)


def _take_triggers_off(session: Session, workspace: Workspace, stagings: Sequence[Staging]) -> None:
    """Take off all that the migration put on the tables of both sides, within a transaction."""
    for staging in stagings:
        sync.noted(staging).take_off(session)
    for way in ways_back(workspace, stagings):
        way.noted.take_off(session)


def _needed(session: Session, workspace: Workspace) -> list[str]:
    """Return who still depends on the legacy tables."""
    sources = [table.source for table in workspace.plan.tables]
    return [
        f"{dependent} depends on {source}; change or drop it, {AGAIN}"
        for source in sources
        for dependent in dependents(session, source, sources)
    ]


def _unheard(session: Session, workspace: Workspace) -> list[str]:
    """Return which legacy tables somebody still writes to."""
    rows = session.rows(
        "SELECT table_name, count(*) AS changes, min(source_key) AS example "
        f"FROM {workspace.own('tasktrail_changes')} "
        "WHERE side = 'legacy' AND table_name = ANY(%(tables)s) GROUP BY 1 ORDER BY 1",
        tables=[table.name for table in workspace.plan.tables],
    )
    return [
        f"an old worker wrote to {workspace.plan.table(row['table_name']).source}: {row['changes']} changes "
        f"are not dealt with, e.g. of the row {row['example']}; stop it, see `tasktrail migrate status`, "
        f"{AGAIN}"
        for row in rows
    ]


def _changed(session: Session, workspace: Workspace, stagings: Sequence[Staging]) -> list[str]:
    """Return which tables are not what was archived of them; also where no trigger noted a change."""
    reasons = []
    for staging, archive in zip(stagings, recorded(session, workspace), strict=True):
        source = staging.transform.source
        found = measure(session, source)
        if found != archive.measure:
            reasons.append(
                f"{source} was written to since it was archived a moment ago: it holds {found}, "
                f"archived are {archive.measure}; find out who writes to it, {AGAIN}"
            )
        now = read(session, archive.definition["written"])
        reasons += [
            f"{source} was altered since it was archived a moment ago: {one}; {AGAIN}"
            for one in differences(archive.definition, now)
        ]
    return reasons


def _refuse(workspace: Workspace, reasons: Sequence[str]) -> None:
    if reasons:
        raise GateClosed(workspace.plan.name, STEP, reasons)
