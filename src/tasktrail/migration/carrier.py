"""Carries changes from the side that is the truth to the other one, whichever that is at the moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from tasktrail.errors import DirectionTurned
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.reverse import WriteBack, ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.state import REVERSED
from tasktrail.migration.stragglers import apply_stragglers
from tasktrail.migration.sync import Lag, apply_changes, lag
from tasktrail.migration.triggers import Side
from tasktrail.migration.workspace import Workspace

SHARE: Final = 0.005
"""Part of the time in which whoever follows works; else those who write have the server for themselves.

On a server with two cores a writer waits for some milliseconds while a batch is carried over. So that 99 of
100 writes do not, batches take less than a hundredth of the time. Large ones cost less: many changes of one
row are carried over once.
"""

LONGEST_REST: Final = 30.0
"""But it rests no longer than this, in seconds."""


class Carrier:
    """Carries changes over one connection."""

    def __init__(self, workspace: Workspace, session: Session) -> None:
        """Remember what to carry, and over which connection."""
        self._workspace = workspace
        self._session = session
        self._truth: Side | None = None
        self._reconcilers: list[Reconciler] = []
        self._ways: list[WriteBack] = []

    def carry(self, stop: threading.Event | None = None) -> int:
        """Carry over what was noted, until the queue is empty or only holds what came meanwhile.

        Args:
            stop: ends it after a batch.

        Returns:
            How many changes there were.

        Raises:
            WrongPhase: there is no migration.
        """
        state = self._workspace.journal.require(self._session, "carry changes over")
        truth: Side = "new" if state.phase in REVERSED else "legacy"
        if truth != self._truth:
            # A row that somebody writes must not keep all later ones from arriving.
            self._reconcilers = self._workspace.reconcilers(self._session, error_budget=None, truth=truth)
            self._ways = ways_back(self._workspace, [one.staging for one in self._reconcilers])
            self._truth = truth
        try:
            if truth == "legacy":
                return apply_changes(self._session, self._workspace, self._reconcilers, stop)
            return carry_back(self._session, self._workspace, self._reconcilers, self._ways, stop)
        except DirectionTurned:
            return 0


def carry_back(
    session: Session,
    workspace: Workspace,
    reconcilers: Sequence[Reconciler],
    ways: Sequence[WriteBack],
    stop: threading.Event | None = None,
) -> int:
    """Apply what old workers still wrote, then write back what changed on the new side.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        reconcilers: of all tables, for the new side as the truth.
        ways: of all routes.
        stop: ends the first part after the transaction it is at.

    Returns:
        How many changes there were.
    """
    applied = apply_stragglers(session, workspace, reconcilers, stop)
    return applied + sum(way.apply(session) for way in ways)


def follow(
    session: Session,
    workspace: Workspace,
    stop: threading.Event,
    *,
    interval: float = 0.2,
    share: float = SHARE,
    report: Callable[[int, Lag], None] = lambda _, __: None,
) -> None:
    """Carry changes over as they come, until told to stop.

    Args:
        session: a connection of its own.
        workspace: the plan and the database.
        stop: ends it.
        interval: rest when there is nothing to do, in seconds.
        share: part of the time in which it works, above 0 and up to 1.
        report: is told how many changes were carried over, and the lag before.
    """
    carrier = Carrier(workspace, session)
    with (
        session.alone(workspace.plan.name, "follower", doing="follow changes"),
        session.not_waiting_for_disk(),
    ):
        while not stop.is_set():
            began = time.monotonic()
            before = lag(session, workspace, side=None)
            applied = carrier.carry(stop) if before.entries else 0
            report(applied, before)
            rest = min((time.monotonic() - began) * (1 / share - 1), LONGEST_REST)
            stop.wait(max(rest, interval) if applied else interval)
