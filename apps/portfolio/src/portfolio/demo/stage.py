"""What all parts of the demonstration need: the application, a running worker, a place to show things."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine

from portfolio.main import Application
from tasktrail import Status, TasktrailError

DEADLINE: Final = 50.0
"""Seconds within which the workers must have finished one part."""

COLOURS: Final = {Status.COMPLETED.value: "green", Status.FAILED.value: "red"}


class DemoFailed(TasktrailError):
    """The demonstration did not end as it should."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demonstration is played.

    Attributes:
        application: the application.
        console: where things are shown.
        worker: the running worker.
        log: its log.
    """

    application: Application
    console: Console
    worker: subprocess.Popen[bytes]
    log: Path

    @property
    def engine(self) -> Engine:
        """The database."""
        return self.application.trail.engines.sync

    def watch(self, doing: str, count: Callable[[], tuple[int, int]], is_over: Callable[[], bool]) -> None:
        """Show a bar until some jobs have ended.

        Args:
            doing: what they do, for the bar.
            count: returns how many have ended, and how many there are by now.
            is_over: says whether all have ended.

        Raises:
            DemoFailed: the worker ended, or the jobs did not end in time.
        """
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        deadline = time.monotonic() + DEADLINE
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(doing)
            while True:
                over = is_over()
                ended, total = count()
                waiting = f", {total - ended} waiting" if total > ended else ""
                progress.update(bar, completed=ended, total=total, description=f"{doing}{waiting}")
                if over:
                    return
                if self.worker.poll() is not None:
                    code = self.worker.returncode
                    raise DemoFailed(f"the worker ended with exit code {code}; its log: {self.log}")
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"after {DEADLINE:g} s {total - ended} updates are unfinished; log: {self.log}"
                    )
                time.sleep(0.1)

    def verdict(self, *, as_it_should_be: bool) -> bool:
        """Show whether the database says what it should, and return it."""
        said = "[green]the database says so[/]" if as_it_should_be else "[red]that is not as it should be[/]"
        self.console.print(said)
        return as_it_should_be


def table(title: str, *columns: tuple[str, JustifyMethod]) -> Table:
    """Return an empty table.

    Args:
        title: what stands above it.
        columns: heading and alignment of each column.
    """
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading, justify in columns:
        made.add_column(heading, justify=justify, no_wrap=True)
    return made


def coloured(status: str) -> str:
    """Return a state in its colour."""
    return f"[{COLOURS.get(status, 'yellow')}]{status}[/]"
