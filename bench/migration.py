"""The copy of legacy rows, against one raw INSERT ... SELECT and loops over the rows, and its verification.

Run it as ``.venv/bin/python -m bench.migration [--rows N]``. All figures that are compared come from one
embedded PostgreSQL in one run. Rows are those of the portfolio's legacy tables. The copy runs in a process
of its own, which says how much memory it took, and again for other numbers of rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import psycopg
from rich.console import Console
from sqlalchemy import create_engine

from bench.migration_peers import insert_loop, raw_checksum, raw_copy, reladiff_seconds, service_loop
from bench.report import Figure, Report
from bench.stand import environment
from portfolio.database import upgrade
from portfolio.legacy.plan import PLAN
from portfolio.models import TRACKING_SCHEMA
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.engines import Engines
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.names import qualified
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.verify import Verdict, verify_account, verify_checksums
from tasktrail.migration.witness import verify_twins
from tasktrail.migration.workspace import Workspace
from tasktrail.settings import sqlalchemy_url

TITLE = "Migrating {rows:,} legacy rows"
TURNS: Final = 3
"""How often everything is copied raw and with a ledger: the machine is not the same from minute to minute."""

HOW = (
    "The portfolio's three legacy tables. Raw and with a ledger they are copied three times, by turns: these "
    "are medians; the other figures are of one run. The raw INSERT is the same transform without ledger, "
    "raw rows or triggers; the loop is the plan's, row by row through the async service, or one INSERT and "
    "commit for each row. Above 1 for a rate, or below 1 for a time, is better."
)
ROWS = """
INSERT INTO etfs (id, symbol) SELECT 'ETF' || n, 'E' || n FROM generate_series(1, 200) n;
INSERT INTO task_status (task_type, status, resource_id, error, task_metadata, created_at, updated_at)
SELECT CASE WHEN n % 10 = 0 THEN 'etf_creation' ELSE 'exchange_rate_update' END,
    (ARRAY['completed', 'completed', 'completed', 'failed'])[1 + n % 4], n,
    CASE WHEN n % 4 = 3 THEN 'Timeout: no answer within 30 s' END,
    jsonb_build_object('date', date '1999-01-04' + (n / ({rows} / 8000 + 1))::int, 'currencies',
        jsonb_build_array('USD', 'GBP', 'CHF', 'JPY')), timestamp '2015-01-01' + n * interval '1 minute',
    timestamp '2015-01-01' + n * interval '1 minute' + interval '5 s'
FROM generate_series(1, {rows} / 2) n;
INSERT INTO etf_updates (etf_id, update_type, start_date, end_date, status, created_at, completed_at,
    retry_count, missing_dates)
SELECT 'ETF' || 1 + n % 200, 'prices_only', '2024-01-01', '2024-01-31', 'completed',
    timestamp '2015-01-01' + n * interval '1 minute', timestamp '2015-01-01' + n * interval '1 minute', n % 3,
    ARRAY[date '2024-01-01']
FROM generate_series(1, {rows} / 2 - {rows} / 10) n;
INSERT INTO daily_update_tracking (date, update_type, attempted, data_found)
SELECT date '2000-01-01' + (n / 40)::int, 'etf_prices_ETF' || n % 40, TRUE, n % 7 > 0
FROM generate_series(1, {rows} / 10) n;
ANALYZE;
"""
MEMORY_SIZES = (10_000, 100_000)
"""Numbers of rows for which the memory of the copy is measured besides, if no others are given."""

console = Console(width=140)


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def empty_targets(db: Session, stagings: list[Staging]) -> None:
    targets = [qualified(route.target) for staging in stagings for route in staging.transform.table.routes]
    db.run(f"TRUNCATE {', '.join(targets)}")
    db.run("CHECKPOINT")


@contextmanager
def database(rows: int) -> Iterator[str]:
    """Yield the URL of a new server with so many legacy rows."""
    with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        try:
            engine = create_engine(sqlalchemy_url(server.url))
            upgrade(engine)
            engine.dispose()
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(ROWS.format(rows=rows).encode())
            yield server.url
        finally:
            server.stop("immediate")


def workspace_of(url: str) -> Workspace:
    return Workspace(PLAN, Engines(url), TRACKING_SCHEMA)


def copy(url: str) -> None:
    """Copy everything, and print how long it took in seconds and the most memory in MB."""
    workspace = workspace_of(url)
    with workspace.session("bench") as db:
        seconds = timed(lambda: Runner(workspace, db).backfill(Backfill(workspace)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"seconds": seconds, "memory": memory}))


def copy_in_child(url: str) -> tuple[float, float]:
    """Copy everything in a process of its own; return the seconds and the most memory in MB."""
    command = [sys.executable, "-m", "bench.migration", "--copy", url]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said["seconds"], said["memory"]


def memory_for(rows: int) -> float:
    with database(rows) as url, workspace_of(url).session("bench") as db:
        runner = Runner(workspace_of(url), db)
        runner.plan()
        runner.expand()
        runner.sync()
        return copy_in_child(url)[1]


def measure(url: str, rows: int) -> tuple[Report, float]:
    """Return the figures, and the most memory that the copy took, in MB."""
    report = Report(TITLE.format(rows=rows), HOW, environment(url))
    workspace = workspace_of(url)
    with workspace.session("bench") as db:
        stagings = workspace.stagings(db)
        runner = Runner(workspace, db)
        dry = timed(lambda: (runner.plan(), runner.expand()))
        report.add(Figure("dry run and expand", dry, "s"))
        loops = {}
        for what, loop in (("async service", service_loop), ("one INSERT", insert_loop)):
            empty_targets(db, stagings)
            loops[what] = loop(url)
        raw, rate, memory = copies(url, runner, stagings, rows)
        report.add(beside("backfill with ledger", rate, "rows/s", "raw INSERT ... SELECT", raw, at_least=0.4))
        for what, slow in loops.items():
            wanted = 100 if what == "async service" else None
            report.add(beside("backfill", rate, "rows/s", f"loop, {what}", slow, at_least=wanted))
            report.add(beside("raw INSERT ... SELECT", raw, "rows/s", f"loop, {what}", slow))
        checksum = timed(lambda: raw_checksum(db, stagings))
        for way in (verify_account, verify_checksums, verify_twins):
            seconds = verified(db, workspace, stagings, way)
            name = way.__name__.removeprefix("verify_")
            wanted = 3 if way is verify_checksums else None
            report.add(beside(f"verify: {name}", seconds, "s", "raw checksums", checksum, at_most=wanted))
        kept = next(one for one in stagings if one.transform.table.routes[0].keeps_ids)
        report.add(*beside_reladiff(url, db, workspace, kept))
    return report, memory


def copies(url: str, runner: Runner, stagings: list[Staging], rows: int) -> tuple[float, float, float]:
    """Copy everything raw and with a ledger, by turns; the last copy stays.

    Returns:
        Rows a second raw and with a ledger, medians; and the most memory of a copy in MB.
    """
    db, raw, ours, memory = runner.session, list[float](), list[float](), 0.0
    for turn in range(TURNS):
        if turn:
            runner.undo_backfill()
            runner.undo_sync()
            db.run("VACUUM ANALYZE")
        empty_targets(db, stagings)
        raw.append(rows / timed(lambda: raw_copy(db, stagings)))
        empty_targets(db, stagings)
        runner.sync()
        took, used = copy_in_child(url)
        ours.append(rows / took)
        memory = max(memory, used)
    return median(raw), median(ours), memory


def beside(
    what: str,
    value: float,
    unit: str,
    peer: str,
    peer_value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Return a figure beside its peer's, with a bound for the ratio."""
    ratio = value / peer_value
    if at_least is not None:
        return Figure(what, value, unit, peer, peer_value, ratio, f"at least {at_least:g}", ratio >= at_least)
    if at_most is not None:
        return Figure(what, value, unit, peer, peer_value, ratio, f"at most {at_most:g}", ratio <= at_most)
    return Figure(what, value, unit, peer, peer_value, ratio)


def beside_reladiff(url: str, db: Session, workspace: Workspace, staging: Staging) -> Iterator[Figure]:
    try:
        theirs = reladiff_seconds(url, db, staging, staging.transform.table.routes[0])
    except ImportError:
        console.print("reladiff is not installed; `uv sync --inexact --group bench` does that")
        return
    ours = verified(db, workspace, [staging], verify_checksums)
    for algorithm, seconds in theirs.items():
        yield beside(
            "etf_updates, checksums",
            ours,
            "s",
            f"reladiff {version('reladiff')}, {algorithm}",
            seconds,
            at_most=1,
        )


Way = Callable[[Session, Workspace, list[Staging]], Verdict]


def verified(db: Session, workspace: Workspace, stagings: list[Staging], way: Way) -> float:
    """Return how long a verification takes, in seconds; it must find nothing."""
    with db.snapshot(read_only=True):
        began = time.perf_counter()
        verdict = way(db, workspace, stagings)
        seconds = time.perf_counter() - began
    if verdict.differing:
        raise SystemExit(f"{verdict.way}: {verdict.differing} rows differ: {verdict.differences[:3]}")
    return seconds


def figures(rows: int, sizes: Sequence[int]) -> Report:
    with database(rows) as url:
        report, most = measure(url, rows)
    memory = {rows: most} | {size: memory_for(size) for size in sizes if size != rows}
    least = min(memory)
    for size, megabytes in sorted(memory.items()):
        of_least = (f"{least:,} rows", memory[least], megabytes / memory[least])
        report.add(
            Figure(f"client memory, {size:,} rows", megabytes, "MB", *(of_least if size > least else ()))
        )
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=MEMORY_SIZES, help="further sizes, for memory"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--copy", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.copy:
        copy(arguments.copy)
    else:
        found = figures(arguments.rows, arguments.memory)
        console.print(found.table)
        if arguments.json:
            found.write(arguments.json)
