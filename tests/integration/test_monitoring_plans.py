"""No query of the read model looks at a whole tracking table: each uses the index that was made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from conftest import MakeDatabase
from tasktrail import Filter, RetryPolicy, Status, bookkeeping
from tasktrail.fingerprints import group_of
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Source, Window
from tests.support import SCHEMA
from tests.upkeep import all_domains

JOBS = all_domains(RetryPolicy())[0]
ROWS = """
INSERT INTO tracking.job_tracking (
    status, created_at, next_attempt_at, started_at, completed_at, heartbeat_at, worker, error_message,
    payload)
SELECT status, at, at, CASE WHEN status <> 'PENDING' THEN at END,
    CASE WHEN status NOT IN ('PENDING', 'PROCESSING') THEN at + interval '5 s' END,
    CASE status WHEN 'PROCESSING' THEN at END, 'w' || n % 7,
    CASE status WHEN 'FAILED' THEN 'Error' || chr(65 + n % 9) || ': row ' || n END, n % 1000
FROM (
    SELECT n, now() - (40000 - n) * interval '60 s' AS at, CASE WHEN n > 39900 THEN 'PENDING'
        WHEN n > 39850 THEN 'PROCESSING' WHEN n % 50 = 0 THEN 'FAILED' WHEN n % 333 = 0 THEN 'CANCELLED'
        ELSE 'COMPLETED' END AS status
    FROM generate_series(1, 40000) AS n
) AS made
"""
GROUP = group_of("ErrorB: row 1")


@pytest.fixture(scope="module")
def grown(make_database: MakeDatabase, library_template: str) -> Iterator[Engine]:
    """A table of some weeks, with statistics and clean pages, and all rollups made."""
    engine = create_engine(make_database(library_template))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(ROWS))
        db.execute(text("VACUUM (ANALYZE) tracking.job_tracking"))
        for _ in range(30):
            bookkeeping.roll_up(engine, JOBS)
        db.execute(text("VACUUM (ANALYZE) tracking.tasktrail_rollups"))
    yield engine
    engine.dispose()


def in_window(period: str, read: Callable[[Source, Window], object]) -> Callable[[Source], object]:
    return lambda db: read(db, Window.of(period, queries.server_time(db)))


def listed(**chosen: Any) -> Callable[[Source], object]:
    group = chosen.pop("group", None)
    return lambda db: queries.page(db, JOBS, Filter(**chosen), group=group, most=1000)


def some_weeks_ago(db: Source) -> object:
    now = queries.server_time(db)
    chosen = Filter(created_from=now - timedelta(days=21), created_before=now - timedelta(days=20))
    return queries.page(db, JOBS, chosen, most=1000)


READS: dict[str, tuple[Callable[[Source], object], tuple[str, ...]]] = {
    "counts": (
        lambda db: queries.counts(db, JOBS),
        ("idx_job_status", "idx_job_due", "idx_job_ended", "tasktrail_rollups_pkey"),
    ),
    **{
        f"history {period}": (
            in_window(period, lambda db, window: queries.history(db, JOBS, window)),
            ("idx_job_ended", "idx_job_dates", "tasktrail_rollups_pkey"),
        )
        for period in queries.Period
    },
    **{
        f"failures {period}": (
            in_window(period, lambda db, window: queries.failures(db, JOBS, window)),
            ("idx_job_failed", "job_tracking_pkey"),
        )
        for period in queries.Period
    },
    "oldest pending": (lambda db: queries.oldest_pending(db, JOBS), ("idx_job_due",)),
    "stuck": (lambda db: queries.stuck(db, JOBS, lease=60.0), ("idx_job_leased",)),
    "overdue": (lambda db: queries.overdue(db, JOBS, bound=60.0), ("idx_job_due",)),
    "workers": (lambda db: queries.workers(db, [JOBS]), ("idx_job_ended",)),
    "details": (lambda db: queries.details(db, JOBS, 700, schema=SCHEMA), ("job_tracking_pkey",)),
    "list of all": (listed(), ("job_tracking_pkey",)),
    **{f"list of {state}": (listed(states=[state]), ()) for state in Status},
    "list of two states": (listed(states=[Status.FAILED, Status.CANCELLED]), ("idx_job_status",)),
    "list of stopped rows": (listed(states=[Status.CANCELLED]), ("idx_job_stopped", "job_tracking_pkey")),
    "list of a group": (listed(group=GROUP), ("idx_job_failure_group", "job_tracking_pkey")),
    "list of a time": (some_weeks_ago, ("idx_job_dates",)),
    "list by an error": (listed(error="row 12"), ("job_tracking_pkey",)),
    "list by a field": (listed(fields={"payload": "77"}), ("job_tracking_pkey",)),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_uses_its_index(grown: Engine, name: str) -> None:
    read, indexes = READS[name]
    with queries.reading(grown) as db:
        assert isinstance(db, Connection)
        plans = plans_of(db, read)

    assert "Seq Scan on job_tracking" not in plans.replace("Parallel ", "")
    assert [index for index in indexes if index not in plans] == []


def plans_of(db: Connection, read: Callable[[Source], object]) -> str:
    """Return the plans of all statements of a read, as they are planned for its values."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(db, "before_cursor_execute", note)
    read(db)
    event.remove(db, "before_cursor_execute", note)
    cursor = db.connection.cursor()
    lines: list[str] = []
    for statement, parameters in seen:
        cursor.execute(f"EXPLAIN {statement}", parameters)
        lines += [line for (line,) in cursor.fetchall()]
    return "\n".join(lines)
