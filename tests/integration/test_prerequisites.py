"""Rows that wait for other rows: when they become due, when they are cancelled, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasktrail import (
    BaseTaskTrackingService,
    Enqueued,
    InvalidField,
    NotDue,
    Prerequisite,
    Status,
    TrackingNotFound,
    TrackingRef,
    UnknownDomain,
    sweeps,
    tracker,
)
from tasktrail.library import library
from tests.desk import Desk, desk, ref
from tests.rows import somebody_waits_for_a_lock
from tests.support import SCHEMA, JobTracking
from tests.upkeep import shift
from tests.waiting import until

MONTHS = 100 * 24 * 3600


@pytest.fixture
def office(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """Tracked tasks of three domains, without a worker."""
    with desk(database_url, redis_url, request.node.name) as found:
        yield found


def scalar(office: Desk, query: str) -> Any:
    with office.engine.connect() as db:
        return db.scalar(text(query))


def count_rows(office: Desk) -> dict[str, int]:
    tables = ("job_tracking", "order_tracking", "tasktrail_prerequisites")
    return {table: scalar(office, f"SELECT count(*) FROM tracking.{table}") for table in tables}


def delete(office: Desk, job: Enqueued) -> None:
    with office.engine.begin() as db:
        db.execute(text("DELETE FROM tracking.job_tracking WHERE id = :id"), {"id": job.id})


# Becoming due


def test_a_row_is_due_when_all_its_prerequisites_in_other_domains_are_completed(office: Desk) -> None:
    first, second = office.job.enqueue(), office.async_job.enqueue()
    office.sent()
    waiting = office.order.enqueue(after=[first, second], **office.order_fields())
    seen = []
    for done in (None, first, second):
        if done is not None:
            office.complete(done)
        round_ = office.tick()
        seen.append((office.is_held(waiting), round_.made_due, office.sent_ids()))

    assert waiting.status is Status.PENDING
    assert seen == [(True, 0, []), (True, 0, []), (False, 1, [waiting.id])]
    office.complete(waiting)


def test_a_row_may_wait_for_a_row_of_its_own_domain(office: Desk) -> None:
    first = office.job.enqueue()
    waiting = office.job.enqueue(after=[first])
    office.sent()

    office.complete(first)
    office.tick()

    assert office.sent_ids() == [waiting.id]


def test_a_row_whose_prerequisites_are_completed_already_is_due_and_sent_at_once(office: Desk) -> None:
    first, second = office.job.enqueue(), office.async_job.enqueue()
    office.complete(first, second)
    office.sent()

    ready = office.job.enqueue(after=[first, second])

    assert office.sent_ids() == [ready.id]
    assert not office.is_held(ready)
    assert office.tick().made_due == 0


def test_a_row_waits_only_for_those_that_are_not_completed_yet(office: Desk) -> None:
    done, open_ = office.job.enqueue(), office.job.enqueue()
    office.complete(done)
    office.sent()
    waiting = office.job.enqueue(after=[done, open_])
    held = office.is_held(waiting)

    office.complete(open_)
    office.tick()

    assert held
    assert office.sent_ids() == [waiting.id]


def test_a_prerequisite_named_twice_is_one(office: Desk) -> None:
    first = office.job.enqueue()

    waiting = office.job.enqueue(after=[first, ref(first), TrackingRef("job", first.id)])

    assert [prerequisite.ref for prerequisite in office.job.prerequisites(waiting.id)] == [ref(first)]


def test_a_waiting_row_cannot_be_claimed(office: Desk) -> None:
    waiting = office.job.enqueue(after=[office.job.enqueue()])

    with pytest.raises(NotDue, match="waits and has no due time yet"):
        office.claim(waiting)


def test_a_chain_runs_one_after_the_other(office: Desk) -> None:
    chain = [office.job.enqueue()]
    for _ in range(2):
        chain.append(office.job.enqueue(after=[chain[-1]]))

    ran = []
    for _ in chain:
        office.tick()
        for row_id in office.sent_ids():
            job = next(job for job in chain if job.id == row_id)
            office.complete(job)
            ran.append(job)

    assert ran == chain


def test_a_row_at_the_end_of_two_ways_runs_once_both_are_done(office: Desk) -> None:
    start = office.job.enqueue()
    left, right = office.job.enqueue(after=[start]), office.async_job.enqueue(after=[start])
    end = office.order.enqueue(after=[left, right], **office.order_fields())
    office.complete(start)
    office.tick()
    office.complete(left)
    office.tick()
    halfway = office.is_held(end)

    office.complete(right)
    office.tick()

    assert halfway
    assert not office.is_held(end)


def test_many_rows_that_wait_for_one_are_due_in_one_round(office: Desk) -> None:
    first = office.job.enqueue()
    waiting = [office.async_job.enqueue(after=[first]) for _ in range(50)]
    office.sent()
    office.complete(first)

    assert office.tick().made_due == 50
    assert sorted(office.sent_ids()) == sorted(row.id for row in waiting)


def test_a_row_cannot_have_a_due_time_and_prerequisites(office: Desk) -> None:
    first = office.job.enqueue()
    before = count_rows(office)

    with pytest.raises(InvalidField, match=r"^next_attempt_at: "):
        office.job.enqueue(after=[first], next_attempt_at=office.row(first)["created_at"])

    assert count_rows(office) == before


# Never becoming due


def end_badly(office: Desk, job: Enqueued, how: str) -> str:
    """Take a row to a bad end, and return what its dependents are told."""
    if how == "gone":
        delete(office, job)
        return f"prerequisite job {job.id} is gone"
    if how == "FAILED":
        office.fail(job)
    else:
        office.job.cancel(job.id, "nobody wants it")
    return f"prerequisite job {job.id} is {how}"


BAD_ENDS = pytest.mark.parametrize("how", ["FAILED", "CANCELLED", "gone"])


@BAD_ENDS
def test_a_row_is_cancelled_with_the_reason_when_a_prerequisite_ends_badly(office: Desk, how: str) -> None:
    fine, broken = office.async_job.enqueue(), office.job.enqueue()
    waiting = office.order.enqueue(after=[fine, broken], **office.order_fields())
    office.complete(fine)
    reason = end_badly(office, broken, how)

    done = office.tick()

    row = office.row(waiting)
    assert done.cancelled == 1
    assert (row["status"], row["error_message"]) == (Status.CANCELLED, reason)
    assert (row["attempts"], row["attempt_log"]) == (0, [])
    assert row["completed_at"] is not None


@pytest.mark.parametrize("how", ["FAILED", "CANCELLED"])
def test_a_row_enqueued_after_one_that_has_ended_badly_is_cancelled(office: Desk, how: str) -> None:
    broken = office.job.enqueue()
    reason = end_badly(office, broken, how)

    waiting = office.job.enqueue(after=[broken])
    office.tick()

    assert office.row(waiting)["error_message"] == reason


@pytest.mark.parametrize("how", ["FAILED", "CANCELLED"])
def test_a_row_that_rather_waits_goes_on_when_an_operator_has_the_failed_one_repeated(
    office: Desk, how: str
) -> None:
    broken = office.job.enqueue()
    waiting = office.job.enqueue(after=[broken], if_unmet="wait")
    end_badly(office, broken, how)
    office.tick()
    held = office.is_held(waiting)

    office.job.retry(broken.id)
    office.sent()
    office.complete(broken)
    office.tick()

    assert held
    assert office.sent_ids() == [waiting.id]


@BAD_ENDS
def test_a_row_that_is_to_proceed_is_due_when_its_prerequisite_has_ended_somehow(
    office: Desk, how: str
) -> None:
    broken = office.job.enqueue()
    waiting = office.job.enqueue(after=[broken], if_unmet="proceed")
    office.sent()
    end_badly(office, broken, how)

    office.tick()

    assert office.sent_ids() == [waiting.id]


def test_a_whole_chain_is_cancelled_each_row_with_its_own_reason(office: Desk) -> None:
    first = office.job.enqueue()
    second = office.job.enqueue(after=[first])
    third = office.async_job.enqueue(after=[second])
    office.fail(first)

    while office.tick():
        pass

    assert office.row(second)["error_message"] == f"prerequisite job {first.id} is FAILED"
    assert office.row(third)["error_message"] == f"prerequisite job {second.id} is CANCELLED"


def test_many_rows_are_cancelled_in_the_end(office: Desk) -> None:
    first = office.job.enqueue()
    office.job.enqueue(after=[first])
    for statement in (
        (
            "INSERT INTO tracking.job_tracking (id, next_attempt_at)"
            " SELECT copy, NULL FROM generate_series(1000, 1598) copy"
        ),
        (
            "INSERT INTO tracking.tasktrail_prerequisites"
            " SELECT domain, copy, needs_domain, needs_id, if_unmet"
            " FROM tracking.tasktrail_prerequisites, generate_series(1000, 1598) copy"
        ),
    ):
        with office.engine.begin() as db:
            db.execute(text(statement))
    office.fail(first)

    counts = [office.tick().cancelled for _ in range(3)]

    assert counts == [500, 100, 0]


def test_a_cancelled_chain_is_started_again_from_its_end_and_waits_in_order(office: Desk) -> None:
    first = office.job.enqueue()
    second = office.job.enqueue(after=[first], if_unmet="wait")
    third = office.job.enqueue(after=[second], if_unmet="wait")
    office.job.cancel(third.id, "stop")
    office.job.cancel(second.id, "stop")
    office.sent()

    for job in (third, second):
        office.job.retry(job.id)
    held = [office.is_held(job) for job in (second, third)]
    office.complete(first)
    office.tick()

    assert held == [True, True]
    assert (office.is_held(second), office.is_held(third)) == (False, True)


@pytest.mark.parametrize("end", [Status.FAILED, Status.CANCELLED])
async def test_a_row_that_is_moved_to_pending_waits_for_its_prerequisites_all_the_same(
    office: Desk, async_session: AsyncSession, end: Status
) -> None:
    first = office.job.enqueue()
    second = office.job.enqueue(after=[first], if_unmet="wait")
    jobs = BaseTaskTrackingService(async_session, JobTracking)
    for status in ("PROCESSING", end, "PENDING"):
        await jobs.update_status(second.id, status)
    office.sent()
    office.tick()
    held, sent = office.is_held(second), office.sent_ids()
    office.complete(first)
    office.tick()

    assert (held, sent) == (True, [])
    assert not office.is_held(second)


async def test_a_service_may_be_told_where_the_tables_of_the_library_are(
    office: Desk, async_session: AsyncSession
) -> None:
    class Elsewhere(BaseTaskTrackingService[JobTracking]):
        model = JobTracking
        schema = "elsewhere"

    job = office.job.enqueue()
    office.job.cancel(job.id, "stop")

    with pytest.raises(ProgrammingError, match=r'"elsewhere\.tasktrail_prerequisites" does not exist'):
        await Elsewhere(async_session).update_status(job.id, "PENDING")

    assert scalar(office, f"SELECT status FROM tracking.job_tracking WHERE id = {job.id}") == "CANCELLED"


# Cycles


def cancelled_orders(office: Desk, count: int) -> list[tuple[Enqueued, dict[str, Any]]]:
    """Add orders and cancel them, so that they can be restarted after others."""
    orders = []
    for _ in range(count):
        fields = office.order_fields()
        order = office.order.enqueue(**fields)
        office.order.cancel(order.id, "stop")
        orders.append((order, fields))
    office.sent()
    return orders


def test_a_row_cannot_wait_for_itself(office: Desk) -> None:
    [(order, fields)] = cancelled_orders(office, 1)
    before = office.row(order)

    with pytest.raises(InvalidField, match=r"^after: a row cannot wait for itself \(got 'order 1'\)"):
        office.order.enqueue(after=[order], on_duplicate="restart", **fields)

    assert office.row(order) == before
    assert count_rows(office)["tasktrail_prerequisites"] == 0


@pytest.mark.parametrize("length", [2, 3, 5])
def test_rows_cannot_wait_for_each_other_in_a_circle(office: Desk, length: int) -> None:
    orders = cancelled_orders(office, length)
    for (_, fields), (needed, _) in pairwise(orders):
        office.order.enqueue(after=[needed], on_duplicate="restart", **fields)
    (first, _), (last, fields) = orders[0], orders[-1]
    before = (office.row(last), count_rows(office))

    with pytest.raises(InvalidField) as caught:
        office.order.enqueue(after=[first], on_duplicate="restart", **fields)

    reason = f"one of these waits for order {last.id} already; that would be a cycle"
    assert str(caught.value) == f"after: {reason} (got 'order {first.id}')"
    assert (office.row(last), count_rows(office)) == before
    assert office.sent() == []


def test_of_two_at_once_that_each_add_half_of_a_circle_one_is_refused(office: Desk) -> None:
    for _ in range(5):
        (first, first_fields), (second, second_fields) = cancelled_orders(office, 2)
        barrier = threading.Barrier(2)
        outcomes: list[str] = []

        def enqueue(
            fields: dict[str, Any],
            needed: Enqueued,
            barrier: threading.Barrier = barrier,
            outcomes: list[str] = outcomes,
        ) -> None:
            barrier.wait(10)
            try:
                office.order.enqueue(after=[needed], on_duplicate="restart", **fields)
                outcomes.append("waits")
            except InvalidField as error:
                outcomes.append(error.field)

        threads = [
            threading.Thread(target=enqueue, args=arguments)
            for arguments in ((first_fields, second), (second_fields, first))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["after", "waits"]
        assert sorted([office.status(first), office.status(second)]) == ["CANCELLED", "PENDING"]


def test_the_half_of_a_circle_that_comes_second_waits_for_the_first_to_be_committed(office: Desk) -> None:
    (first, first_fields), (second, second_fields) = cancelled_orders(office, 2)
    errors: list[InvalidField] = []

    def add_other_half() -> None:
        try:
            office.order.enqueue(after=[first], on_duplicate="restart", **second_fields)
        except InvalidField as error:
            errors.append(error)

    other = threading.Thread(target=add_other_half)
    with Session(office.engine) as db:
        office.order.enqueue(db, after=[second], on_duplicate="restart", **first_fields)
        other.start()
        until(lambda: somebody_waits_for_a_lock(office.engine))
        db.commit()
    other.join(10)

    assert [error.field for error in errors] == ["after"]
    assert office.status(second) is Status.CANCELLED


# What is refused


def test_a_prerequisite_that_does_not_exist_is_refused_and_nothing_is_written(office: Desk) -> None:
    first = office.job.enqueue()
    office.sent()
    before = count_rows(office)

    with pytest.raises(TrackingNotFound) as caught:
        office.order.enqueue(after=[first, TrackingRef("job", 404)], **office.order_fields())

    assert str(caught.value) == "job 404: is named as a prerequisite, but there is no such row"
    assert count_rows(office) == before
    assert office.sent() == []


def test_a_prerequisite_of_an_unknown_domain_is_refused_and_nothing_is_written(office: Desk) -> None:
    before = count_rows(office)

    with pytest.raises(UnknownDomain, match="no domain is called 'tea'"):
        office.job.enqueue(after=[TrackingRef("tea", 1)])

    assert count_rows(office) == before


@pytest.mark.parametrize("missing", [TrackingRef("job", 404), TrackingRef("tea", 1)])
def test_a_refusal_leaves_the_callers_transaction_usable_and_no_row_in_it(
    office: Desk, missing: TrackingRef
) -> None:
    with Session(office.engine) as db:
        kept = office.job.enqueue(db)
        with pytest.raises((TrackingNotFound, UnknownDomain)):
            office.job.enqueue(db, after=[missing])
        db.commit()

    assert count_rows(office)["job_tracking"] == 1
    assert office.sent_ids() == [kept.id]


def test_a_restart_that_is_refused_in_the_callers_transaction_restarts_nothing(office: Desk) -> None:
    [(order, fields)] = cancelled_orders(office, 1)

    with Session(office.engine) as db:
        with pytest.raises(TrackingNotFound):
            office.order.enqueue(db, after=[TrackingRef("job", 404)], on_duplicate="restart", **fields)
        db.commit()

    assert office.status(order) is Status.CANCELLED
    assert office.sent() == []


# In the caller's own transaction


def test_a_rollback_takes_the_row_and_its_prerequisites(office: Desk) -> None:
    with Session(office.engine) as db:
        first = office.job.enqueue(db)
        office.job.enqueue(db, after=[first])
        db.rollback()

    assert count_rows(office) == {"job_tracking": 0, "order_tracking": 0, "tasktrail_prerequisites": 0}
    assert office.sent() == []


def test_a_row_and_its_prerequisite_may_be_enqueued_in_one_transaction(office: Desk) -> None:
    with Session(office.engine) as db:
        first = office.job.enqueue(db)
        waiting = office.job.enqueue(db, after=[first])
        db.commit()
    sent_at_once = office.sent_ids()
    office.complete(first)
    office.tick()

    assert sent_at_once == [first.id]
    assert office.sent_ids() == [waiting.id]


def test_a_savepoint_that_is_rolled_back_takes_only_what_was_written_in_it(office: Desk) -> None:
    with Session(office.engine) as db:
        first = office.job.enqueue(db)
        savepoint = db.begin_nested()
        office.job.enqueue(db, after=[first])
        savepoint.rollback()
        kept = office.job.enqueue(db, after=[first])
        db.commit()

    assert count_rows(office)["tasktrail_prerequisites"] == 1
    assert office.job.dependents(first.id) == [ref(kept)]


async def test_coroutines_enqueue_after_others_with_and_without_a_session_of_their_own(
    office: Desk, async_session: AsyncSession
) -> None:
    first = await office.job.aenqueue()
    own = await office.async_job.aenqueue(after=[first], if_unmet="wait")
    with pytest.raises(TrackingNotFound):
        await office.async_job.aenqueue(async_session, after=[TrackingRef("job", 404)])
    theirs = await office.async_job.aenqueue(async_session, after=[first])
    before_commit = office.job.dependents(first.id)
    await async_session.commit()
    office.sent()

    assert before_commit == [ref(own)]
    assert office.job.dependents(first.id) == [ref(own), ref(theirs)]
    office.complete(first)
    office.tick()
    assert office.sent_ids() == [own.id, theirs.id]


async def test_an_async_rollback_leaves_nothing(office: Desk, async_session: AsyncSession) -> None:
    first = await office.job.aenqueue()
    await office.job.aenqueue(async_session, after=[first])
    await async_session.rollback()

    assert office.job.dependents(first.id) == []
    assert count_rows(office)["job_tracking"] == 1


# Natural keys


def test_a_row_that_goes_on_keeps_the_prerequisites_it_has(office: Desk) -> None:
    first, other = office.job.enqueue(), office.job.enqueue()
    fields = office.order_fields()
    waiting = office.order.enqueue(after=[first], **fields)

    again = office.order.enqueue(after=[other], **fields)

    assert (again.id, again.outcome) == (waiting.id, "existing")
    assert [prerequisite.ref for prerequisite in office.order.prerequisites(waiting.id)] == [ref(first)]


@pytest.mark.parametrize("in_session", [False, True])
def test_a_row_that_is_restarted_waits_for_what_it_has_waited_for_before(
    office: Desk, in_session: bool
) -> None:
    first = office.job.enqueue()
    fields = office.order_fields()
    waiting = office.order.enqueue(after=[first], **fields)
    office.order.cancel(waiting.id, "stop")
    office.sent()

    with Session(office.engine) as db:
        again = office.order.enqueue(*[db] if in_session else [], on_duplicate="restart", **fields)
        db.commit()

    assert again.outcome == "restarted"
    assert office.is_held(waiting)
    assert office.sent() == []


def test_a_row_that_is_restarted_may_wait_for_more(office: Desk) -> None:
    first, more = office.job.enqueue(), office.job.enqueue()
    fields = office.order_fields()
    waiting = office.order.enqueue(after=[first], **fields)
    office.order.cancel(waiting.id, "stop")
    office.order.enqueue(after=[more], on_duplicate="restart", **fields)
    office.complete(first)
    office.tick()
    halfway = office.is_held(waiting)
    office.complete(more)
    office.tick()

    assert halfway
    assert not office.is_held(waiting)


def test_a_row_that_is_restarted_without_prerequisites_is_due_at_once(office: Desk) -> None:
    [(order, fields)] = cancelled_orders(office, 1)

    office.order.enqueue(on_duplicate="restart", **fields)

    assert office.sent_ids() == [order.id]


# Lists


def test_parents_and_children_are_listed(office: Desk) -> None:
    first, second = office.job.enqueue(), office.async_job.enqueue()
    waiting = office.order.enqueue(after=[second, first], if_unmet="wait", **office.order_fields())
    other = office.job.enqueue(after=[first])
    office.complete(first)
    office.tick()

    parents = office.order.prerequisites(waiting.id)
    assert [(parent.ref, parent.is_met, parent.if_unmet) for parent in parents] == [
        (ref(second), False, "wait"),
        (ref(first), True, "wait"),
    ]
    assert all(isinstance(parent, Prerequisite) for parent in parents)
    assert office.job.dependents(first.id) == [ref(other), ref(waiting)]
    assert office.async_job.dependents(second.id) == [ref(waiting)]
    assert (office.job.prerequisites(first.id), office.order.dependents(waiting.id)) == ([], [])
    assert str(parents[0].ref) == f"async_job {second.id}"


# Pruning


def age(office: Desk, *rows: Enqueued) -> None:
    for row in rows:
        model = office.trail.registry.get(row.domain).model
        shift(office.engine, -MONTHS, "created_at", "completed_at", ids=[row.id], model=model)


def test_an_old_row_is_kept_while_another_waits_for_it(office: Desk) -> None:
    """Else the waiting row would be cancelled because its prerequisite is gone."""
    broken = office.job.enqueue()
    waiting = office.job.enqueue(after=[broken], if_unmet="wait")
    office.fail(broken)
    age(office, broken)

    assert office.prune() == 0
    assert (office.status(broken), office.is_held(waiting)) == (Status.FAILED, True)


def test_old_rows_are_deleted_with_their_prerequisites_when_none_waits_for_them_any_more(
    office: Desk,
) -> None:
    first = office.job.enqueue()
    waiting, young = office.job.enqueue(after=[first]), office.async_job.enqueue(after=[first])
    office.complete(first)
    office.tick()
    office.complete(waiting)
    age(office, first, waiting)

    assert office.prune() == 2
    assert office.job.dependents(first.id) == [ref(young)]
    assert count_rows(office) == {"job_tracking": 0, "order_tracking": 0, "tasktrail_prerequisites": 1}


# At once


def test_two_leaders_that_each_meet_one_half_leave_no_row_waiting_for_ever(office: Desk) -> None:
    first, second = office.job.enqueue(), office.async_job.enqueue()
    waiting = office.order.enqueue(after=[first, second], **office.order_fields())
    office.complete(first, second)
    needs = library(SCHEMA).prerequisites
    ids = {"_ids": [waiting.id]}
    model = office.order.domain.model
    leader = threading.Thread(target=office.tick)

    with office.engine.begin() as db:  # one leader, in the middle of its transaction
        db.execute(update(needs).where(needs.c.needs_domain == "job").values(met_at=text("now()")))
        db.execute(sweeps.lock_rows(model), ids)
        leader.start()
        until(lambda: somebody_waits_for_a_lock(office.engine))
        made_due = db.execute(sweeps.make_due_if_prerequisites_met(model, SCHEMA), ids).all()
    leader.join(10)
    office.tick()

    assert made_due == []
    assert not office.is_held(waiting)


def test_a_retry_while_the_last_prerequisite_is_met_leaves_no_row_waiting_for_ever(office: Desk) -> None:
    first = office.job.enqueue()
    waiting = office.job.enqueue(after=[first], if_unmet="wait")
    office.job.cancel(waiting.id, "stop")
    office.complete(first)
    leader = threading.Thread(target=office.tick)

    with office.engine.begin() as db:  # an operator's retry, in the middle of its transaction
        tracker.revive(db, JobTracking, waiting.id)
        held = db.execute(
            sweeps.hold_if_prerequisites_unmet(JobTracking, SCHEMA), {"_ids": [waiting.id]}
        ).all()
        leader.start()
        until(lambda: somebody_waits_for_a_lock(office.engine))
    leader.join(10)

    assert len(held) == 1
    assert not office.is_held(waiting)


def test_several_leaders_at_once_make_each_row_due_once(office: Desk) -> None:
    chain: list[Callable[..., Enqueued]] = [office.job.enqueue, office.async_job.enqueue]
    firsts = [enqueue() for enqueue in chain for _ in range(20)]
    for index in range(20):
        office.order.enqueue(after=[firsts[index], firsts[index + 20]], **office.order_fields())
    office.complete(*firsts)
    office.sent()
    made_due: list[int] = []

    def lead() -> None:
        with office.trail.engines.pooled() as db:
            made_due.append(office.trail.maintenance().tick(db).made_due)

    threads = [threading.Thread(target=lead) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    office.tick()

    assert sum(made_due) == 20
    assert sorted(office.sent_ids()) == list(range(1, 21))
