"""The endurance run: many dirty rows are migrated while old workers write, and an oracle judges the end.

::

    python -m apps.portfolio.tests.legacy.endurance --rows 1000000
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from apps.portfolio.tests.legacy import oracle
from apps.portfolio.tests.legacy.turning import turn
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, NullPool, create_engine

from portfolio.database import upgrade
from portfolio.legacy.generate import generate
from portfolio.legacy.plan import PLAN
from portfolio.legacy.simulate import Simulation, Summary
from portfolio.models import TRACKING_SCHEMA
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.engines import Engines
from tasktrail.migration import account, sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.follower import keep_following
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.sync import Lag
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.triggers import EVENTS
from tasktrail.migration.workspace import Workspace
from tasktrail.settings import sqlalchemy_url
from tests.waiting import until

UNTIL: Final = date(2026, 11, 1)
"""The last day that the generated rows are about."""

MOST_SLOWDOWN: Final = 1.5
"""How much longer the 99th percentile of the old workers' writes may be during sync."""

LONGEST_WRITE: Final = 0.5
"""How long no write of an old worker may take during the migration, in seconds."""

Span: TypeAlias = tuple[float, float]
"""First and last moment, by the monotonic clock."""

RESTS: Final = 4
"""How many times longer the observer rests than it looks: two cores have the old workers and the copy too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is like.

    Attributes:
        rows: how many legacy rows there are at first.
        dirty: which part of them is dirty.
        writers: how many processes write.
        rate: writes a second, of all of them, while rows are copied.
        turning_rate: the same during cutovers and rollbacks, which nobody does at the busiest hour.
        days: how many of the newest days they are busy with: at such a rate an old system had much to do, and
            with few of them a unit of work would have thousands of rows.
        seconds: how long the writing during the migration takes at least, and each of the spans compared.
        rounds: how often the old workers are measured without triggers and with them, by turns.
        looks: how often the account is taken during the migration, at least.
        share: part of the time in which the backfill works.
        chunk_size: rows in a chunk; None for what the plan says.
        turns: how often it is cut over and rolled back.
        seed: of rows and writers.
    """

    rows: int
    dirty: float = 0.05
    writers: int = 8
    rate: float = 500.0
    turning_rate: float = 50.0
    days: int = 2000
    seconds: float = 30.0
    rounds: int = 3
    looks: int = 10
    share: float = 1.0
    chunk_size: int | None = None
    turns: int = 2
    seed: int = 1


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        violations: what must not be, in words; empty when all is well.
        missed: figures that are not as they should be, in words.
        syncing: the writers before the copy, with and without triggers and whoever follows, by turns.
        migrating: the writers during the backfill.
        copied: the same as ``syncing``, once everything is copied.
        turning: the writers during cutovers and rollbacks.
        figures: further numbers.
    """

    violations: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    syncing: Summary | None = None
    migrating: Summary | None = None
    copied: Summary | None = None
    turning: Summary | None = None
    figures: dict[str, str] = field(default_factory=dict)


class Observer:
    """Takes the account all along, each time in one statement, and remembers what was wrong.

    It looks with one process of the server and rests in between, since the run measures besides how the old
    workers fare.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.looks = 0
        self.longest = 0.0
        self.violations: list[str] = []
        self._workspace = workspace

    def look_until(self, stop: threading.Event) -> None:
        """Look again and again; at the first imbalance it ends."""
        with self._workspace.session("observer") as session:
            stagings = self._workspace.stagings(session)
            session.run("SET max_parallel_workers_per_gather = 0")
            while not stop.is_set() and not self.violations:
                began = time.monotonic()
                seen = account.take(session, self._workspace, stagings)
                took = time.monotonic() - began
                self.longest = max(self.longest, took)
                self.looks += 1
                if not seen.is_balanced:
                    self.violations.extend(seen.equation(name) for name in seen.tables)
                stop.wait(RESTS * took)

    def check(self) -> None:
        """Raise an AssertionError when a look found an imbalance."""
        assert not self.violations, self.violations


def run(
    options: Options, folder: Path, say: Callable[[str], None] = lambda _: None, report: Report | None = None
) -> Report:
    """Generate, measure the baseline, migrate under fire, drain, and judge.

    Args:
        options: what the run is like.
        folder: of the database server; another user must be able to enter it.
        say: is told what begins.
        report: what is to be filled; it has what was seen, too, when the run breaks off.
    """
    report = report or Report()
    server = EmbeddedPostgres(folder / "postgres")
    engine = create_engine(sqlalchemy_url(server.start()), poolclass=NullPool)
    try:
        with _timed(report, "generate", say):
            upgrade(engine)
            generate(engine, rows=options.rows, dirty=options.dirty, seed=options.seed, until=UNTIL)
        _migrate(options, engine, Workspace(PLAN, Engines(server.url), TRACKING_SCHEMA), report, say)
        with _timed(report, "compare every row with the oracle", say):
            report.violations.extend(oracle.differences(server.url))
        _turn(options, engine, Workspace(PLAN, Engines(server.url), TRACKING_SCHEMA), report, say)
    finally:
        engine.dispose()
        server.stop("immediate")
    _judge_figures(report)
    return report


def _migrate(
    options: Options, engine: Engine, workspace: Workspace, report: Report, say: Callable[[str], None]
) -> None:
    observer = Observer(workspace)
    lags: list[Lag] = []
    with workspace.session("endurance") as session:
        runner = Runner(workspace, session)
        with _timed(report, "dry run", say):
            runner.plan()
        runner.expand()
        with _timed(report, "write with and without us", say), _writers(options, engine, 0) as simulation:
            spans = _alternate(runner.sync, runner.undo_sync, workspace, options)
            report.syncing = simulation.stop()
        _compare(report, "before the copy", report.syncing, spans)
        runner.sync()
        with (
            _beside(observer.look_until),
            _beside(partial(keep_following, workspace, report=lambda _, lag: lags.append(lag))),
            _writers(options, engine, 1) as simulation,
        ):
            began = time.monotonic()
            with _timed(report, "backfill", say):
                runner.backfill(_backfill(options, workspace, observer))
            _write_for(options.seconds - (time.monotonic() - began))
            until(lambda: observer.check() or observer.looks >= options.looks, seconds=600)
            report.migrating = simulation.stop()
            with _timed(report, "drain", say):
                until(lambda: not sync.lag(session, workspace).entries, seconds=600)
        # Who writes without triggers is found by the last part of a backfill.
        with _timed(report, "the same once copied", say), _writers(options, engine, 3) as simulation:
            triggers = partial(_enable, session, workspace)
            triggers("DISABLE")
            spans = _alternate(
                partial(triggers, "ENABLE ALWAYS"), partial(triggers, "DISABLE"), workspace, options
            )
            report.copied = simulation.stop()
        _compare(report, "after the copy", report.copied, spans)
        triggers("ENABLE ALWAYS")
        with _timed(report, "take what was missed", say):
            runner.backfill(Backfill(workspace))
        found = runner.account()
    report.violations.extend(observer.violations)
    if not found.is_balanced or found.total("pending"):
        report.violations.extend(found.equation(name) for name in found.tables)
    report.figures |= {
        "looks at the account": str(observer.looks),
        "longest look": f"{observer.longest:.1f} s",
        "largest lag": f"{max(lag.entries for lag in lags)} changes",
        "oldest change": f"{max(lag.seconds for lag in lags):.1f} s",
        **{name: found.equation(name).partition(": ")[2] for name in found.tables},
    }
    backfill = float(report.figures["seconds to backfill"])
    report.figures["backfill"] = f"{found.source_rows() / backfill:.0f} rows/s"


def _enable(session: Session, workspace: Workspace, how: str) -> None:
    """Enable or disable the triggers of all legacy tables."""
    for staging in workspace.stagings(session):
        noted = sync.noted(staging)
        for event in EVENTS:
            session.run(f"ALTER TABLE {noted.table} {how} TRIGGER {noted.trigger(event)}")


def _alternate(
    put_on: Callable[[], None], take_off: Callable[[], None], workspace: Workspace, options: Options
) -> list[tuple[Span, Span]]:
    """Let the old workers write without triggers, with triggers and the follower, without, with, and so on.

    The machine is not the same from one minute to the next: what is compared lies side by side. The follower
    is measured once it has found its rhythm, which takes as long as its longest rest.

    Args:
        put_on: puts the triggers on, which are not there.
        take_off: takes them off.
        workspace: the plan and the database.
        options: what the run is like.

    Returns:
        The spans without and with triggers.
    """
    spans = []
    for _ in range(options.rounds):
        without = _span(options.seconds)
        put_on()
        with _beside(partial(keep_following, workspace)):
            _write_for(options.seconds)
            spans.append((without, _span(options.seconds)))
        take_off()
    return spans


def _compare(report: Report, when: str, summary: Summary, spans: list[tuple[Span, Span]]) -> None:
    """Compare the time that 99 of 100 writes did not exceed without us and with us."""
    without, following = (
        [summary.exceeded_by(0.01, *span) for span in chosen] for chosen in zip(*spans, strict=True)
    )
    ratio = median(following) / median(without)
    report.figures[f"p99 without us {when}, ms"] = _milliseconds(without)
    report.figures[f"p99 with us {when}, ms"] = _milliseconds(following)
    report.figures[f"p99 with us {when}, as a multiple"] = f"{ratio:.2f}"
    if ratio > MOST_SLOWDOWN:
        report.missed.append(f"p99 {when} is {ratio:.2f} times that without us, at most {MOST_SLOWDOWN}")


def _span(seconds: float) -> Span:
    began = time.monotonic()
    _write_for(seconds)
    return began, time.monotonic()


def _turn(
    options: Options, engine: Engine, workspace: Workspace, report: Report, say: Callable[[str], None]
) -> None:
    observer = Observer(workspace)
    with workspace.session("endurance") as session, _beside(observer.look_until):
        with _timed(report, "verify in three ways", say):
            differing = sum(verdict.differing for verdict in Runner(workspace, session).verify())
        if differing:
            report.violations.append(f"verification found {differing} differences")
            return
        with _beside(partial(keep_following, workspace)):
            turned = turn(
                workspace,
                session,
                _writers(options, engine, 2, options.turning_rate),
                times=options.turns,
                seconds=options.seconds / 4,
                say=say,
            )
    report.turning = turned.summary
    report.violations.extend([*observer.violations, *turned.violations])
    report.figures |= {
        "writers locked out, ms": ", ".join(map(str, turned.locked)),
        "writes after a cutover": str(turned.stragglers),
        "looks at the account while turning": str(observer.looks),
    }


def _backfill(options: Options, workspace: Workspace, observer: Observer) -> Backfill:
    return Backfill(
        workspace,
        chunk_size=options.chunk_size,
        throttle=Throttle(share=options.share),
        report=lambda _: observer.check(),
    )


@contextmanager
def _beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let something work on a thread of its own; what it raises is raised at the end."""
    stop, failures = threading.Event(), list[BaseException]()

    def body() -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def _timed(report: Report, what: str, say: Callable[[str], None]) -> Iterator[None]:
    say(what)
    began = time.monotonic()
    yield
    report.figures[f"seconds to {what}"] = f"{time.monotonic() - began:.2f}"


def _writers(options: Options, engine: Engine, number: int, rate: float | None = None) -> Simulation:
    return Simulation(
        engine.url,
        rate=rate or options.rate,
        processes=options.writers,
        seed=options.seed + number,
        days=options.days,
    )


def _write_for(seconds: float) -> None:
    """Let the old workers write for a while: what is measured is what they do in it."""
    threading.Event().wait(max(seconds, 0.0))


def _judge_figures(report: Report) -> None:
    told = _told(report)
    for name, summary in told.items():
        if summary.errors:
            errors = f"{dict(summary.errors)}, first {summary.first_error}"
            report.violations.append(f"old workers met errors {name}: {errors}")
    slowest = max(summary.longest for summary in told.values())
    if slowest >= LONGEST_WRITE:
        longest = f"{1000 * slowest:.0f} ms"
        report.missed.append(f"a write took {longest}, it must be under {1000 * LONGEST_WRITE:.0f}")


def _told(report: Report) -> dict[str, Summary]:
    """Return what the old workers met, by when it was."""
    told = {
        "before the copy": report.syncing,
        "during the copy": report.migrating,
        "after the copy": report.copied,
        "while turning": report.turning,
    }
    return {name: summary for name, summary in told.items() if summary is not None}


def _milliseconds(times: list[float]) -> str:
    return ", ".join(f"{1000 * seconds:.1f}" for seconds in times)


def show(report: Report, options: Options, console: Console) -> None:
    """Print a report."""
    told = _told(report)
    table = Table("", *told, title=str(options), title_justify="left")
    lines: dict[str, Callable[[Summary], str]] = {
        "writes": lambda summary: str(summary.changes.total()),
        "writes/s": lambda summary: f"{summary.changes_per_second:.0f}",
        "p50 of a write": lambda summary: f"{1000 * summary.p50:.1f} ms",
        "p99 of a write": lambda summary: f"{1000 * summary.p99:.1f} ms",
        "longest write": lambda summary: f"{1000 * summary.longest:.0f} ms",
        "errors": lambda summary: str(summary.errors.total()),
    }
    for name, of in lines.items():
        table.add_row(name, *map(of, told.values()))
    table.add_section()
    for name, figure in report.figures.items():
        table.add_row(name, *[""] * (len(told) - 1), figure)
    console.print(table)
    for sentence in (*report.violations, *report.missed):
        console.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)
    verdict = "FAILED" if report.violations or report.missed else "all is well"
    console.print(verdict, style="bold")


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder that PostgreSQL's user may enter; it is deleted in the end."""
    with TemporaryDirectory(prefix="endurance-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def main() -> int:
    """Run from the command line; return 0 when every row arrived and every figure is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="legacy rows at first")
    parser.add_argument("--dirty", type=float, default=0.05, help="part of them that is dirty")
    parser.add_argument("--writers", type=int, default=8, help="processes that write")
    parser.add_argument("--rate", type=float, default=500.0, help="writes a second, of all of them")
    parser.add_argument("--turning-rate", type=float, default=50.0, help="the same during cutovers")
    parser.add_argument("--days", type=int, default=2000, help="newest days that they are busy with")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each span compared")
    parser.add_argument("--rounds", type=int, default=3, help="how often spans are compared")
    parser.add_argument("--share", type=float, default=1.0, help="part of the time in which rows are copied")
    parser.add_argument("--chunk-size", type=int, help="rows in a chunk")
    parser.add_argument("--turns", type=int, default=2, help="how often it is cut over and rolled back")
    parser.add_argument("--seed", type=int, default=1)
    options = Options(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=130)
    report = Report()
    try:
        with scratch() as folder:
            run(options, folder, console.print, report)
    except BaseException:
        report.missed.append("the run broke off")
        raise
    finally:
        show(report, options, console)
    return 1 if report.violations or report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
