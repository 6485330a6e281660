"""Archiving the legacy tables: copies, from which the tables are made again for a test."""

from __future__ import annotations

from tasktrail.errors import WrongPhase
from tasktrail.migration.copies import Archive, bring_up_to_date, recorded
from tasktrail.migration.restore import try_out
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace


def archive(session: Session, workspace: Workspace) -> list[Archive]:
    """Copy the legacy tables, make them again from the copies for a test, and move on to ARCHIVED.

    Archives that are there are brought up to date, and tested again. An archive that was interrupted is
    made again from where it stopped.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Returns:
        The archives, in the order of the plan.

    Raises:
        WrongPhase: the new tables are not the truth yet, or the legacy ones are dropped already.
        PlanRefused: the plan does not fit the tables any more.
        MigrationError: a table cannot be archived or made again; the message says which and why.
    """
    step = "archive the legacy tables"
    journal = workspace.journal
    with session.alone(workspace.plan.name, "runner", doing=step):
        journal.require(session, step, Phase.CUT_OVER, Phase.ARCHIVED)
        renew(session, workspace)
        archives = recorded(session, workspace)
        held = {one.table: str(one.measure) for one in archives}
        with session.transaction():
            if journal.require(session, step).phase is Phase.ARCHIVED:
                journal.note(session, "archives brought up to date", archives=held)
            else:
                journal.move(
                    session,
                    Phase.ARCHIVED,
                    step=step,
                    sources=frozenset({Phase.CUT_OVER}),
                    keep_window=True,
                    archives=held,
                )
    return archives


def renew(session: Session, workspace: Workspace) -> None:
    """Bring all archives up to date, making those that are missing, and test them.

    Args:
        session: outside any transaction; who calls keeps others from doing the same.
        workspace: the plan and the database.

    Raises:
        PlanRefused: the plan does not fit the tables any more.
        MigrationError: a table cannot be archived or made again; the message says which and why.
    """
    workspace.inspect(session)
    for table in workspace.plan.tables:
        bring_up_to_date(session, workspace, table)
    try_out(session, workspace)


def undo_archive(session: Session, workspace: Workspace) -> None:
    """Drop the archives, and go back to CUT_OVER.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Raises:
        WrongPhase: nothing is archived, or the archives are all there is of the legacy rows.
    """
    step = "throw the archives away"
    journal = workspace.journal
    with session.alone(workspace.plan.name, "runner", doing=step):
        if journal.require(session, step).phase is Phase.DROPPED:
            reason = f"{step}, which are all there is of the legacy rows,"
            raise WrongPhase(workspace.plan.name, reason, Phase.DROPPED, "tasktrail migrate restore")
        with session.transaction():
            journal.move(
                session,
                Phase.CUT_OVER,
                step=step,
                sources=frozenset({Phase.ARCHIVED}),
                keep_window=True,
            )
            for one in recorded(session, workspace):
                session.run(f"DROP TABLE IF EXISTS {one.name}")
            session.run(
                f"DELETE FROM {workspace.own('tasktrail_archives')} WHERE migration = %(name)s",
                name=workspace.plan.name,
            )
