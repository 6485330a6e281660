"""Carries changes over for weeks: through restarts of the server, full disks and cut connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from tasktrail.errors import MigrationBusy
from tasktrail.migration.carrier import SHARE, follow
from tasktrail.migration.interruption import PASSING, cause_of
from tasktrail.migration.sync import Lag
from tasktrail.migration.workspace import Workspace

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""The pause before the next attempt doubles from one to the other, in seconds."""


def keep_following(
    workspace: Workspace,
    stop: threading.Event,
    *,
    interval: float = 0.2,
    share: float = SHARE,
    report: Callable[[int, Lag], None] = lambda _, __: None,
) -> None:
    """Apply changes as they come, over a new connection whenever the last one was lost, until told to stop.

    Nothing that was noted is missed meanwhile: the queue is a table. What does not go by itself, e.g. a
    legacy table that was altered, ends it.

    Args:
        workspace: the plan and the database.
        stop: ends it.
        interval: rest when there is nothing to do, in seconds.
        share: part of the time in which it works, above 0 and up to 1.
        report: is told how many entries were applied, and the lag before.

    Raises:
        MigrationBusy: somebody else follows already.
        PlanRefused: the plan does not fit the tables any more.
        psycopg.Error: the database refused a statement, and would do so again.
    """
    pause, was_interrupted = FIRST_PAUSE, False

    def report_progress(applied: int, lag: Lag) -> None:
        nonlocal pause, was_interrupted
        if was_interrupted:
            logger.info("following again; %d changes are to be applied", lag.entries)
        pause, was_interrupted = FIRST_PAUSE, False
        report(applied, lag)

    while not stop.is_set():
        try:
            with workspace.session("migrate sync --follow") as session:
                follow(session, workspace, stop, interval=interval, share=share, report=report_progress)
        except (*PASSING, MigrationBusy) as error:
            if isinstance(error, MigrationBusy) and not was_interrupted:
                raise  # after an interruption it is our own lost connection, until the server notices
            was_interrupted = True
            logger.warning("following was interrupted: %s; trying again in %.1f s", cause_of(error), pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
