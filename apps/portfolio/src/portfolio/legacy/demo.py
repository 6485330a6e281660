"""The last part of the demonstration: the old system is left behind while its workers write all along.

It has a database of its own, made anew each time, so that it can be shown again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from sqlalchemy import NullPool, create_engine, text

from portfolio.database import upgrade
from portfolio.demo.stage import DemoFailed
from portfolio.legacy.generate import generate
from portfolio.legacy.plan import PLAN
from portfolio.legacy.simulate import Simulation, Summary
from portfolio.main import build
from portfolio.models import TRACKING_SCHEMA
from portfolio.process import running, worker_command, worker_environment
from tasktrail import Settings
from tasktrail.migration import archive, carrier, drop, parallel
from tasktrail.migration.account import Account
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copier import Progress as Copied
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.gate import Conditions
from tasktrail.migration.plan import DISPOSITIONS
from tasktrail.migration.quarantine import Quarantine
from tasktrail.migration.release import ABANDONED
from tasktrail.migration.rollback import Rollback
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.sync import lag
from tasktrail.migration.workspace import Workspace

ROWS: Final = 20_000
DIRTY: Final = 0.02
OLD_WORKERS: Final = 2
RATE: Final = 40.0
"""Writes of the old workers, a second."""

WINDOW: Final = timedelta(seconds=2)
"""Each of the windows that last for days in production."""

CONDITIONS: Final = Conditions(clean_passes=3, second_window=WINDOW)
PATIENCE: Final = 60.0
DATABASE: Final = "portfolio_demo_migration"


def play(settings: Settings, console: Console) -> bool:
    """Migrate the legacy tables through every phase, with a rollback on the way.

    Args:
        settings: where database server and broker are.
        console: where to show it.

    Returns:
        Whether every row is accounted for at the end, and no old worker had trouble.

    Raises:
        TasktrailError: a step did not come through.
    """
    console.print(
        f"[bold]6.[/] leaving the old system behind: {ROWS:,} legacy rows, {DIRTY:.0%} of them dirty, and "
        f"{OLD_WORKERS} old workers that write all along"
    )
    there = settings.model_copy(update={"database_url": SecretStr(_fresh_database(settings))})
    application = build(there)
    try:
        workspace = Workspace(PLAN, application.trail.engines, TRACKING_SCHEMA)
        with workspace.session("demonstration") as session:
            return _Play(workspace, session, there, console).run()
    finally:
        application.trail.engines.dispose()


def _fresh_database(settings: Settings) -> str:
    """Make the database anew, with the tables of both systems and rows in the legacy ones; return its URL."""
    base = build(settings).trail.engines
    with base.sync.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
        db.execute(text(f"CREATE DATABASE {DATABASE}"))
    url = base.sync.url.set(database=DATABASE)
    base.dispose()
    engine = create_engine(url, poolclass=NullPool)
    upgrade(engine)
    generate(engine, rows=ROWS, dirty=DIRTY, seed=1, until=datetime.now(UTC).date())
    return url.render_as_string(hide_password=False)


class _Play:
    """The steps, each with a line of what it did."""

    def __init__(self, workspace: Workspace, session: Session, settings: Settings, console: Console) -> None:
        self._workspace = workspace
        self._session = session
        self._settings = settings
        self._console = console
        self._runner = Runner(workspace, session)

    def run(self) -> bool:
        url = self._workspace.engines.sync.url
        with Simulation(url, rate=RATE, processes=OLD_WORKERS) as old_workers:
            self._copy()
            with self._following():
                self._accept_quarantined()
                parallel.begin(self._session, self._workspace, WINDOW)
                self._cut_over("parallel run")
                with self._new_workers():
                    self._wait_until_nothing_is_unfinished()
                self._roll_back()
                self._cut_over("parallel run again")
                summary = old_workers.stop()
                self._say("old workers end", _in_words(summary))
                with self._new_workers():
                    self._wait_until_nothing_is_unfinished()
                self._wait_until_carried()
            self._leave_behind()
        account = self._runner.account()
        return self._verdict(account, summary)

    def _say(self, step: str, what: str) -> None:
        self._console.print(f"   {step:<20} {what}", highlight=False, soft_wrap=True)

    # Until the copy is right

    def _copy(self) -> None:
        account = self._runner.plan().prediction.account
        self._say("dry run", _totals(account))
        self._runner.expand()
        self._runner.sync()
        self._say(
            "expand, sync", "the new tables are ready, and triggers note each change of the legacy ones"
        )
        began = time.monotonic()
        with self._bars() as report:
            self._runner.backfill(Backfill(self._workspace, chunk_size=1_000, report=report))
        rate = ROWS / (time.monotonic() - began)
        self._say("backfill", f"{_totals(self._runner.account())}; {rate:,.0f} rows a second")
        verdicts = self._runner.verify()
        self._say(
            "verify",
            "; ".join(f"{one.way}: {one.compared:,} compared, {one.differing} differ" for one in verdicts),
        )
        if any(verdict.differing for verdict in verdicts):
            raise DemoFailed(f"the copy is not right: {verdicts}")

    def _accept_quarantined(self) -> None:
        quarantine = Quarantine(self._workspace)
        heaps = quarantine.heaps(self._session)
        for heap in heaps:
            quarantine.accept(
                self._session, table=heap.table, reason=heap.reason, note="made dirty on purpose"
            )
        rows = sum(heap.rows for heap in heaps)
        self._say(
            "quarantine", f"{rows} rows for {len({heap.reason for heap in heaps})} reasons, accepted by name"
        )

    # Who has the truth

    def _cut_over(self, run: str) -> None:
        cutover = Cutover(self._workspace, self._session)
        try:
            self._until(lambda: self._is_open(cutover), "the gate to the cutover did not open")
        except DemoFailed as error:
            raise DemoFailed(f"{error}: {'; '.join(cutover.gate(CONDITIONS))}") from None
        self._say(run, f"{CONDITIONS.clean_passes} comparisons in a row found nothing")
        cutover.run(CONDITIONS)
        self._say("cutover", f"the new tables are the truth; {self._locked()}")

    def _is_open(self, cutover: Cutover) -> bool:
        parallel.run_pass(self._session, self._workspace)
        return not cutover.gate(CONDITIONS)

    def _roll_back(self) -> None:
        rollback = Rollback(self._workspace, self._session)
        losses = rollback.losses()
        rollback.run(accept_losses=True)
        written = self._session.value(
            f"SELECT count(*) FROM {TRACKING_SCHEMA}.tasktrail_ledger WHERE reason = 'written_back'"  # noqa: S608  # a constant name
        )
        self._say(
            "rollback",
            f"the legacy tables are the truth again, {written} rows of theirs written from the new ones, "
            f"{len(losses)} with less than those say; {self._locked()}",
        )

    def _locked(self) -> str:
        events = self._workspace.journal.events(self._session)
        note = next(event for event in events if event["what"].endswith("locked"))
        return f"writers were locked out for {note['details']['milliseconds']} ms"

    # The workers of both sides

    @contextmanager
    def _following(self) -> Iterator[None]:
        """Carry changes over, in whichever direction, beside everything else."""
        stop = threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                with self._workspace.session("demonstration follower") as session:
                    carrier.follow(session, self._workspace, stop, share=0.5)
            except BaseException as error:  # noqa: BLE001  # raised again on the main thread
                failed.append(error)

        thread = threading.Thread(target=work, name="follower")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE)
        if failed:
            raise failed[0]

    @contextmanager
    def _new_workers(self) -> Iterator[None]:
        command = worker_command("portfolio.legacy.demo_worker", 2, "prefork", "INFO")
        log = self._settings.home / "demo" / "migration-worker.log"
        with running(command, worker_environment(self._settings), log):
            yield

    def _wait_until_nothing_is_unfinished(self) -> None:
        self._until(lambda: not self._counts()["unfinished"], "the new workers did not finish")
        counts = self._counts()
        self._say(
            "new workers",
            f"ran what was unfinished: {counts['completed']} COMPLETED, {counts['failed']} FAILED; "
            f"{counts['abandoned']} that nobody had touched for a day were given up",
        )

    def _counts(self) -> dict[str, int]:
        """Return how many rows are unfinished, were run by new workers, and were given up at a cutover."""
        tables = " UNION ALL ".join(
            f"SELECT status, worker, error_message FROM {route.target}"  # noqa: S608  # constant names
            for table in PLAN.tables
            for route in table.routes
        )
        row = self._session.row(f"""
            SELECT count(*) FILTER (WHERE status IN ('PENDING', 'PROCESSING')) AS unfinished,
                count(*) FILTER (WHERE status = 'COMPLETED' AND worker IS NOT NULL) AS completed,
                count(*) FILTER (WHERE status = 'FAILED' AND worker IS NOT NULL) AS failed,
                count(*) FILTER (WHERE starts_with(error_message, '{ABANDONED}')) AS abandoned
            FROM ({tables}) rows
        """)  # noqa: S608  # constant names
        return dict(row or {})

    def _wait_until_carried(self) -> None:
        self._until(
            lambda: not lag(self._session, self._workspace, side=None).entries,
            "changes were not carried over",
        )

    # The end

    def _leave_behind(self) -> None:
        archives = archive.archive(self._session, self._workspace)
        self._say(
            "archive",
            f"{sum(one.measure.rows for one in archives):,} rows, restored for a test and found equal",
        )
        self._until(
            lambda: not drop.gate(self._session, self._workspace), "the gate to the drop did not open"
        )
        drop.drop(self._session, self._workspace)
        self._say("drop", "the legacy tables are gone")

    def _verdict(self, account: Account, summary: Summary) -> bool:
        for name in account.tables:
            self._console.print(f"   {account.equation(name)}", highlight=False, soft_wrap=True)
        is_well = account.is_balanced and not summary.errors and not account.total("pending")
        said = "[green]every row is accounted for[/]" if is_well else "[red]that is not as it should be[/]"
        self._console.print(said)
        return is_well

    def _until(self, is_over: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_over():
            if time.monotonic() > deadline:
                raise DemoFailed(f"{otherwise} within {PATIENCE:g} s")
            time.sleep(0.2)

    @contextmanager
    def _bars(self) -> Iterator[Callable[[Copied], None]]:
        columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn())
        bars: dict[str, TaskID] = {}
        with Progress(*columns, console=self._console, transient=True) as progress:

            def report(copied: Copied) -> None:
                if copied.table not in bars:
                    bars[copied.table] = progress.add_task(copied.table)
                progress.update(bars[copied.table], total=copied.total, completed=copied.done)

            yield report


def _totals(account: Account) -> str:
    fates = ", ".join(f"{account.total(fate):,} {fate}" for fate in DISPOSITIONS)
    return f"{account.source_rows():,} rows = {fates}"


def _in_words(summary: Summary) -> str:
    return (
        f"{summary.changes.total():,} writes, {summary.errors.total()} errors, half of them within "
        f"{1000 * summary.p50:.1f} ms, the longest took {1000 * summary.longest:.0f} ms"
    )
