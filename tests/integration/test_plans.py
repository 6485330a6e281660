"""Statements on rows by their ids keep to the primary key, whatever the statistics say (ADR 19)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from conftest import MakeDatabase
from tasktrail import Status, statements, sweeps
from tasktrail.guards import in_state, table_of, this_row
from tests.support import JobTracking

NOW = datetime(2026, 11, 1, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "_row_id": 25_000,
    "_ids": [25_000, 25_001],
    "_fence_attempts": 0,
    "_fence_celery_task_id": "task 1",
    "_fence_started_at": NOW,
    "_fence_ids": [25_000],
    "_fence_celery_task_ids": ["task 1"],
    "_fence_started_ats": [NOW],
    "_grant": 1,
    "_delay": 1.0,
    "_marked_at": NOW,
}
BY_ID: dict[str, Callable[[], Any]] = {
    "mark_dispatched_if_pending": lambda: statements.mark_dispatched_if_pending(JobTracking),
    "claim_if_pending_and_due": lambda: statements.claim_if_pending_and_due(JobTracking),
    "heartbeat_if_owned": lambda: statements.heartbeat_if_owned(JobTracking),
    "progress_if_owned": lambda: statements.progress_if_owned(JobTracking),
    "record_if_owned": lambda: statements.record_if_owned(JobTracking, ("payload",)),
    "complete_if_owned": lambda: statements.complete_if_owned(JobTracking),
    "fail_if_owned": lambda: statements.fail_if_owned(JobTracking),
    "retry_later_if_owned": lambda: statements.retry_later_if_owned(JobTracking),
    "release_if_owned": lambda: statements.release_if_owned(JobTracking),
    "cancel_if_active": lambda: statements.cancel_if_active(JobTracking),
    "revive_if_ended": lambda: statements.revive_if_ended(JobTracking),
    **{
        f"move_if_allowed to {status}": lambda status=status: statements.move_if_allowed(JobTracking, status)
        for status in Status
    },
    "forget_dispatch_if_unchanged": lambda: sweeps.forget_dispatch_if_unchanged(JobTracking),
    "renew_leases_if_owned": lambda: sweeps.renew_leases_if_owned(JobTracking),
    "cancel_if_held": lambda: sweeps.cancel_if_held(JobTracking),
}


@pytest.fixture(scope="module")
def backlog(make_database: MakeDatabase, library_template: str) -> Iterator[Engine]:
    """A backlog of PENDING rows in a table whose statistics know of none, as after a quiet night."""
    engine = create_engine(make_database(library_template))
    add = "INSERT INTO tracking.job_tracking (status) SELECT '{}' FROM generate_series(1, 20000)"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        for statement in (
            "ALTER TABLE tracking.job_tracking SET (autovacuum_enabled = off)",
            add.format("COMPLETED"),
            "VACUUM ANALYZE tracking.job_tracking",
            add.format("PENDING"),
        ):
            db.execute(text(statement))
    yield engine
    engine.dispose()


def plan(engine: Engine, statement: Any) -> str:
    """Return how the server would run a statement with ``VALUES``."""
    compiled = statement.compile(dialect=PGDialect_psycopg())
    values = {name: VALUES.get(name, compiled.params[name]) for name in compiled.params}
    if "_fence_ids" in values:
        values["_fence_attempts"] = [0]
    with engine.begin() as db:
        return "\n".join(db.exec_driver_sql(f"EXPLAIN {compiled}", values).scalars())


@pytest.mark.parametrize("name", BY_ID)
def test_a_statement_by_id_uses_the_primary_key(backlog: Engine, name: str) -> None:
    found = plan(backlog, BY_ID[name]())

    assert "job_tracking_pkey" in found, found
    assert "idx_job" not in found, found


def test_the_same_guard_on_the_plain_column_reads_the_rows_of_a_state(backlog: Engine) -> None:
    table = table_of(JobTracking)
    naive = table.update().where(this_row(table), in_state(table, Status.PENDING)).values(attempts=1)

    assert "idx_job_" in plan(backlog, naive)


def test_every_statement_by_id_is_looked_at() -> None:
    names = [name for name in vars(statements) if re.match(r"(?!_|insert)[a-z_]+_if_", name)]

    assert [name for name in names if not any(known.startswith(name) for known in BY_ID)] == []
