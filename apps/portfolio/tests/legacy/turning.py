"""The second half of the endurance run: the direction is turned forth and back while old workers write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from portfolio.legacy.simulate import Simulation, Summary
from tasktrail.migration import parallel, sync
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.gate import Conditions
from tasktrail.migration.rollback import Rollback
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace
from tests.waiting import until

CONDITIONS: Final = Conditions(clean_passes=1, entries=100_000, seconds=60.0, second_window=timedelta())
"""Under this load the queue is never empty; how little is left is for the locks to wait for."""

PATIENCE: Final = 900.0


@dataclass(slots=True)
class Turned:
    """What came of it.

    Attributes:
        summary: what the old workers did meanwhile.
        locked: how long writers were locked out, each time, in milliseconds.
        stragglers: writes of old workers after a cutover.
        violations: what must not be, in words.
    """

    summary: Summary
    locked: list[int] = field(default_factory=list)
    stragglers: int = 0
    violations: list[str] = field(default_factory=list)


def turn(
    workspace: Workspace,
    session: Session,
    simulation: Simulation,
    *,
    times: int,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> Turned:
    """Cut over and roll back again and again; at the end the legacy tables are the truth.

    Args:
        workspace: the plan and the database, the copy verified, something carrying changes over beside.
        session: a connection of its own.
        simulation: old workers, which write from here on.
        times: how often.
        seconds: how long each direction lasts.
        say: is told what begins.
    """
    runner = Runner(workspace, session)
    session.run(f"UPDATE {workspace.own('tasktrail_raw')} SET accepted_at = now()")
    parallel.begin(session, workspace, timedelta())
    with simulation:
        for number in range(1, times + 1):
            say(f"cut over and roll back, {number} of {times}")
            until(lambda: _is_open(workspace, session), seconds=PATIENCE)
            Cutover(workspace, session).run(CONDITIONS)
            threading.Event().wait(seconds)
            Rollback(workspace, session).run(accept_losses=True)
            threading.Event().wait(seconds)
        summary = simulation.stop()
    until(lambda: not sync.lag(session, workspace, side=None).entries, seconds=PATIENCE)
    turned = Turned(summary)
    events = workspace.journal.events(session, limit=10_000)
    turned.locked = [event["details"]["milliseconds"] for event in events if event["what"].endswith("locked")]
    turned.stragglers = session.value(
        "SELECT coalesce(sum(passes), 0) "
        f"FROM {workspace.own('tasktrail_drift')} WHERE found_by = 'straggler'"
    )
    account = runner.account()
    if not account.is_balanced or account.total("pending"):
        turned.violations.extend(account.equation(name) for name in account.tables)
    turned.violations.extend(str(one) for verdict in runner.verify() for one in verdict.differences[:5])
    return turned


def _is_open(workspace: Workspace, session: Session) -> bool:
    parallel.run_pass(session, workspace)
    for table in workspace.plan.tables:
        with session.locked(workspace.plan.name, table.name):
            session.run(
                f"UPDATE {workspace.own('tasktrail_raw')} SET accepted_at = now() "
                f"WHERE accepted_at IS NULL AND table_name = '{table.name}'"
            )
    return not Cutover(workspace, session).gate(CONDITIONS)
