"""Rollups say what the rows say, whatever happened to them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

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


def stored(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as db:
        return [tuple(row) for row in db.execute(text(STORED))]


def rebuilt(engine: Engine) -> list[tuple[object, ...]]:
    """Return the rollups as they are made from nothing."""
    with engine.begin() as db:
        db.execute(text("TRUNCATE tracking.tasktrail_rollups, tracking.tasktrail_rollup_state"))
    roll_up(engine)
    return stored(engine)


def histories(engine: Engine) -> list[queries.History]:
    with queries.reading(engine) as db:
        windows = [queries.Window.of(period, queries.server_time(db)) for period in queries.Period]
        return [queries.history(db, JOBS, window) for window in windows]


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as db:
        assert db.execute(text(statement)).rowcount


def sums(found: list[queries.History]) -> list[tuple[int, ...]]:
    return [
        (one.created, one.completed, one.failed, one.cancelled, one.running.count, one.retries.retried)
        for one in found
    ]


def test_history_is_the_same_with_and_without_rollups(upkeep: Upkeep, engine: Engine) -> None:
    before = sums(histories(engine))
    roll_up(engine)

    assert stored(engine)
    assert sums(histories(engine)) == before


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
    roll_up(engine)
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
    roll_up(engine)
    before = sums(histories(engine))

    assert upkeep.tick().pruned > 0

    roll_up(engine, rounds=20)

    assert sums(histories(engine))[2] == before[2]
    upkeep.engines.dispose()


def test_a_clock_that_went_back_leaves_no_gap(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine)
    change(engine, "UPDATE tracking.tasktrail_rollup_state SET rolled_to = rolled_to + interval '3 h'")
    before = sums(histories(engine))
    roll_up(engine, rounds=2)

    assert stored(engine) == rebuilt(engine)
    assert sums(histories(engine)) >= before


def test_maintenance_catches_up_after_it_stood_still(upkeep: Upkeep, engine: Engine) -> None:
    roll_up(engine)
    change(engine, "UPDATE tracking.tasktrail_rollup_state SET rolled_to = rolled_to - interval '1 d'")
    change(engine, "DELETE FROM tracking.tasktrail_rollups WHERE start > now() - interval '1 d'")
    upkeep.maintenance.roll_up()

    found = stored(engine)

    assert found == rebuilt(engine)
