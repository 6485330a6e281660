"""The chaos run: jobs under fire, and a verdict by SQL.

::

    python -m tests.chaos.run --broker redis --jobs 5000 --seed 1
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tests.chaos.arena import BROKERS, Field, arena, scratch
from tests.chaos.plan import orders
from tests.chaos.producer import Producer
from tests.chaos.sabotage import SAFETIES
from tests.chaos.tormentor import Tormentor

ORDERING: Final = 0.85
"""In which part of the storm the jobs are ordered."""
AFTER_STORM: Final = 20.0
"""Length of each further storm while there are orders left, in seconds."""
CALM: Final = 0.3
"""Which part of the time is left to the rest of the orders, on a machine too slow to do all in the storm."""
SHOWN: Final = 8
"""How many violations of one rule are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is like.

    Attributes:
        broker: which broker.
        jobs: how many rows that leave a side effect are ordered.
        seconds: how long the storm lasts at least; it goes on until all jobs are ordered.
        limit: how long the storm and what comes after it may take together, in seconds.
        seed: of the plan.
        persistent: whether Redis keeps its content over a restart.
        without: safeties that the workers do without.
        size: how many workers there are.
        concurrency: how many processes each has.
    """

    broker: str
    jobs: int
    seconds: float
    limit: float
    seed: int = 1
    persistent: bool = True
    without: Collection[str] = ()
    size: int = 3
    concurrency: int = 3


@dataclass(slots=True)
class Report:
    """What came of a run.

    Attributes:
        violations: what violates each rule; empty when all is well.
        blows: how often each blow fell.
        rows: how many rows there are, by state.
        figures: further numbers.
        errors: why attempts failed that were not told to, and which errors the producer met.
        seconds: how long each part took.
        folder: where the logs are.
    """

    folder: Path
    violations: dict[str, list[str]] = field(default_factory=dict)
    blows: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run(options: Options, folder: Path) -> Report:
    """Run the storm, wait until everything has settled, and judge.

    Args:
        options: what the run is like.
        folder: of everything; must not exist or be empty.
    """
    report = Report(folder)
    began = time.monotonic()

    def lap(name: str) -> None:
        report.seconds[name] = time.monotonic() - began - sum(report.seconds.values())

    with arena(
        folder,
        options.broker,
        persistent=options.persistent,
        without=options.without,
        size=options.size,
        concurrency=options.concurrency,
    ) as arena_:
        field = arena_.field
        field.muster()
        lap("start")
        random = Random(options.seed)
        tormentor = Tormentor(arena_, random)
        producer = Producer(field.tasks, orders(random, options.jobs, options.seconds * ORDERING))
        deadline = time.monotonic() + options.limit
        producer.start()
        try:
            length = options.seconds
            while not producer.finished and time.monotonic() + length < deadline - CALM * options.limit:
                tormentor.storm(length, each=length == options.seconds)
                length = AFTER_STORM
            lap("storm")
            settle(field, producer, deadline)
            lap("drain")
        finally:
            producer.close()
        field.fleet.close()
        lap("shut down")
        report.violations = field.violations(
            ordered=producer.ordered, struck=tormentor.struck, cancelled=tormentor.cancelled
        )
        with field.engine.connect() as db:
            _count(report, db)
        for name, failures in (
            ("the producer goes on", [producer.failure] if producer.failure else []),
            ("the blows fall", tormentor.failures),
            ("workers go on", field.fleet.culprits),
            ("all jobs are ordered", [f"{producer.left} orders are left"] if producer.left else []),
        ):
            if failures:
                report.violations[name] = [repr(failure) for failure in failures]
        report.blows.update(entry["blow"] for entry in tormentor.struck)
        report.figures |= {f"workers ended by {why}": number for why, number in field.fleet.deserters.items()}
        report.errors.update({f"producer: {name}": number for name, number in producer.errors.items()})
        lap("verdict")
    return report


def settle(field: Field, producer: Producer, deadline: float) -> None:
    """Wait until every job is ordered and has ended, or the time is up: the rules will tell."""
    while time.monotonic() < deadline:
        field.fleet.muster()
        with suppress(SQLAlchemyError):
            if producer.finished and field.active() == 0:
                return
        time.sleep(0.1)


def _count(report: Report, db: Any) -> None:
    def pairs(query: str) -> dict[str, int]:
        return {str(name): number for name, number in db.execute(text(query))}

    report.rows = pairs("SELECT status, count(*) FROM chaos.row GROUP BY status ORDER BY status")
    report.figures = {
        **pairs("SELECT 'side effects', count(*) FROM chaos.effect"),
        **pairs(
            "SELECT 'attempts ' || outcome, count(*) FROM chaos.attempt GROUP BY outcome ORDER BY outcome"
        ),
        **pairs(
            "SELECT replace(name, '_', ' '), sum(value)::int FROM tracking.tasktrail_counters"
            " GROUP BY name ORDER BY name"
        ),
        **pairs(
            "SELECT 'messages that reached a worker', count(*) FROM chaos.evidence WHERE event = 'message'"
        ),
        **pairs("SELECT 'bodies that ran', count(*) FROM chaos.evidence WHERE event = 'start'"),
        **pairs(
            "SELECT 'claims lost in a crash of PostgreSQL', count(*) FROM chaos.evidence e"
            " WHERE event = 'start' AND NOT EXISTS (SELECT FROM chaos.history h WHERE h.domain = e.domain"
            " AND h.tracking_id = e.tracking_id AND h.claim_became = e.claim)"
        ),
        **pairs(
            "SELECT 'rows given back without an attempt', count(*) FROM chaos.history h"
            " WHERE was = 'PROCESSING' AND became = 'PENDING' AND NOT EXISTS (SELECT FROM chaos.attempt a"
            ' WHERE a.domain = h.domain AND a.id = h.tracking_id AND a."start" = h.claim_was)'
        ),
        **pairs("SELECT 'rows rolled back', count(*) FROM chaos.ordered WHERE outcome = 'rolled back'"),
    }
    report.errors = pairs(
        "SELECT outcome || ': ' || left(regexp_replace(error, '[0-9]+', 'N', 'g'), 110), count(*)"
        " FROM chaos.attempt WHERE error <> 'ChaosError: as told' AND error <> 'GiveUp: as told'"
        " AND outcome <> 'cancelled' GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
    )


def show(report: Report, options: Options, console: Console) -> None:
    """Print a report."""
    broker = options.broker
    if broker == "redis":
        broker += " with persistence" if options.persistent else " without persistence"
    table = Table(title=f"chaos on {broker}, seed {options.seed}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    parts: list[dict[str, Any]] = [
        {name: report.blows[name] for name in sorted(report.blows)},
        {f"rows {name}": number for name, number in report.rows.items()},
        report.figures,
        report.errors,
        {f"seconds to {name}": f"{seconds:.1f}" for name, seconds in report.seconds.items()},
    ]
    for part in parts:
        table.add_section()
        for name, value in part.items():
            table.add_row(name, str(value))
    console.print(table)
    for name, sentences in report.violations.items():
        console.print(f"violated: {name.replace('_', ' ')} ({len(sentences)} times)", style="red")
        for sentence in sentences[:SHOWN]:
            console.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)
    if report.violations:
        console.print(f"FAILED; logs are in {report.folder}", style="bold red")
    else:
        console.print(
            f"all is well: {sum(report.rows.values())} rows, none lost or doubled", style="bold green"
        )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", choices=BROKERS, required=True)
    parser.add_argument("--jobs", type=int, default=5000, help="rows that leave a side effect")
    parser.add_argument("--seconds", type=float, default=60, help="least length of the storm")
    parser.add_argument("--limit", type=float, default=165, help="most seconds for the storm and the rest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=3, help="processes of each worker")
    parser.add_argument("--no-persistence", action="store_true", help="Redis forgets everything at a restart")
    parser.add_argument(
        "--without", choices=SAFETIES, action="append", default=[], help="must end in failure"
    )
    given = parser.parse_args()
    options = Options(
        broker=given.broker,
        jobs=given.jobs,
        seconds=given.seconds,
        limit=given.limit,
        seed=given.seed,
        persistent=not given.no_persistence,
        without=tuple(given.without),
        size=given.workers,
        concurrency=given.concurrency,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with scratch() as folder:
        report = run(options, folder)
        show(report, options, Console(width=130))
        if report.violations:
            raise SystemExit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
