"""The set-based writes, each on its own: whom they take, what they leave to others, and what they write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from tasktrail import RetryPolicy, Status, sweeps, tracker
from tasktrail.library import library
from tests.partitioned import partition_jobs
from tests.rows import add_job, add_job_in, claim, columns
from tests.support import SCHEMA, JobTracking, OrderTracking
from tests.upkeep import shift

DAY = 24 * 3600
POLICY: dict[str, Any] = {
    "batch": 500,
    "lease": 60,
    "base": 60,
    "factor": 2,
    "cap": 3600,
    "exponent_limit": 100,
    "jitter": False,
    "gives_up": False,
    "error": "LeaseExpired: silent",
}


@pytest.fixture(params=["in one piece", "in partitions"])
def database_url(
    request: pytest.FixtureRequest, make_database: Callable[..., str], library_template: str
) -> str:
    """A fresh database, in which the table of the jobs may be a partitioned one."""
    url = make_database(library_template)
    if request.param == "in partitions":
        partition_jobs(url)
    return url


def take(db: Connection, batch: int = 500) -> list[int]:
    statement = sweeps.take_due_for_dispatch(JobTracking)
    return [row.id for row in db.execute(statement, {"_batch": batch, "_redispatch_after": 60})]


def rescue(db: Connection, batch: int = 500, **policy: Any) -> list[int]:
    statement = sweeps.rescue_if_lease_expired(JobTracking)
    parameters = {f"_{name}": value for name, value in {**POLICY, "batch": batch, **policy}.items()}
    return [row.id for row in db.execute(statement, parameters)]


def prune(db: Connection, batch: int = 500) -> list[int]:
    statement = sweeps.prune_if_ended(JobTracking, SCHEMA)
    return list(db.scalars(statement, {"_batch": batch, "_retention": 30 * DAY}))


def cancel(db: Connection, batch: int = 500) -> list[int]:
    statement = sweeps.cancel_batch_if_active(JobTracking, [])
    return list(db.scalars(statement, {"_batch": batch, "_error": "nobody wants it"}))


def revive(db: Connection, batch: int = 500) -> list[int]:
    statement = sweeps.revive_batch_if_ended(JobTracking, [])
    return [row.id for row in db.execute(statement, {"_batch": batch, "_grant": 3})]


def add_due(engine: Engine) -> int:
    job = add_job(engine)
    shift(engine, -60, "next_attempt_at", ids=[job])
    return job


def add_lost(engine: Engine) -> int:
    job = add_job_in(engine, Status.PROCESSING)
    shift(engine, -61, "heartbeat_at", ids=[job])
    return job


def add_old(engine: Engine) -> int:
    job = add_job_in(engine, Status.COMPLETED)
    shift(engine, -31 * DAY, "created_at", "completed_at", ids=[job])
    return job


SWEEPS: dict[str, tuple[Callable[[Engine], int], Callable[..., list[int]]]] = {
    "dispatch": (add_due, take),
    "rescue": (add_lost, rescue),
    "prune": (add_old, prune),
    "cancel": (add_job, cancel),
    "revive": (lambda engine: add_job_in(engine, Status.FAILED), revive),
}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_takes_no_more_than_a_batch_and_the_oldest_first(engine: Engine, sweep: str) -> None:
    add, run = SWEEPS[sweep]
    jobs = [add(engine) for _ in range(5)]

    batches = []
    for _ in range(4):
        with engine.begin() as db:
            batches.append(sorted(run(db, batch=2)))

    assert batches == [jobs[:2], jobs[2:4], jobs[4:], []]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_leaves_a_row_that_somebody_else_writes_and_does_not_wait(engine: Engine, sweep: str) -> None:
    add, run = SWEEPS[sweep]
    locked, free = add(engine), add(engine)

    with engine.begin() as other, engine.begin() as db:
        other.execute(text("SELECT FROM tracking.job_tracking WHERE id = :id FOR UPDATE"), {"id": locked})
        db.execute(text("SET LOCAL lock_timeout = 1000"))
        taken = run(db)

    assert taken == [free]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_of_two_sweeps_at_once_the_second_finds_nothing_even_before_the_first_commits(
    engine: Engine, sweep: str
) -> None:
    add, run = SWEEPS[sweep]
    jobs = [add(engine) for _ in range(3)]

    with engine.begin() as second, engine.begin() as first:
        taken = (run(first), run(second))
    with engine.begin() as third:
        later = run(third)

    assert (sorted(taken[0]), taken[1], later) == (jobs, [], [])


# Dispatch


def test_a_row_that_was_dispatched_before_it_was_due_counts_from_its_due_time(engine: Engine) -> None:
    """An ETA message waits in the broker until then."""
    job = add_job(engine)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
    shift(engine, -600, "dispatched_at", ids=[job])
    shift(engine, -30, "next_attempt_at", ids=[job])

    with engine.begin() as db:
        early = take(db)
    shift(engine, -40, "next_attempt_at", ids=[job])
    with engine.begin() as db:
        late = take(db)

    assert (early, late) == ([], [job])


def test_a_mark_is_taken_back_only_from_a_row_that_nobody_marked_again(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        take(db)
    marked_at = columns(engine, job)["dispatched_at"]
    forget = sweeps.forget_dispatch_if_unchanged(JobTracking)

    with engine.begin() as db:
        other = db.execute(forget, {"_row_id": job, "_marked_at": marked_at - timedelta(seconds=1)}).all()
        same = db.execute(forget, {"_row_id": job, "_marked_at": marked_at}).all()

    assert (len(other), len(same)) == (0, 1)
    assert columns(engine, job)["dispatched_at"] is None


# Rescue


@pytest.mark.parametrize(
    ("attempts", "policy", "seconds"),
    [
        (0, {}, 60),
        (1, {}, 120),
        (3, {}, 480),
        (50, {}, 3600),
        (0, {"base": 0}, 0),
        (9, {"base": 0}, 0),
        (4, {"factor": 1}, 60),
        (2, {"base": 10, "factor": 10}, 1000),
        (2000, {"factor": 10}, 3600),
    ],
)
def test_a_rescued_row_waits_as_long_as_its_policy_says(
    engine: Engine, attempts: int, policy: dict[str, Any], seconds: float
) -> None:
    job = add_job(engine, max_attempts=3000)
    with engine.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET attempts = :n"), {"n": attempts})
    claim(engine, job)
    shift(engine, -61, "heartbeat_at", ids=[job])

    with engine.begin() as db:
        rescue(db, **policy)

    row = columns(engine, job)
    python = RetryPolicy(**{name: {**POLICY, **policy}[name] for name in ("base", "factor", "cap")})
    assert python.delay(attempts) == seconds
    assert (row["next_attempt_at"] - row["updated_at"]).total_seconds() == pytest.approx(seconds, abs=1)


def test_jitter_spreads_rescued_rows_over_their_delay(engine: Engine) -> None:
    jobs = [add_lost(engine) for _ in range(30)]

    with engine.begin() as db:
        rescue(db, jitter=True)

    rows = [columns(engine, job) for job in jobs]
    delays = [(row["next_attempt_at"] - row["updated_at"]).total_seconds() for row in rows]
    assert all(-1 < delay < 61 for delay in delays)
    assert max(delays) - min(delays) > 20


@pytest.mark.parametrize(
    ("attempts", "gives_up", "status"),
    [(0, False, "PENDING"), (1, False, "PENDING"), (2, False, "FAILED"), (0, True, "FAILED")],
)
def test_a_rescued_row_is_failed_when_no_attempt_is_left_or_worth_it(
    engine: Engine, attempts: int, gives_up: bool, status: str
) -> None:
    job = add_lost(engine)
    with engine.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET attempts = :n"), {"n": attempts})

    with engine.begin() as db:
        rescue(db, gives_up=gives_up)

    row = columns(engine, job)
    assert (row["status"], row["attempts"]) == (status, attempts + 1)
    assert (row["completed_at"] is not None) == (status == "FAILED")
    assert (row["dispatched_at"], row["heartbeat_at"]) == (None, None)


# Prerequisites: what pruning leaves


def needs(engine: Engine, order: int, job: int, *, met: bool) -> None:
    table = library(SCHEMA).prerequisites
    with engine.begin() as db:
        db.execute(
            table.insert().values(
                domain="order",
                tracking_id=order,
                needs_domain="job",
                needs_id=job,
                if_unmet="cancel",
                met_at=text("now()") if met else None,
            )
        )


@pytest.mark.parametrize("met", [False, True])
def test_a_row_that_another_still_waits_for_is_not_deleted(engine: Engine, met: bool) -> None:
    job = add_old(engine)
    with engine.begin() as db:
        order = tracker.create(db, OrderTracking, {"day": date(2024, 3, 1), "currency": "EUR"}).id
    needs(engine, order, job, met=met)

    with engine.begin() as db:
        assert prune(db) == ([job] if met else [])


def test_the_prerequisites_of_rows_that_are_gone_are_forgotten_and_no_others(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        kept = tracker.create(db, OrderTracking, {"day": date(2024, 3, 1), "currency": "EUR"}).id
    gone = kept + 1
    for order in (kept, gone):
        needs(engine, order, job, met=True)

    with engine.begin() as db:
        db.execute(sweeps.forget_prerequisites_of_absent(OrderTracking, SCHEMA), {"_ids": [kept, gone]})
        left = db.scalars(text("SELECT tracking_id FROM tracking.tasktrail_prerequisites")).all()

    assert left == [kept]
