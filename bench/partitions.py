"""What a table in partitions costs each job, and what it saves when old rows go.

Run it as ``.venv/bin/python -m bench.partitions [--rows N] [--old N] [--rounds N]``. Two domains differ in
nothing but ``partition_days``; one is spread over 38 partitions. In every round each of them gets new rows,
and who goes first alternates. Then a day of a table of a million rows leaves it: row by row as
maintenance does it, by one DELETE, and with its partition. Takes up to 3 minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from rich.table import Table
from sqlalchemy import Engine, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.stand import SCHEMA, console, environment, stand
from tasktrail import BaseTaskTracking, NaturalKey, TrackingOptions, tracker
from tasktrail.engines import Engines
from tasktrail.guards import table_of
from tasktrail.partitioning import first_id
from tasktrail.partitions import attach, make_ahead, today
from tasktrail.registry import Domain
from tasktrail.retention import PartitionKeeper, prune_rows
from tasktrail.schema import VERSIONS

BATCH = 500
DAYS = 30
"""Partitions of the past, beside those that are made ahead."""
OLD_DAYS = 10
"""Days that the rows which grow old are spread over."""


class Base(DeclarativeBase):
    """The tables of this benchmark."""


class PlainTracking(BaseTaskTracking, Base):
    """In one piece."""

    __tablename__ = "plain_tracking"
    __tracking__ = TrackingOptions(
        domain="plain", schema=SCHEMA, natural_key=NaturalKey(("customer_id",), "uq_plain")
    )

    customer_id: Mapped[int]
    format: Mapped[str] = mapped_column(String(10))


class SplitTracking(BaseTaskTracking, Base):
    """In partitions of a day."""

    __tablename__ = "split_tracking"
    __tracking__ = TrackingOptions(
        domain="split", schema=SCHEMA, natural_key=NaturalKey(("customer_id",), "uq_split"), partition_days=1
    )

    customer_id: Mapped[int]
    format: Mapped[str] = mapped_column(String(10))


class LooseTracking(BaseTaskTracking, Base):
    """In partitions of a day, without a natural key."""

    __tablename__ = "loose_tracking"
    __tracking__ = TrackingOptions(domain="loose", schema=SCHEMA, partition_days=1)

    customer_id: Mapped[int]
    format: Mapped[str] = mapped_column(String(10))


PLAIN, SPLIT, LOOSE = MODELS = (PlainTracking, SplitTracking, LooseTracking)
Model = type[BaseTaskTracking]
_customers = count(10_000_000)


def make_tables(engine: Engine) -> None:
    """Make the tables, with a partition for each day of the past and of the next week."""
    with engine.begin() as db:
        Base.metadata.create_all(db)
        now = today(db)
        for model in (SPLIT, LOOSE):
            for day in range(now - DAYS, now):
                attach(db, table_of(model), first_id(day), first_id(day + 1))
            make_ahead(db, model)


def fields(rows: int) -> list[dict[str, Any]]:
    """Return the fields of new rows."""
    return [{"customer_id": next(_customers), "format": "pdf"} for _ in range(rows)]


def enqueue(engines: Engines, model: Model, rows: int) -> float:
    """Return the seconds of adding rows one by one."""
    new = fields(rows)
    began = time.perf_counter()
    for row in new:
        with engines.pooled() as db:
            tracker.create(db, model, row)
    return time.perf_counter() - began


def enqueue_many(engines: Engines, model: Model, rows: int) -> float:
    """Return the seconds of adding ten times as many rows in batches."""
    batches = [fields(BATCH) for _ in range(10 * rows // BATCH)]
    began = time.perf_counter()
    for batch in batches:
        with engines.pooled() as db:
            tracker.create_many(db, model, batch)
    return time.perf_counter() - began


def claim_and_complete(engines: Engines, model: Model, rows: int) -> float:
    """Return the seconds of claiming and completing rows one by one."""
    with engines.sync.begin() as db:
        ids = [row.id for row in tracker.create_many(db, model, fields(rows))]
    began = time.perf_counter()
    for tracking_id in ids:
        with engines.kept("relaxed") as db:
            fence = tracker.claim(db, model, tracking_id, celery_task_id="task", worker="bench").fence
        with engines.kept() as db:
            tracker.complete(db, model, fence)
    return time.perf_counter() - began


STEPS: dict[str, Callable[[Engines, Model, int], float]] = {
    "enqueue": enqueue,
    "enqueue_many": enqueue_many,
    "claim and complete": claim_and_complete,
}


def compare(engines: Engines, rows: int, rounds: int) -> Table:
    """Measure each step on both tables, in turns."""
    table = Table("step", "one piece", "partitions", "ratio", "from - to", title="rows per second")
    for name, step in STEPS.items():
        size = rows * (10 if step is enqueue_many else 1)
        for model in (PLAIN, SPLIT):
            step(engines, model, rows // 2)  # plans and connections are made
        taken: dict[Model, list[float]] = {PLAIN: [], SPLIT: []}
        for at in range(rounds):
            for model in (PLAIN, SPLIT) if at % 2 else (SPLIT, PLAIN):
                taken[model].append(step(engines, model, rows))
        ratios = [plain / split for plain, split in zip(taken[PLAIN], taken[SPLIT], strict=True)]
        speeds = (f"{size / median(taken[model]):,.0f}" for model in (PLAIN, SPLIT))
        table.add_row(name, *speeds, f"{median(ratios):.2f}", f"{min(ratios):.2f} - {max(ratios):.2f}")
    return table


def grow_old(engine: Engine, model: Model, rows: int) -> None:
    """Fill a table with completed rows of the past, the oldest of which are past their retention."""
    table = table_of(model).fullname
    is_split = model.__tracking__.partition_days is not None
    numbered = "id, " if is_split else ""
    number = "(CAST(:today - :age AS bigint) << 36) | n, " if is_split else ""
    with engine.begin() as db:
        now = today(db)
        for at in range(OLD_DAYS):
            age, share = DAYS - at, rows // OLD_DAYS
            db.execute(
                text(
                    f"INSERT INTO {table} ({numbered}customer_id, format, status, attempts, created_at,"
                    " started_at, completed_at, celery_task_id)"
                    f" SELECT {number}n + :from, 'pdf', 'COMPLETED', 0, moment, moment, moment,"
                    " gen_random_uuid() FROM generate_series(1, :share) AS n,"
                    " LATERAL (SELECT to_timestamp(86400 * (:today - :age) + n * 86400.0 / (:share + 1)))"
                    " AS made (moment)"
                ),
                {"from": at * share, "share": share, "age": age, "today": now},
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(f"VACUUM ANALYZE {table}"))


def leave(engines: Engines, rows: int) -> Table:
    """Measure how the oldest day leaves a table."""
    engine = engines.sync
    table = Table("way", "rows", "seconds", "ratio", title=f"a day leaves a table of {rows:,} rows")
    domains = {
        model: Domain(name=model.__tracking__.domain, model=model, service=object, schema=SCHEMA)
        for model in MODELS
    }
    for model in MODELS:
        grow_old(engine, model, rows)
    with engine.connect() as db:
        edge = today(db) - DAYS + 1
    seconds = f"extract(epoch FROM now()) - {edge} * 86400.0"
    with engine.connect() as db:
        retention = float(db.execute(text(f"SELECT {seconds}")).scalar_one())
    found: list[tuple[str, int, float]] = []

    began = time.perf_counter()
    gone = prune_rows(engine, domains[PLAIN], retention, batch=BATCH, batches=rows)
    found.append(("row by row, as maintenance does", gone, time.perf_counter() - began))
    for model, way in ((SPLIT, "partition, with natural keys"), (LOOSE, "partition, without")):
        keeper = PartitionKeeper(engines)
        began = time.perf_counter()
        gone, _ = keeper.keep(domains[model], retention)
        found.append((way, gone, time.perf_counter() - began))
    began = time.perf_counter()
    with engine.begin() as db:
        delete = (
            f"DELETE FROM {table_of(PLAIN).fullname} WHERE created_at < to_timestamp({edge + 1} * 86400.0)"
        )
        gone = db.execute(text(delete)).rowcount
    found.insert(1, ("one DELETE", gone, time.perf_counter() - began))
    for way, gone, took in found:
        table.add_row(way, f"{gone:,}", f"{took:.2f}", f"{found[0][2] / took:.1f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500, help="rows of each step of each round")
    parser.add_argument("--old", type=int, default=1_000_000, help="rows of the table that a day leaves")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with stand() as there:
        engines = there.trail.engines
        with engines.sync.begin() as db:
            operations = Operations(MigrationContext.configure(db))
            for version in VERSIONS[3:]:  # the stand has the first three
                version.upgrade(operations, schema=SCHEMA)
        make_tables(engines.sync)
        for name, value in environment(there.database_url).items():
            console.print(f"{name}: {value}")
        console.print(compare(engines, options.rows, options.rounds))
        console.print(leave(engines, options.old))


if __name__ == "__main__":
    main()
