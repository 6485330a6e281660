"""Comparing both sides of a migration on a schedule, beside what a command does."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Final

import typer

from tasktrail.chores import Chore
from tasktrail.cli.durations import duration
from tasktrail.migration.parallel import run_pass_if_due
from tasktrail.migration.workspace import Workspace

CompareEvery = Annotated[
    str | None,
    typer.Option(
        "--compare-every", metavar="DURATION", help="Compare both sides in the parallel run, e.g. every 1h."
    ),
]

LONGEST_REST: Final = 60.0
"""How long, at most, nobody asks whether a pass is due, in seconds: others may have begun one, or ended."""


def comparing(workspace: Workspace, every: str | None) -> list[Chore]:
    """Return what compares both sides on a schedule; nothing without one.

    Args:
        workspace: the plan and the database.
        every: from the command line, e.g. ``1h``.

    Raises:
        InvalidField: it is no length of time.
    """
    if every is None:
        return []
    period = duration("--compare-every", every, shortest=timedelta(seconds=1))
    rest = min(period.total_seconds(), LONGEST_REST)
    return [Chore("comparison", rest, partial(run_pass_if_due, workspace, period))]
