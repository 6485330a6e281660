"""Claiming a row, on real connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from tasktrail import NotDue, Status, TrackingError, TrackingNotFound, WrongState, statements, tracker
from tasktrail.retry import Retry
from tasktrail.tracker import Claim
from tests.rows import (
    add_job,
    add_job_in,
    claim,
    columns,
    guards_of,
    somebody_waits_for_a_lock,
    wait_until,
    without_guard,
)
from tests.support import JobTracking, OrderTracking


@pytest.fixture(scope="module")
def engine(make_database: Callable[..., str], library_template: str) -> Iterator[Engine]:
    """One database for the file; each test has a row of its own."""
    engine = create_engine(make_database(library_template), pool_size=20)
    yield engine
    engine.dispose()


def read(engine: Engine, job: int) -> JobTracking:
    with engine.connect() as db:
        return tracker.get(db, JobTracking, job)


def test_of_eight_threads_that_race_for_one_row_one_wins_and_seven_are_told(engine: Engine) -> None:
    with Session(engine) as db:
        job = tracker.create(db, JobTracking, {})
        db.commit()
    barrier = Barrier(8)

    def race(number: int) -> object:
        with Session(engine) as db:
            db.connection()
            barrier.wait()
            try:
                claim = tracker.claim(db, JobTracking, job.id, celery_task_id=f"task {number}", worker="w")
            except WrongState as error:
                return error
            finally:
                db.commit()
            return claim

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))

    losers = [outcome for outcome in outcomes if isinstance(outcome, WrongState)]
    assert len(losers) == 7
    assert {loser.status for loser in losers} == {Status.PROCESSING}


def test_eight_threads_that_claim_twenty_rows_in_any_order_run_each_of_them_once(engine: Engine) -> None:
    jobs = [add_job(engine) for _ in range(20)]
    barrier = Barrier(8)

    def work(number: int) -> list[int]:
        taken = []
        barrier.wait()
        for job in jobs[number:] + jobs[:number]:
            try:
                claim(engine, job, task=f"task {number}")
            except WrongState:
                continue
            taken.append(job)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [job for jobs_of_one in pool.map(work, range(8)) for job in jobs_of_one]

    assert jobs == sorted(taken)


def test_a_claim_writes_who_runs_the_row_since_when(engine: Engine) -> None:
    job = add_job(engine)

    claimed = claim(engine, job, task="task 7", worker="w7@host")

    row = read(engine, job)
    assert row.status == Status.PROCESSING
    assert (row.celery_task_id, row.worker) == ("task 7", "w7@host")
    assert claimed.fence.started_at == row.started_at
    assert row.created_at < min(row.started_at, row.heartbeat_at, row.updated_at)
    assert (row.completed_at, row.error_message, row.attempts, row.attempt_log) == (None, None, 0, [])


def test_a_claim_returns_the_fence_and_the_inputs(engine: Engine) -> None:
    seen_at = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
    inputs = {
        "day": date(2024, 3, 1),
        "currency": "EUR",
        "tags": ["a", "b"],
        "done": 1,
        "total": 2,
        "amount": Decimal("1.50"),
        "seen_at": seen_at,
        "details": {"a": [1, None]},
        "urgent": True,
    }
    with engine.begin() as db:
        order = tracker.create(db, OrderTracking, {**inputs, "max_attempts": 5}).id

    with engine.begin() as db:
        claimed = tracker.claim(db, OrderTracking, order, celery_task_id="task 1", worker="w1")

    with engine.connect() as db:
        row = tracker.get(db, OrderTracking, order)
    assert inputs == claimed.inputs
    assert (5, row.created_at) == (claimed.max_attempts, claimed.created_at)
    assert tracker.Fence(order, 0, "task 1", row.started_at) == claimed.fence


def test_a_claim_takes_its_times_from_the_server_at_that_moment_even_late_in_a_transaction(
    engine: Engine,
) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        began = db.scalar(text("SELECT now()"))
        wait_until(lambda: db.scalar(text("SELECT clock_timestamp() > now() + interval '20 ms'")))

        fence = tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1").fence

    assert fence.started_at - began > timedelta(milliseconds=20)


def test_a_worker_without_names_can_claim_a_row(engine: Engine) -> None:
    job = add_job(engine)

    fence = claim(engine, job, task=None, worker=None).fence

    with engine.begin() as db:
        tracker.complete(db, JobTracking, fence)
    assert read(engine, job).status == Status.COMPLETED


def test_a_row_that_is_not_there_cannot_be_claimed(engine: Engine) -> None:
    with pytest.raises(TrackingNotFound, match="job 404: there is no such tracking row"):
        claim(engine, 404)


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_row_that_does_not_wait_cannot_be_claimed(engine: Engine, status: Status) -> None:
    job = add_job_in(engine, status)
    before = columns(engine, job)

    with pytest.raises(WrongState) as caught:
        claim(engine, job, task="task 2")

    error = caught.value
    assert ("job", job, "claim", status) == (error.domain, error.tracking_id, error.operation, error.status)
    assert error.allowed == (Status.PENDING,)
    assert before == columns(engine, job)


def test_a_row_is_claimed_when_due_and_not_before(engine: Engine) -> None:
    due = datetime.now(UTC) + timedelta(seconds=100)
    job = add_job(engine, next_attempt_at=due)

    with pytest.raises(NotDue) as caught:
        claim(engine, job)

    assert due == caught.value.due
    assert 90 < caught.value.seconds <= 100
    assert read(engine, job).status == Status.PENDING
    assert read(engine, job).started_at is None


def test_a_row_whose_due_time_has_passed_is_claimed(engine: Engine) -> None:
    job = add_job(engine, next_attempt_at=datetime(2000, 1, 1, tzinfo=UTC))

    assert job == claim(engine, job).fence.tracking_id


def test_a_row_due_soon_can_be_claimed_a_moment_later(engine: Engine) -> None:
    with engine.begin() as db:
        soon = db.scalar(text("SELECT clock_timestamp() + interval '50 ms'"))
    job = add_job(engine, next_attempt_at=soon)

    def claimed() -> bool:
        try:
            return claim(engine, job).fence.started_at >= soon
        except NotDue:
            return False

    wait_until(claimed)


def test_a_row_without_a_due_time_waits_for_one(engine: Engine) -> None:
    job = add_job(engine, next_attempt_at=None)

    with pytest.raises(NotDue) as caught:
        claim(engine, job)

    assert (caught.value.due, caught.value.seconds) == (None, None)


def test_a_row_that_waits_for_a_retry_is_claimed_when_the_delay_is_over(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        fence = tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1").fence
        tracker.fail(db, JobTracking, fence, Retry(60), error="ValueError: no")

    with pytest.raises(NotDue) as caught:
        claim(engine, job)

    assert 50 < caught.value.seconds <= 60


def test_a_second_attempt_knows_of_the_first_and_clears_nothing_of_it(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        fence = tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1").fence
        tracker.fail(db, JobTracking, fence, Retry(0), error="ValueError: no")

    second = claim(engine, job, task="task 1", worker="w2").fence

    row = read(engine, job)
    assert second.attempts == 1
    assert second.started_at > fence.started_at
    assert (row.worker, row.error_message, len(row.attempt_log)) == ("w2", "ValueError: no", 1)


def test_a_claim_that_is_rolled_back_never_happened(engine: Engine) -> None:
    job = add_job(engine)
    with Session(engine) as db:
        tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1")

    assert read(engine, job).status == Status.PENDING
    assert claim(engine, job, task="task 2").fence.celery_task_id == "task 2"


@pytest.mark.parametrize(
    ("first_commits", "expected"), [(True, WrongState), (False, Claim)], ids=["commits", "rolls back"]
)
def test_a_claim_waits_for_a_rival_that_has_not_committed_yet(
    engine: Engine, first_commits: bool, expected: type
) -> None:
    job = add_job(engine)

    def rival() -> Claim | TrackingError:
        try:
            return claim(engine, job, task="task 2")
        except TrackingError as error:
            return error

    with ThreadPoolExecutor(1) as pool, Session(engine) as db:
        tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1")
        outcome = pool.submit(rival)
        wait_until(lambda: somebody_waits_for_a_lock(engine))
        if first_commits:
            db.commit()
        else:
            db.rollback()

    assert expected is type(outcome.result(10))


def test_the_fence_of_a_running_row_can_be_read_by_callers_who_did_not_claim_it(engine: Engine) -> None:
    job = add_job(engine, max_attempts=7)
    claimed = claim(engine, job)

    with engine.connect() as db:
        assert (claimed.fence, 7) == tracker.fence(db, JobTracking, job, "fail")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PROCESSING])
def test_a_row_that_does_not_run_has_no_fence(engine: Engine, status: Status) -> None:
    job = add_job_in(engine, status)

    with engine.connect() as db, pytest.raises(WrongState) as caught:
        tracker.fence(db, JobTracking, job, "fail")

    assert ("fail", status) == (caught.value.operation, caught.value.status)


def test_a_row_that_is_not_there_has_no_fence(engine: Engine) -> None:
    with engine.connect() as db, pytest.raises(TrackingNotFound):
        tracker.fence(db, JobTracking, 404_404, "fail")


FAR_AHEAD = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("guard", "state", "expected"),
    [
        *(("status", {"status": status}, WrongState) for status in Status if status is not Status.PENDING),
        ("next_attempt_at", {"next_attempt_at": FAR_AHEAD}, NotDue),
        ("next_attempt_at", {"next_attempt_at": None}, NotDue),
    ],
)
def test_only_the_guard_keeps_such_a_row_from_being_claimed(
    engine: Engine, guard: str, state: dict[str, Any], expected: type[TrackingError]
) -> None:
    job = add_job(engine)
    table = JobTracking.__table__
    with engine.begin() as db:
        db.execute(table.update().where(table.c.id == job).values(**state))
    guarded = statements.claim_if_pending_and_due(JobTracking)
    parameters = {"_row_id": job, "_new_celery_task_id": "task 1", "_new_worker": "w1"}

    with engine.connect() as db:
        claimed = db.execute(without_guard(guarded, guard), parameters).all()

    assert len(claimed) == 1
    with pytest.raises(expected):
        claim(engine, job)


def test_only_the_guard_keeps_a_claim_from_taking_the_rows_of_others(engine: Engine) -> None:
    job, others = add_job(engine), {add_job(engine) for _ in range(3)}
    guarded = statements.claim_if_pending_and_due(JobTracking)
    parameters = {"_row_id": job, "_new_celery_task_id": "task 1", "_new_worker": "w1"}

    with engine.connect() as db:
        careless = len(db.execute(without_guard(guarded, "id"), parameters).all())
        db.rollback()
        careful = len(db.execute(guarded, parameters).all())

    assert careless > len(others)
    assert careful == 1


def test_a_claim_has_no_other_guards() -> None:
    guards = guards_of(statements.claim_if_pending_and_due(JobTracking))

    assert guards == ["id", "status", "next_attempt_at"]
