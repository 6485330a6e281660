"""Whether a step can be taken, and whether what the present phase promises is so; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator

from tasktrail.errors import GateClosed, PlanRefused, WrongPhase
from tasktrail.migration import sync
from tasktrail.migration.release import count_unreleased
from tasktrail.migration.reverse import ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, REVERSED, Phase
from tasktrail.migration.workspace import Workspace


def obstacles(session: Session, workspace: Workspace, step: str, *phases: Phase) -> list[str]:
    """Return what is in the way of a step, each with what to do; empty when it can be taken.

    Args:
        session: a connection.
        workspace: the plan and the database.
        step: in words.
        *phases: in which it can be taken, or was taken already.
    """
    found: list[str] = []
    try:
        workspace.journal.require_dry_run(workspace.journal.require(session, step, *phases))
    except WrongPhase as error:
        return [str(error)]
    except GateClosed as error:
        found.extend(error.reasons)
    try:
        workspace.inspect(session)
    except PlanRefused as error:
        found.extend(error.problems)
    return found


def troubles(session: Session, workspace: Workspace) -> list[str]:
    """Return what is not as the present phase promises, each with what to do.

    Args:
        session: a connection.
        workspace: the plan and the database.
    """
    state = workspace.journal.read(session)
    if state is None or state.phase not in MIRRORING | REVERSED:
        return []
    try:
        return list(_troubles(session, workspace, state.phase))
    except PlanRefused as error:
        return list(error.problems)


def _troubles(session: Session, workspace: Workspace, phase: Phase) -> Iterator[str]:
    stagings = workspace.stagings(session)
    noted = [sync.noted(staging) for staging in stagings]
    back = [way.noted for way in ways_back(workspace, stagings)]
    if phase in REVERSED:
        noted += back
        if waiting := count_unreleased(session, workspace, stagings):
            yield (
                f"{waiting} jobs wait that nobody will run: a rollback or the end of a cutover was "
                "interrupted; run it again, or `tasktrail migrate cutover --yes` to go on without it"
            )
    elif phase is Phase.PARALLEL:
        for one in back:
            if one.is_on(session):
                yield (
                    f"the triggers on {one.table} belong to a cutover or rollback that is under way or was "
                    "interrupted; run it again, or take them off with `tasktrail migrate rollback --yes`"
                )
    for one in noted:
        for problem in one.problems(session):
            yield f"{problem}; put it on again with `tasktrail migrate sync`"
    view = workspace.own(f"tasktrail_account_{workspace.plan.name}")
    if session.value("SELECT to_regclass(%(view)s)", view=view) is None:
        yield f"the view {view} is missing; make it again with `tasktrail migrate sync`"
