"""Rollups say what the rows say, whatever happened to them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tasktrail import RetryPolicy, bookkeeping
from tasktrail.monitoring import queries
from tests.upkeep import Upkeep, all_domains

JOBS = all_domains(RetryPolicy())[0]
ROWS = """
INSERT INTO tracking.job_tracking (status, created_at, next_attempt_at, started_at, completed_at, attempts)
SELECT (ARRAY['COMPLETED', 'COMPLETED', 'FAILED', 'CANCELLED'])[1 + n % 4], ended - interval '3 s',
    ended - interval '2 s', ended - n * interval '1 ms', ended, n % 3
FROM generate_series(1, :rows) AS n, LATERAL (SELECT now() - n * interval '97 s' AS ended) AS times
"""
STORED = "SELECT * FROM tracking.tasktrail_rollups ORDER BY domain, width, start, event"


@pytest.fixture
def upkeep(database_url: str, engine: Engine) -> Iterator[Upkeep]:
    upkeep = Upkeep(database_url)
    with engine.begin() as db:
        db.execute(text(ROWS), {"rows": 2000})
    yield upkeep
    upkeep.engines.dispose()


def roll_up(engine: Engine, rounds: int = 1) -> None:
    for _ in range(rounds):
        bookkeeping.roll_up(engine, JOBS)


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as db:
        return [tuple(row) for row in db.execute(text(STORED))]


def rebuilt(engine: Engine) -> list[tuple[Any, ...]]:
    """Return the rollups as they are made from nothing, as far as they had come; time goes on meanwhile."""
    with engine.begin() as db:
        end: datetime = db.execute(
            text("SELECT rolled_to FROM tracking.tasktrail_rollup_state WHERE domain = 'job'")
        ).scalar_one()
        db.execute(text("TRUNCATE tracking.tasktrail_rollups, tracking.tasktrail_rollup_state"))
    roll_up(engine, rounds=10)
    return [row for row in stored(engine) if row[2] + timedelta(seconds=row[1]) <= end]


def windows(engine: Engine) -> list[queries.Window]:
    with queries.reading(engine) as db:
        return [queries.Window.of(period, queries.server_time(db)) for period in queries.Period]


def histories(engine: Engine, of: list[queries.Window]) -> list[queries.History]:
    with queries.reading(engine) as db:
        return [queries.history(db, JOBS, window) for window in of]


def counts(engine: Engine) -> queries.StateCounts:
    with queries.reading(engine) as db:
        return queries.counts(db, JOBS)


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as db:
        assert db.execute(text(statement)).rowcount


def sums(found: list[queries.History]) -> list[tuple[int, ...]]:
    return [
        (one.created, one.completed, one.failed, one.cancelled, one.running.count, one.retries.retried)
        for one in found
    ]


def test_history_is_the_same_with_and_without_rollups(upkeep: Upkeep, engine: Engine) -> None:
    same = windows(engine)
    before, counted = sums(histories(engine, same)), counts(engine)
    roll_up(engine, rounds=10)

    assert stored(engine)
    assert sums(histories(engine, same)) == before
    assert counts(engine) == counted


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE tracking.job_tracking SET status = 'PENDING', completed_at = NULL
        WHERE status = 'FAILED' AND id % 5 = 0""",
        "DELETE FROM tracking.job_tracking WHERE id % 7 = 0",
        """INSERT INTO tracking.job_tracking (status, created_at, started_at, completed_at)
        VALUES ('COMPLETED', now() - interval '90 d', now() - interval '90 d', now() - interval '1 d')""",
        "UPDATE tracking.job_tracking SET completed_at = completed_at + interval '1 h' WHERE id % 9 = 0",
    ],
    ids=["retried", "deleted", "migrated", "clock moved"],
)
def test_what_changes_in_the_past_is_rolled_up_again(upkeep: Upkeep, engine: Engine, statement: str) -> None:
    roll_up(engine, rounds=10)
    change(engine, statement)
    roll_up(engine, rounds=20)

    assert stored(engine) == rebuilt(engine)


def test_a_round_with_nothing_new_writes_nothing(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine, rounds=3)
    versions = (
        "SELECT domain, width, start, event, xmin::text FROM tracking.tasktrail_rollups ORDER BY 1,2,3,4"
    )
    with engine.connect() as db:
        before = db.execute(text(versions)).all()
    roll_up(engine, rounds=3)

    with engine.connect() as db:
        assert set(before) <= set(db.execute(text(versions)).all())


def test_pruned_rows_stay_in_history(database_url: str, engine: Engine) -> None:
    upkeep = Upkeep(database_url, retention=1.0)
    with engine.begin() as db:
        db.execute(text(ROWS), {"rows": 2000})
    roll_up(engine, rounds=10)
    same = windows(engine)
    before = sums(histories(engine, same))

    assert upkeep.prune() > 0

    roll_up(engine, rounds=20)

    assert sums(histories(engine, same))[2] == before[2]
    with engine.connect() as db:
        rows = db.execute(text("SELECT status, count(*) FROM tracking.job_tracking GROUP BY 1"))
        by_state = {str(status): count for status, count in rows}
    assert {state: rows for state, rows in counts(engine).by_state.items() if rows} == by_state
    upkeep.engines.dispose()


def test_a_clock_that_went_back_leaves_no_gap(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine)
    change(engine, "UPDATE tracking.tasktrail_rollup_state SET rolled_to = rolled_to + interval '3 h'")
    same = windows(engine)
    before = sums(histories(engine, same))
    roll_up(engine, rounds=2)

    assert stored(engine) == rebuilt(engine)
    assert sums(histories(engine, same)) >= before


def test_maintenance_catches_up_after_it_stood_still(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine)
    change(engine, "UPDATE tracking.tasktrail_rollup_state SET rolled_to = rolled_to - interval '1 d'")
    change(engine, "DELETE FROM tracking.tasktrail_rollups WHERE start > now() - interval '1 d'")
    for _ in range(10):
        upkeep.maintenance.roll_up()

    found = stored(engine)

    assert found == rebuilt(engine)


def test_old_rollups_go_when_their_rows_are_gone(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine, rounds=10)
    age = "UPDATE tracking.tasktrail_rollups SET start = start - interval '{}' WHERE width = {}"
    for interval, width in (("33 d", 60), ("33 d", 900), ("33 d", 21600), ("401 d", 86400)):
        change(engine, age.format(interval, width))

    with engine.begin() as db:
        assert bookkeeping.prune(db, JOBS) == 0  # no row was pruned, so all can be made again
        bookkeeping.note_pruned(db, JOBS, 0.0)
        assert bookkeeping.prune(db, JOBS) > 0

    assert {row[1] for row in stored(engine)} == {21600}
