"""``make demo``: real ECB rates through real workers, and what the database says about it afterwards."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from portfolio.config import PortfolioSettings
from portfolio.database import upgrade
from portfolio.main import Application, build
from portfolio.models import ExchangeRate, ExchangeRateUpdateTracking
from portfolio.process import running, worker_command, worker_environment
from portfolio.rates.flaky import FlakySource
from portfolio.rates.sources import BundledHistory
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Settings, Status, TasktrailError

BUSINESS_DAYS: Final = 60
FLAKY_FAILURES: Final = 2
RETRY_BASE: Final = 0.5
"""Seconds before the first retry, so that nobody waits a minute for a demonstration."""
DEADLINE: Final = 50.0
"""Seconds within which the workers must have finished."""


class DemoFailed(TasktrailError):
    """The demonstration did not end as it should."""


@dataclass(frozen=True, slots=True)
class Days:
    """The days that the demonstration updates.

    Attributes:
        business: the last published days of the bundled file, oldest first.
        flaky: the published day before them; its source fails twice before it works.
        saturday: a day on which the ECB publishes nothing.
    """

    business: tuple[date, ...]
    flaky: date
    saturday: date

    @classmethod
    def of(cls, source: BundledHistory) -> Days:
        """Choose them from the published days of the bundled file."""
        flaky, *business = source.published_days()[-BUSINESS_DAYS - 1 :]
        newest = business[-1]
        return cls(tuple(business), flaky, newest - timedelta(days=(newest.weekday() - 5) % 7))

    def all(self) -> list[date]:
        """Return every day once, oldest first."""
        return sorted({*self.business, self.flaky, self.saturday})


def application(settings: Settings) -> Application:
    """Build the application with a source that fails on one day as planned, and short delays."""
    source = BundledHistory()
    flaky = FlakySource(source, {Days.of(source).flaky: FLAKY_FAILURES}, settings.home / "demo" / "calls")
    return build(settings, PortfolioSettings(retry_base=RETRY_BASE), source=flaky)


def run(settings: Settings, console: Console) -> int:
    """Run the demonstration.

    Args:
        settings: where database and broker are.
        console: where to show it.

    Returns:
        The exit code: 0 only if the database says what it should.

    Raises:
        TasktrailError: a server cannot be used, or the workers did not finish in time.
    """
    demo = application(settings)
    try:
        return _run(demo, settings, console)
    finally:
        demo.trail.engines.dispose()


def _run(demo: Application, settings: Settings, console: Console) -> int:
    days = Days.of(BundledHistory())
    engine = demo.trail.engines.sync
    console.print("[bold]1.[/] applying the migrations to PostgreSQL")
    with demo.trail.engines.errors():
        upgrade(engine)
    demo.trail.check()
    log = settings.home / "demo" / "worker.log"
    console.print(f"[bold]2.[/] starting a Celery worker with two processes (its log: {log})")
    command = worker_command("portfolio.demo_worker", 2, "prefork", "INFO")
    with running(command, worker_environment(settings), log) as worker:
        console.print(f"[bold]3.[/] enqueueing {len(days.all())} updates, each a row and a message")
        created = demo.tasks.update_exchange_rates.enqueue_many(
            update_fields(day, DEFAULT_CURRENCIES, demo.source.name) for day in days.all()
        )
        console.print(f"   {created.created} new rows, {created.existing} were there already")
        _watch(engine, worker, log, console, len(days.all()))
    return _report(engine, days, console)


def _watch(engine: Engine, worker: subprocess.Popen[bytes], log: Path, console: Console, total: int) -> None:
    columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    deadline = time.monotonic() + DEADLINE
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("updating", total=total)
        while True:
            counts = _counts(engine)
            ended = sum(count for status, count in counts.items() if status.is_ended)
            waiting = f", {counts[Status.PENDING]} waiting" if counts[Status.PENDING] else ""
            progress.update(bar, completed=ended, description=f"updating{waiting}")
            if ended >= total:
                return
            if worker.poll() is not None:
                raise DemoFailed(f"the worker ended with exit code {worker.returncode}; its log: {log}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"after {DEADLINE:g} s {total - ended} updates are unfinished; log: {log}")
            time.sleep(0.1)


def _counts(engine: Engine) -> Counter[Status]:
    row = ExchangeRateUpdateTracking
    with Session(engine) as db:
        found = db.execute(select(row.status, func.count()).group_by(row.status)).all()
    return Counter({Status(status): count for status, count in found})


def _report(engine: Engine, days: Days, console: Console) -> int:
    row = ExchangeRateUpdateTracking
    with Session(engine) as db:
        rows = db.scalars(select(row).where(row.update_date.in_(days.all())).order_by(row.update_date)).all()
        rates = db.scalar(select(func.count()).select_from(ExchangeRate)) or 0
        total = db.scalar(select(func.count()).select_from(row)) or 0
    console.print(_table(rows))
    counts = Counter(tracked.status for tracked in rows)
    flaky = next(tracked for tracked in rows if tracked.update_date == days.flaky)
    succeeded = sum(tracked.success_count for tracked in rows)
    console.print(
        f"[bold]{counts[Status.COMPLETED]} COMPLETED, {counts[Status.FAILED]} FAILED[/] "
        f"of {total} tracked updates"
    )
    for tracked in rows:
        if tracked.status == Status.FAILED:
            console.print(f"failed: {tracked.update_date}, {tracked.error_message}")
    console.print(
        f"retries: {flaky.attempts} failed attempts of {flaky.update_date} before it completed\n"
        f"rates stored: {rates}, counted by the jobs: {succeeded}"
    )
    as_it_should_be = (
        counts == {Status.COMPLETED: BUSINESS_DAYS + 1, Status.FAILED: 1}
        and total == len(days.all())
        and flaky.status == Status.COMPLETED
        and flaky.attempts == FLAKY_FAILURES
        and rates == succeeded == (BUSINESS_DAYS + 1) * len(DEFAULT_CURRENCIES)
    )
    console.print(
        "[green]the database says so[/]" if as_it_should_be else "[red]that is not as it should be[/]"
    )
    return 0 if as_it_should_be else 1


def _table(rows: Sequence[ExchangeRateUpdateTracking]) -> Table:
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("id", "right"),
        ("date", "left"),
        ("status", "left"),
        ("rates", "right"),
        ("failed", "right"),
        ("took", "right"),
        ("process", "left"),
    )
    table = Table(title="tracking.exchange_rate_update_tracking", title_justify="left", box=SIMPLE_HEAD)
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    colours = {Status.COMPLETED.value: "green", Status.FAILED.value: "red"}
    for row in rows:
        started, ended = row.started_at, row.completed_at
        took = f"{(ended - started).total_seconds() * 1000:.0f} ms" if started and ended else ""
        table.add_row(
            str(row.id),
            f"{row.update_date:%a %Y-%m-%d}",
            f"[{colours.get(row.status, 'yellow')}]{row.status}[/]",
            f"{row.success_count}/{row.total_count}",
            str(row.attempts),
            took,
            row.worker,
        )
    return table
