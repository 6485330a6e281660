"""The copy of legacy rows, against one raw INSERT ... SELECT and a loop over the rows, and its verification.

All of it runs on one embedded PostgreSQL in one run. Rows are those of the portfolio's legacy tables.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from rich.console import Console
from sqlalchemy import create_engine

from portfolio.database import upgrade
from portfolio.legacy.plan import PLAN
from portfolio.models import TRACKING_SCHEMA
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.engines import Engines
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.groups import ranked
from tasktrail.migration.names import listed, qualified
from tasktrail.migration.plan import Mapped
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.verify import Verdict, verify_account, verify_checksums
from tasktrail.migration.witness import verify_twins
from tasktrail.migration.workspace import Workspace
from tasktrail.settings import sqlalchemy_url

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
LOOP = 2_000
"""Rows that the loop is given; its rate does not depend on how many there are."""

console = Console()


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def raw_copy(db: Session, stagings: list[Staging]) -> None:
    """One INSERT ... SELECT of the same transform for each target, without a ledger."""
    for staging in stagings:
        for route in staging.transform.table.routes:
            rows = staging.transform.rows(route, f"{staging.transform.source} s")
            newest = ranked(staging.transform.table, route, f"({rows}) st", "_reason IS NULL")
            names = listed(list(route.columns))
            db.run(
                f"INSERT INTO {qualified(route.target)} ({names}, next_attempt_at) "
                f"SELECT {names}, NULL FROM ({newest}) newest WHERE _place = 1"
            )


def loop_copy(url: str) -> float:
    """Rows a second of a loop: read a row, map it in Python, insert it, commit."""
    route = PLAN.table("etf_updates").routes[0]
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            f"SELECT *, TRUE AS etf_exists FROM etf_updates ORDER BY id LIMIT {LOOP}".encode()
        )
        names = [column.name for column in rows.description or ()]
        legacy = [dict(zip(names, row, strict=True)) for row in rows]
        columns = listed(list(route.columns))
        places = ", ".join(f"%({name})s" for name in route.columns)
        insert = f"INSERT INTO {route.target} ({columns}) VALUES ({places})".encode()
        began = time.perf_counter()
        for row in legacy:
            made = route.twin(row)
            if isinstance(made, Mapped):
                connection.execute(insert, dict(made.values))
        return len(legacy) / (time.perf_counter() - began)


def raw_checksum(db: Session, stagings: list[Staging]) -> None:
    """Read both sides and add up a checksum of each row; says whether they are equal, not where."""
    for staging in stagings:
        for route in staging.transform.table.routes:
            rows = staging.transform.rows(route, f"{staging.transform.source} s")
            names = listed(list(route.columns))
            for side in (f"({rows}) side WHERE _reason IS NULL", qualified(route.target)):
                db.value(f"SELECT sum(hashtext(ROW({names})::text)) FROM {side}")


def empty_targets(db: Session, stagings: list[Staging]) -> None:
    targets = [qualified(route.target) for staging in stagings for route in staging.transform.table.routes]
    db.run(f"TRUNCATE {', '.join(targets)}")
    db.run("CHECKPOINT")


def figures(rows: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        try:
            measure(server.url, rows)
        finally:
            server.stop("immediate")


def measure(url: str, rows: int) -> None:
    engine = create_engine(sqlalchemy_url(url))
    upgrade(engine)
    engine.dispose()
    workspace = Workspace(PLAN, Engines(url), TRACKING_SCHEMA)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ROWS.format(rows=rows).encode())
    with workspace.session("bench") as db:
        stagings = workspace.stagings(db)
        runner = Runner(workspace, db)
        dry = timed(lambda: (runner.plan(), runner.expand()))
        empty_targets(db, stagings)
        raw = timed(lambda: raw_copy(db, stagings))
        empty_targets(db, stagings)
        loop = loop_copy(url)
        empty_targets(db, stagings)
        runner.sync()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        copy = timed(lambda: runner.backfill(Backfill(workspace)))
        checksum = timed(lambda: raw_checksum(db, stagings))
        ways: list[Callable[[Session, Workspace, list[Staging]], Verdict]] = [
            verify_account, verify_checksums, verify_twins
        ]  # fmt: skip
        seconds = []
        for way in ways:
            with db.snapshot(read_only=True):
                seconds.append(timed(lambda way=way: clean(way(db, workspace, stagings))))  # type: ignore[misc]
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        console.print(f"{rows} rows, PostgreSQL {db.connection.info.server_version // 10_000}, durable")
        console.print(f"dry run and expand      {dry:8.1f} s")
        console.print(f"raw INSERT ... SELECT   {raw:8.1f} s")
        console.print(
            f"backfill with ledger    {copy:8.1f} s   {raw / copy:.2f} of raw, {rows / copy:.0f} rows/s"
        )
        console.print(
            f"loop over the rows               {loop:.0f} rows/s; "
            f"backfill is {rows / copy / loop:.1f} times as fast"
        )
        console.print(f"raw checksums           {checksum:8.1f} s")
        for way, took in zip(("account", "checksum", "twin"), seconds, strict=True):
            console.print(f"verify: {way:<15} {took:8.1f} s   {took / checksum:.2f} of raw checksums")
        console.print(f"client memory           {before / 1024:8.1f} MB before, {after / 1024:.1f} MB after")


def clean(verdict: Verdict) -> None:
    if verdict.differing:
        raise SystemExit(f"{verdict.way}: {verdict.differing} rows differ: {verdict.differences[:3]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    figures(parser.parse_args().rows)
