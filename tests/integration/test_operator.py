"""What an operator does: cancel and retry, single rows and by filter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from tasktrail import (
    BrokerUnavailable,
    FencedOut,
    InvalidField,
    RetryPolicy,
    Status,
    TrackedTask,
    TrackingNotFound,
    WrongState,
    tracker,
)
from tasktrail.celery import bulk
from tasktrail.filters import Filter
from tests.desk import Desk, Sent, desk
from tests.support import JobTracking, OrderTracking
from tests.waiting import until

EVERYTHING = Filter()


@pytest.fixture
def office(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """Tracked tasks without a worker."""
    with desk(database_url, redis_url, request.node.name) as found:
        yield found


def add_in(office: Desk, status: Status, **fields: Any) -> Any:
    """Enqueue a job and take it to a state as a worker or an operator would."""
    job = office.job.enqueue(**fields)
    if status is Status.PROCESSING:
        office.claim(job)
    elif status is Status.COMPLETED:
        office.complete(job)
    elif status is Status.FAILED:
        office.fail(job)
    elif status is Status.CANCELLED:
        office.job.cancel(job.id, "nobody wants it")
    office.sent()
    return job


def snapshot(office: Desk) -> Any:
    with office.engine.connect() as db:
        return db.execute(text("SELECT * FROM tracking.job_tracking ORDER BY id")).all()


# Cancel


@pytest.mark.parametrize(("status", "logged"), [(Status.PENDING, []), (Status.PROCESSING, ["cancelled"])])
def test_a_row_that_is_not_finished_is_cancelled_at_once_with_the_reason(
    office: Desk, status: Status, logged: list[str]
) -> None:
    job = add_in(office, status)

    office.job.cancel(job.id, "the customer changed her mind")

    row = office.row(job)
    assert (row["status"], row["error_message"]) == (Status.CANCELLED, "the customer changed her mind")
    assert (row["attempts"], [entry["outcome"] for entry in row["attempt_log"]]) == (0, logged)
    assert [entry["error"] for entry in row["attempt_log"]] == ["the customer changed her mind"] * len(logged)


def test_a_cancelled_row_cannot_be_completed_by_the_attempt_that_was_running(office: Desk) -> None:
    job = office.job.enqueue()
    fence = office.claim(job)
    office.job.cancel(job.id, "nobody wants it")

    with office.engine.begin() as db, pytest.raises(FencedOut, match="which is CANCELLED now"):
        tracker.complete(db, JobTracking, fence)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_row_that_has_ended_is_not_cancelled_and_the_error_says_its_state(
    office: Desk, status: Status
) -> None:
    job = add_in(office, status)
    before = snapshot(office)

    with pytest.raises(WrongState) as caught:
        office.job.cancel(job.id, "too late")

    assert str(caught.value) == (
        f"job {job.id}: cannot cancel: the row is {status}, it would have to be PENDING or PROCESSING"
    )
    assert caught.value.status == status
    assert snapshot(office) == before


# Retry


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_row_that_ended_badly_is_started_again_and_sent_once(office: Desk, status: Status) -> None:
    job = add_in(office, status)

    again = office.job.retry(job.id)

    row = office.row(job)
    assert (again.id, again.status, again.outcome) == (job.id, Status.PENDING, "restarted")
    assert (row["status"], row["completed_at"]) == (Status.PENDING, None)
    assert row["dispatched_at"] is not None
    assert office.sent() == [Sent("job", job.id, str(again.celery_task_id), has_eta=False)]
    assert row["celery_task_id"] == again.celery_task_id != job.celery_task_id


def test_previous_attempts_stay_in_the_log_numbers_go_on_and_there_is_room_for_another_round(
    office: Desk,
) -> None:
    job = add_in(office, Status.FAILED, max_attempts=1)
    for _ in range(2):
        office.job.retry(job.id)
        office.fail(job)

    row = office.row(job)
    assert [(entry["number"], entry["outcome"]) for entry in row["attempt_log"]] == [
        (1, "error"),
        (2, "error"),
        (3, "error"),
    ]
    assert (row["attempts"], row["max_attempts"]) == (3, 2 + RetryPolicy().max_attempts)


def test_a_row_that_was_cancelled_while_it_ran_keeps_that_in_its_log(office: Desk) -> None:
    job = add_in(office, Status.PROCESSING)
    office.job.cancel(job.id, "wrong day")

    office.job.retry(job.id)
    office.complete(job)

    row = office.row(job)
    assert (row["status"], row["attempts"], row["error_message"]) == (Status.COMPLETED, 0, None)
    assert [(entry["outcome"], entry["error"]) for entry in row["attempt_log"]] == [
        ("cancelled", "wrong day")
    ]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING, Status.COMPLETED])
def test_a_row_that_did_not_end_badly_is_not_started_again_and_the_error_says_its_state(
    office: Desk, status: Status
) -> None:
    job = add_in(office, status)
    before = snapshot(office)

    with pytest.raises(WrongState) as caught:
        office.job.retry(job.id)

    assert str(caught.value) == (
        f"job {job.id}: cannot retry: the row is {status}, it would have to be CANCELLED or FAILED"
    )
    assert snapshot(office) == before
    assert office.sent() == []


@pytest.mark.parametrize("operation", [TrackedTask.cancel, TrackedTask.retry])
def test_a_row_that_is_not_there_is_an_error_that_says_so(
    office: Desk, operation: Callable[..., object]
) -> None:
    reason = ("no",) if operation is TrackedTask.cancel else ()

    with pytest.raises(TrackingNotFound, match=r"^job 404: there is no such tracking row$"):
        operation(office.job, 404, *reason)


def test_a_retry_of_a_row_with_unmet_prerequisites_is_held_again(office: Desk) -> None:
    first = office.job.enqueue()
    second = office.job.enqueue(after=[first])
    office.job.cancel(second.id, "nobody wants it")
    office.sent()

    office.job.retry(second.id)
    held = (office.is_held(second), office.sent_ids())
    office.complete(first)
    office.tick()

    assert held == (True, [])
    assert office.sent_ids() == [second.id]


def test_nothing_is_started_again_while_the_broker_is_away(database_url: str) -> None:
    broken = "redis+socket:///nowhere/redis.sock"
    with desk(database_url, broken, "broken") as office:
        with office.engine.begin() as db:
            job = tracker.create(db, JobTracking, {}).id
            tracker.cancel(db, JobTracking, job, "nobody wants it")
        before = snapshot(office)

        with pytest.raises(BrokerUnavailable):
            office.job.retry(job)
        with pytest.raises(BrokerUnavailable):
            office.job.retry_where(EVERYTHING)

        assert snapshot(office) == before


# By filter


def test_all_unfinished_rows_of_a_filter_are_cancelled_and_no_others(office: Desk) -> None:
    jobs = {status: [add_in(office, status, payload="a") for _ in range(2)] for status in Status}
    other = add_in(office, Status.PENDING, payload="b")

    cancelled = office.job.cancel_where(Filter(fields={"payload": "a"}), "wrong input")

    assert cancelled == 4
    for status, rows in jobs.items():
        expected = Status.CANCELLED if status in {Status.PENDING, Status.PROCESSING} else status
        assert [office.status(row) for row in rows] == [expected] * 2
    assert {office.row(row)["error_message"] for row in jobs[Status.PROCESSING]} == {"wrong input"}
    assert office.status(other) is Status.PENDING


def test_all_rows_of_a_filter_that_ended_badly_are_started_again_and_no_others(office: Desk) -> None:
    jobs = {status: [add_in(office, status, payload="a") for _ in range(2)] for status in Status}
    other = add_in(office, Status.FAILED, payload="b")

    started = office.job.retry_where(Filter(fields={"payload": "a"}))

    again = [row.id for status in (Status.FAILED, Status.CANCELLED) for row in jobs[status]]
    assert started == 4
    assert sorted(office.sent_ids()) == sorted(again)
    assert [office.status(row) for row in jobs[Status.COMPLETED]] == [Status.COMPLETED] * 2
    assert office.status(other) is Status.FAILED
    assert {office.row(row)["max_attempts"] for row in jobs[Status.FAILED]} == {4}
    assert [len(office.row(row)["attempt_log"]) for row in jobs[Status.FAILED]] == [1, 1]


def test_failures_of_one_cause_are_started_again_without_the_others(office: Desk) -> None:
    jobs = [add_in(office, Status.FAILED) for _ in range(3)]
    with office.engine.begin() as db:
        query = text("UPDATE tracking.job_tracking SET error_message = 'Timeout: 5 s' WHERE id = :id")
        db.execute(query, {"id": jobs[1].id})

    assert office.job.retry_where(Filter(error="timeout")) == 1
    assert office.sent_ids() == [jobs[1].id]


@pytest.mark.parametrize(
    "chosen", [Filter(ids=[404]), Filter(fields={"payload": "x"}), Filter(error="never seen")]
)
def test_a_filter_that_matches_nothing_says_so_and_changes_nothing(office: Desk, chosen: Filter) -> None:
    for status in Status:
        add_in(office, status)
    before = snapshot(office)

    counts = (office.job.retry_where(chosen), office.job.cancel_where(chosen, "no"))

    assert counts == (0, 0)
    assert office.job.count_where(chosen, list(Status)) == 0
    assert snapshot(office) == before
    assert office.sent() == []


def test_a_filter_that_makes_no_sense_changes_nothing(office: Desk) -> None:
    add_in(office, Status.FAILED)
    add_in(office, Status.PENDING)
    before = snapshot(office)
    nonsense = Filter(fields={"colour": "red"})

    with pytest.raises(InvalidField):
        office.job.retry_where(nonsense)
    with pytest.raises(InvalidField):
        office.job.cancel_where(nonsense, "no")

    assert snapshot(office) == before


def add_many(office: Desk, count: int, status: str) -> None:
    with office.engine.begin() as db:
        db.execute(
            text(
                "INSERT INTO tracking.job_tracking (status, celery_task_id)"
                " SELECT :status, gen_random_uuid() FROM generate_series(1, :count)"
            ),
            {"status": status, "count": count},
        )


def test_many_rows_are_cancelled_and_started_again_in_batches(office: Desk) -> None:
    total = 2 * bulk.BATCH + 1
    add_many(office, total, "PENDING")

    cancelled = office.job.cancel_where(EVERYTHING, "stop")
    started = office.job.retry_where(EVERYTHING)

    assert (cancelled, started) == (total, total)
    assert sorted(office.sent_ids()) == list(range(1, total + 1))


def test_what_fails_again_while_a_filter_is_started_again_is_not_started_twice(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that fail a job faster than the next batch is taken would keep this going for ever."""
    jobs = [add_in(office, Status.FAILED) for _ in range(4)]
    monkeypatch.setattr("tasktrail.celery.task.BATCH", 2)
    send = office.trail.publisher.send

    def send_to_a_quick_worker(messages: Any) -> bool:
        sent = send(messages)
        for message in messages:
            office.fail(next(job for job in jobs if job.id == message.tracking_id))
        return bool(sent)

    monkeypatch.setattr(office.trail.publisher, "send", send_to_a_quick_worker)

    assert office.job.retry_where(EVERYTHING) == 4
    assert {office.row(job)["attempts"] for job in jobs} == {2}


def test_what_is_enqueued_while_a_filter_is_cancelled_is_left_alone(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_many(office, 3, "PENDING")
    now = bulk.server_now(office.trail.engines)
    monkeypatch.setattr("tasktrail.celery.task.server_now", lambda _: now)
    late = office.job.enqueue()

    assert office.job.cancel_where(EVERYTHING, "stop") == 3
    assert office.status(late) is Status.PENDING


def test_a_row_that_a_worker_writes_just_now_is_waited_for(office: Desk) -> None:
    job, other = add_in(office, Status.PROCESSING), add_in(office, Status.PENDING)
    counts: list[int] = []
    operator = threading.Thread(target=lambda: counts.append(office.job.cancel_where(EVERYTHING, "stop")))

    with office.engine.begin() as db:
        db.execute(text("SELECT FROM tracking.job_tracking WHERE id = :id FOR UPDATE"), {"id": job.id})
        operator.start()
        until(lambda: office.status(other) is Status.CANCELLED)
    operator.join(10)

    assert counts == [2]
    assert office.status(job) is Status.CANCELLED


def test_a_row_that_stays_locked_is_left_out_in_the_end(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_in(office, Status.PENDING)
    monkeypatch.setattr(bulk, "LOCK_PATIENCE", 0.1)

    with office.engine.begin() as db:
        db.execute(text("SELECT FROM tracking.job_tracking WHERE id = :id FOR UPDATE"), {"id": job.id})
        assert office.job.cancel_where(EVERYTHING, "stop") == 0


def test_two_operators_at_once_start_each_row_once(office: Desk) -> None:
    add_many(office, 1200, "FAILED")
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(office.job.retry_where(EVERYTHING))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(counts) == 1200
    assert sorted(office.sent_ids()) == list(range(1, 1201))


def test_rows_of_a_filter_with_unmet_prerequisites_are_held_again(office: Desk) -> None:
    first = office.order.enqueue(**office.order_fields())
    held, free = office.job.enqueue(after=[first]), office.job.enqueue()
    office.job.cancel_where(EVERYTHING, "stop")
    office.sent()

    started = office.job.retry_where(EVERYTHING)

    assert started == 2
    assert office.sent_ids() == [free.id]
    assert office.is_held(held)


def test_each_domain_has_its_own_rows(office: Desk) -> None:
    job = add_in(office, Status.FAILED)
    order = office.order.enqueue(**office.order_fields())
    office.order.cancel(order.id, "nobody wants it")

    assert office.order.retry_where(Filter(states=[Status.CANCELLED])) == 1
    assert office.status(job) is Status.FAILED
    with office.engine.connect() as db:
        assert tracker.get(db, OrderTracking, order.id).status == Status.PENDING
