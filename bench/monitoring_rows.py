"""Millions of tracking rows, built in bulk: four domains, thirty days, mostly COMPLETED."""

from __future__ import annotations

from typing import Any, Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, Integer, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, DropIndex

from tasktrail import BaseTaskTracking, BaseTaskTrackingService, TrackingOptions
from tasktrail.guards import Model, table_of
from tasktrail.registry import Domain
from tasktrail.schema import VERSIONS

SCHEMA: Final = "tracking"


class Base(DeclarativeBase):
    """The tables of the benchmark."""


def _domain(name: str) -> Domain:
    columns: dict[str, Any] = {
        "__tablename__": f"{name}_tracking",
        "__tracking__": TrackingOptions(domain=name, schema=SCHEMA),
        "__annotations__": {"customer": Mapped[int], "source": Mapped[str]},
        "customer": mapped_column(Integer),
        "source": mapped_column(String(20)),
    }
    model = type(f"{name.title()}Tracking", (BaseTaskTracking, Base), columns)
    service = type(f"{name.title()}Service", (BaseTaskTrackingService,), {"model": model})
    return Domain(name=name, model=model, service=service, schema=SCHEMA)


SHARES: Final = {"price": 0.6, "rate": 0.25, "report": 0.12, "delivery": 0.03}
"""The domains, and which part of all rows each of them has."""

DOMAINS: Final = tuple(_domain(name) for name in SHARES)

ROWS: Final = """
INSERT INTO {table} (customer, source, status, created_at, updated_at, next_attempt_at, started_at,
    completed_at, error_message, attempts, celery_task_id, heartbeat_at, worker, dispatched_at, attempt_log)
SELECT n % 5000, (ARRAY['api', 'schedule', 'import'])[1 + n % 3], status, created_at,
    coalesce(completed_at, created_at), created_at, started_at, completed_at, error,
    CASE status WHEN 'FAILED' THEN 3 WHEN 'COMPLETED' THEN (luck * 100000)::int % 33 / 32 ELSE 0 END,
    md5(n::text)::uuid::text, CASE status WHEN 'PROCESSING' THEN now() END,
    CASE WHEN started_at IS NOT NULL THEN 'celery@worker-' || n % 12 || '/ForkPoolWorker-' || n % 8 END,
    created_at,
    CASE WHEN error IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
        'number', 1, 'start', started_at, 'end', completed_at, 'outcome', 'error', 'error', error,
        'worker', 'celery@worker-1')) END
FROM (
    SELECT n, luck, status, created_at,
        CASE WHEN status <> 'PENDING' THEN created_at + wait END AS started_at,
        CASE WHEN status IN ('COMPLETED', 'FAILED', 'CANCELLED')
            THEN created_at + wait + run END AS completed_at,
        CASE status WHEN 'FAILED' THEN CASE (400 * power(random(), 4))::int % 5
            WHEN 0 THEN 'TimeoutError: no answer from https://source-' || kind || '.example within 30 s'
            WHEN 1 THEN 'ValueError: row ' || n || ' of ''batch-' || n % 97 || ''' has no price, rule '
                || chr(65 + kind % 26)
            WHEN 2 THEN 'ConnectionError: ' || md5(n::text) || ' was refused by ' || repeat('x', kind % 40)
            WHEN 3 THEN 'KeyError: "currency ' || kind || '" at ' || created_at
            ELSE 'LeaseExpired: no heartbeat for 60 s' END END AS error
    FROM (
        SELECT n, luck, wait, run, (50 * power(random(), 3))::int AS kind, created_at,
            CASE WHEN n > {rows} - {waiting} THEN 'PENDING'
                WHEN n > {rows} - {waiting} - {running} THEN 'PROCESSING'
                WHEN luck < 0.015 THEN 'FAILED' WHEN luck < 0.018 THEN 'CANCELLED'
                ELSE 'COMPLETED' END AS status
        FROM (
            SELECT n, random() AS luck, random() * interval '20 s' AS wait,
                exp(6 * random()) * interval '0.1 s' AS run,
                now() - interval '60 s' - ({rows} - n) * (interval '30 d' / {rows}) AS created_at
            FROM generate_series(1, {rows}) AS n
        ) AS drawn
    ) AS judged
) AS told
"""


def create_tables(engine: Engine) -> None:
    """Create the library's tables and those of the domains."""
    with engine.begin() as db:
        operations = Operations(MigrationContext.configure(db))
        for version in VERSIONS:
            version.upgrade(operations, schema=SCHEMA)
        Base.metadata.create_all(db)


def fill(engine: Engine, rows: int) -> None:
    """Give each domain its part of so many rows, vacuumed and analysed as a table at work is."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text("SET maintenance_work_mem = '1GB'"))
        for domain in DOMAINS:
            _fill(db, domain.model, round(rows * SHARES[domain.name]))
        db.execute(text("CHECKPOINT"))


def _fill(db: Any, model: Model, rows: int) -> None:
    table = table_of(model)
    numbers = {"rows": rows, "waiting": max(10, rows // 40_000), "running": min(200, max(5, rows // 40_000))}
    for index in table.indexes:
        db.execute(DropIndex(index))
    db.execute(text(ROWS.format(table=table.fullname, **numbers)))
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        db.execute(CreateIndex(index))
    db.execute(text(f"VACUUM (ANALYZE) {table.fullname}"))
