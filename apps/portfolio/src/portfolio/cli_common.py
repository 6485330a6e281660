"""What the groups of the ``portfolio`` command share: the application, and waiting for rows with a bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from portfolio.database import require_ready
from portfolio.main import Application, build
from portfolio.watch import Family
from tasktrail import Enqueued, Settings, Status, TasktrailError, TrackingRef
from tasktrail.embedded import EmbeddedStack

DAY_FORMAT: Final = ["%Y-%m-%d"]
Wait: TypeAlias = Annotated[bool, typer.Option("--wait", help="Wait until it has ended, with a bar.")]
Timeout: TypeAlias = Annotated[
    float, typer.Option(min=0.1, help="How long to wait at most, in seconds.", show_default=True)
]
DEFAULT_TIMEOUT: Final = 600.0

SHOWN: Final = 10
"""How many rows are named one by one."""


class JobFailed(TasktrailError):
    """A job that was waited for did not complete."""


class StillRunning(TasktrailError):
    """A job that was waited for has not ended in time."""


@contextmanager
def opened(*, ready: bool = True) -> Iterator[Application]:
    """Build the application on the servers named by the environment, else on the embedded ones.

    Args:
        ready: make sure first that the servers answer and all migrations are applied.
    """
    with EmbeddedStack(Settings.load()) as settings:
        application = build(settings)
        try:
            if ready:
                require_ready(application.trail)
            yield application
        finally:
            application.trail.engines.dispose()


def as_day(moment: datetime | None) -> date | None:
    """Return what an option for a day was given; Typer knows no plain dates."""
    return None if moment is None else moment.date()


def report(enqueued: Enqueued, due: datetime | None = None) -> None:
    """Say what became of an enqueue.

    Args:
        enqueued: the row.
        due: when it is due, where that is not at once.
    """
    later = f", due at {due:%Y-%m-%d %H:%M} UTC" if due is not None else ""
    typer.echo(f"{enqueued.domain} {enqueued.id}: {enqueued.outcome}, {enqueued.status}{later}")


def wait_for(application: Application, jobs: Sequence[Enqueued | TrackingRef], timeout: float) -> None:
    """Show a bar until some rows have ended, with all the rows they wait for.

    Args:
        application: the application.
        jobs: the rows.
        timeout: how long to wait at most, in seconds.

    Raises:
        StillRunning: they have not ended in time.
        JobFailed: one of them is not COMPLETED.
    """
    family = Family(application.trail, jobs)
    deadline = time.monotonic() + timeout
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("working", total=None)
        while True:
            ended, total = family.count()
            progress.update(bar, completed=ended, total=total)
            if family.has_ended():
                break
            if time.monotonic() > deadline:
                raise StillRunning(
                    f"after {timeout:g} s {total - ended} of {total} jobs are unfinished; is a worker "
                    "running? They go on without this command"
                )
            time.sleep(0.1)
    rows = family.rows()
    failed = [row for row in rows if row.status != Status.COMPLETED]
    if len(rows) > SHOWN:
        typer.echo(f"{len(rows) - len(failed)} of {len(rows)} COMPLETED")
        rows = failed[:SHOWN]
    for row in rows:
        typer.echo(f"{row.ref}: {row.status}{f', {row.error_message}' if row.error_message else ''}")
    if failed:
        raise JobFailed(f"{failed[0].ref} is {failed[0].status}: {failed[0].error_message}")
