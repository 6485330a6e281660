"""The fence: a worker whose attempt was superseded cannot write to the row any more.

Everything happens on real, separate connections: the stale worker on one, whoever superseded it on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import date
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine

from tasktrail import FencedOut, Status, TrackingError, TrackingNotFound, statements, sweeps, tracker
from tasktrail.engines import Engines
from tasktrail.retry import NoRetry, Retry
from tasktrail.tracker import Fence
from tests.rows import columns, guards_of, somebody_waits_for_a_lock, wait_until, without_guard
from tests.support import OrderTracking

Lend = Callable[[], AbstractContextManager[Any]]

TASK = "task 1"
DAY_ONE = date(2000, 1, 1).toordinal()
_days = count(DAY_ONE)


@pytest.fixture(scope="module")
def engine(make_database: Callable[..., str], library_template: str) -> Iterator[Engine]:
    """One database for the file; each test has rows of its own."""
    engine = create_engine(make_database(library_template), pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module", params=["pooled", "kept"])
def lend(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Lend]:
    """Lend a connection of each kind that a worker writes with."""
    engines = Engines(engine.url.render_as_string(hide_password=False))
    yield getattr(engines, request.param)
    engines.dispose()


def add_order(engine: Engine) -> int:
    with engine.begin() as db:
        fields = {"day": date.fromordinal(next(_days)), "currency": "EUR", "max_attempts": 9}
        return tracker.create(db, OrderTracking, fields).id


def claim(db: Connection, order: int, task: str | None = TASK) -> Fence:
    return tracker.claim(db, OrderTracking, order, celery_task_id=task, worker="somebody").fence


def claimed(engine: Engine) -> Fence:
    """Add a row and claim it: the attempt that the tests supersede."""
    order = add_order(engine)
    with engine.begin() as db:
        return claim(db, order)


def fail(db: Connection, fence: Fence) -> None:
    tracker.fail(db, OrderTracking, fence, NoRetry("no"), error="ValueError: stale")


def retry(db: Connection, fence: Fence) -> None:
    tracker.fail(db, OrderTracking, fence, Retry(0), error="ValueError: stale", outcome="timeout")


WRITES: dict[str, Callable[[Connection, Fence], None]] = {
    "heartbeat": lambda db, fence: tracker.heartbeat(db, OrderTracking, fence),
    "progress": lambda db, fence: tracker.progress(db, OrderTracking, fence, done=7, total=7),
    "record": lambda db, fence: tracker.record(db, OrderTracking, fence, {"tags": ["stale"]}),
    "complete": lambda db, fence: tracker.complete(db, OrderTracking, fence, note="stale"),
    "fail": fail,
    "retry": retry,
    "release": lambda db, fence: tracker.release(db, OrderTracking, fence),
}
"""Every write of an attempt; each must be fenced."""

STATEMENTS = {
    "heartbeat": "heartbeat_if_owned",
    "progress": "progress_if_owned",
    "record": "record_if_owned",
    "complete": "complete_if_owned",
    "fail": "fail_if_owned",
    "retry": "retry_later_if_owned",
    "release": "release_if_owned",
}
GUARDS = ["id", "status", "attempts", "celery_task_id", "started_at"]


# How an attempt is superseded: each takes the owner's fence and leaves the row to somebody else


def retried(db: Connection, fence: Fence) -> Status:
    retry(db, fence)
    return Status.PENDING


def retried_and_claimed_by_another_task(db: Connection, fence: Fence) -> Status:
    retry(db, fence)
    claim(db, fence.tracking_id, "task 2")
    return Status.PROCESSING


def retried_and_claimed_by_the_same_task(db: Connection, fence: Fence) -> Status:
    retry(db, fence)
    claim(db, fence.tracking_id)
    return Status.PROCESSING


def failed(db: Connection, fence: Fence) -> Status:
    fail(db, fence)
    return Status.FAILED


def completed(db: Connection, fence: Fence) -> Status:
    tracker.complete(db, OrderTracking, fence)
    return Status.COMPLETED


def released(db: Connection, fence: Fence) -> Status:
    tracker.release(db, OrderTracking, fence)
    return Status.PENDING


def released_and_claimed_by_the_same_task(db: Connection, fence: Fence) -> Status:
    tracker.release(db, OrderTracking, fence)
    again = claim(db, fence.tracking_id)
    assert (again.attempts, again.celery_task_id) == (fence.attempts, fence.celery_task_id)
    return Status.PROCESSING


def released_and_claimed_by_a_task_without_an_id(db: Connection, fence: Fence) -> Status:
    tracker.release(db, OrderTracking, fence)
    claim(db, fence.tracking_id, None)
    return Status.PROCESSING


def cancelled(db: Connection, fence: Fence) -> Status:
    tracker.cancel(db, OrderTracking, fence.tracking_id, "nobody wants it")
    return Status.CANCELLED


def revived(db: Connection, fence: Fence) -> Status:
    cancelled(db, fence)
    tracker.revive(db, OrderTracking, fence.tracking_id)
    return Status.PENDING


def revived_and_claimed_by_the_same_task(db: Connection, fence: Fence) -> Status:
    revived(db, fence)
    again = claim(db, fence.tracking_id)
    assert (again.attempts, again.celery_task_id) == (fence.attempts, fence.celery_task_id)
    return Status.PROCESSING


def failed_revived_and_claimed_by_the_same_task(db: Connection, fence: Fence) -> Status:
    fail(db, fence)
    tracker.revive(db, OrderTracking, fence.tracking_id)
    claim(db, fence.tracking_id)
    return Status.PROCESSING


def moved_to_pending_and_to_processing(db: Connection, fence: Fence) -> Status:
    tracker.move(db, OrderTracking, fence.tracking_id, Status.PENDING)
    tracker.move(db, OrderTracking, fence.tracking_id, Status.PROCESSING)
    return Status.PROCESSING


SUPERSEDED = [
    retried,
    retried_and_claimed_by_another_task,
    retried_and_claimed_by_the_same_task,
    failed,
    completed,
    released,
    released_and_claimed_by_the_same_task,
    released_and_claimed_by_a_task_without_an_id,
    cancelled,
    revived,
    revived_and_claimed_by_the_same_task,
    failed_revived_and_claimed_by_the_same_task,
    moved_to_pending_and_to_processing,
]


def test_every_write_of_an_attempt_is_listed_here() -> None:
    owned = {name for name in vars(statements) if name.endswith("_if_owned")}

    assert owned == set(STATEMENTS.values())
    assert list(WRITES) == list(STATEMENTS)


@pytest.mark.parametrize("write", WRITES)
def test_the_owner_of_a_row_may_write_to_it(engine: Engine, lend: Lend, write: str) -> None:
    fence = claimed(engine)
    before = columns(engine, fence.tracking_id, OrderTracking)

    with lend() as db:
        WRITES[write](db, fence)

    assert before != columns(engine, fence.tracking_id, OrderTracking)


@pytest.mark.parametrize("write", WRITES)
def test_an_owner_without_a_celery_id_may_write_to_its_row(engine: Engine, write: str) -> None:
    order = add_order(engine)
    with engine.begin() as db:
        fence = claim(db, order, task=None)

    with engine.begin() as db:
        WRITES[write](db, fence)

    assert columns(engine, order, OrderTracking)["celery_task_id"] is None


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("supersede", SUPERSEDED, ids=lambda function: function.__name__)
def test_a_stale_worker_cannot_write_to_a_row(
    engine: Engine, lend: Lend, supersede: Callable[[Connection, Fence], Status], write: str
) -> None:
    fence = claimed(engine)
    with engine.begin() as db:
        status = supersede(db, fence)
    before = columns(engine, fence.tracking_id, OrderTracking)

    with lend() as stale, pytest.raises(FencedOut) as caught:
        WRITES[write](stale, fence)

    assert ("order", fence.tracking_id) == (caught.value.domain, caught.value.tracking_id)
    assert (write, status) == (caught.value.operation, caught.value.status)
    assert before == columns(engine, fence.tracking_id, OrderTracking)


@pytest.mark.parametrize("write", WRITES)
def test_a_stale_worker_is_told_when_its_row_is_gone(engine: Engine, write: str) -> None:
    fence = claimed(engine)
    table = OrderTracking.__table__
    with engine.begin() as db:
        db.execute(table.delete().where(table.c.id == fence.tracking_id))

    with engine.begin() as stale, pytest.raises(TrackingNotFound):
        WRITES[write](stale, fence)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    "supersede", [cancelled, released_and_claimed_by_the_same_task], ids=lambda function: function.__name__
)
def test_a_stale_write_that_waits_for_the_commit_of_its_rival_is_refused_after_it(
    engine: Engine, supersede: Callable[[Connection, Fence], Status], write: str
) -> None:
    fence = claimed(engine)

    def stale_write() -> TrackingError | None:
        with engine.begin() as db:
            try:
                WRITES[write](db, fence)
            except FencedOut as error:
                return error
        return None

    with ThreadPoolExecutor(1) as pool, engine.connect() as rival:
        status = supersede(rival, fence)
        outcome = pool.submit(stale_write)
        wait_until(lambda: somebody_waits_for_a_lock(engine))
        rival.commit()
        refused = outcome.result(10)

    assert isinstance(refused, FencedOut)
    assert (write, status) == (refused.operation, refused.status)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_waits_for_a_rival_that_rolls_back_goes_through(engine: Engine, write: str) -> None:
    fence = claimed(engine)

    def owner_writes() -> None:
        with engine.begin() as db:
            WRITES[write](db, fence)

    with ThreadPoolExecutor(1) as pool, engine.connect() as rival:
        cancelled(rival, fence)
        outcome = pool.submit(owner_writes)
        wait_until(lambda: somebody_waits_for_a_lock(engine))
        rival.rollback()
        outcome.result(10)

    assert columns(engine, fence.tracking_id, OrderTracking)["status"] != Status.CANCELLED


@pytest.mark.parametrize("last", ["complete", "fail", "retry", "release"])
def test_of_two_writers_with_the_same_fence_one_ends_the_attempt(engine: Engine, last: str) -> None:
    """The worker itself and the parent that saw it die, both at once."""
    fence = claimed(engine)

    def end(write: str) -> str:
        with engine.begin() as db:
            try:
                WRITES[write](db, fence)
            except FencedOut:
                return "fenced out"
        return write

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(end, ["complete", last]))

    assert outcomes.count("fenced out") == 1
    assert len(columns(engine, fence.tracking_id, OrderTracking)["attempt_log"]) <= 1


# The proof that the tests above can fail: without a guard, a stale write goes through


@pytest.mark.parametrize("write", WRITES)
def test_these_are_the_guards_of_every_write(write: str) -> None:
    assert guards_of(statement_of(write)) == GUARDS


def statement_of(write: str) -> Any:
    build = getattr(statements, STATEMENTS[write])
    return build(OrderTracking, frozenset({"tags"})) if write == "record" else build(OrderTracking)


def set_columns(db: Connection, order: int, **values: Any) -> None:
    table = OrderTracking.__table__
    db.execute(table.update().where(table.c.id == order).values(**values))


def only_the_row_differs(db: Connection, fence: Fence) -> int:
    """Cancel the row; another one is at the same point: same task, same attempt, same moment."""
    neighbour = tracker.create(
        db, OrderTracking, {"day": date.fromordinal(next(_days)), "currency": "EUR"}
    ).id
    claim(db, neighbour)
    set_columns(db, neighbour, started_at=fence.started_at)
    cancelled(db, fence)
    return neighbour


def only_the_state_differs(db: Connection, fence: Fence) -> int:
    cancelled(db, fence)
    return fence.tracking_id


def only_the_attempt_differs(db: Connection, fence: Fence) -> int:
    """The next attempt is claimed by the same task while the server's clock shows the same moment again."""
    retried_and_claimed_by_the_same_task(db, fence)
    set_columns(db, fence.tracking_id, started_at=fence.started_at)
    return fence.tracking_id


def only_the_task_differs(db: Connection, fence: Fence) -> int:
    """Another task claims the released row while the server's clock shows the same moment again."""
    tracker.release(db, OrderTracking, fence)
    claim(db, fence.tracking_id, "task 2")
    set_columns(db, fence.tracking_id, started_at=fence.started_at)
    return fence.tracking_id


def only_the_moment_differs(db: Connection, fence: Fence) -> int:
    released_and_claimed_by_the_same_task(db, fence)
    return fence.tracking_id


ONLY = {
    "id": only_the_row_differs,
    "status": only_the_state_differs,
    "attempts": only_the_attempt_differs,
    "celery_task_id": only_the_task_differs,
    "started_at": only_the_moment_differs,
}
"""For each guard, a way to be superseded that no other guard would notice."""


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Take a guard out of the statement of a write, for the rest of the test."""

    def remove(write: str, guard: str) -> None:
        statement = without_guard(statement_of(write), guard)
        monkeypatch.setattr(statements, STATEMENTS[write], lambda *_: statement)

    return remove


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_alone_stops_a_stale_write_that_would_go_through_without_it(
    engine: Engine, careless: Callable[[str, str], None], guard: str, write: str
) -> None:
    fence = claimed(engine)
    with engine.begin() as db:
        victim = ONLY[guard](db, fence)
    before = columns(engine, victim, OrderTracking)

    with engine.begin() as stale, pytest.raises(FencedOut):
        WRITES[write](stale, fence)
    fenced = columns(engine, victim, OrderTracking)
    careless(write, guard)
    with engine.begin() as stale:
        WRITES[write](stale, fence)
    overwritten = columns(engine, victim, OrderTracking)

    assert before == fenced
    assert before != overwritten


# The leases of a whole process, renewed in one statement


def test_leases_are_renewed_together_and_only_those_still_owned(engine: Engine) -> None:
    fences = [claimed(engine) for _ in range(len(SUPERSEDED) + 2)]
    owned = {fence.tracking_id for fence in fences[len(SUPERSEDED) :]}
    with engine.begin() as db:
        for supersede, fence in zip(SUPERSEDED, fences, strict=False):
            supersede(db, fence)
    before = {fence.tracking_id: columns(engine, fence.tracking_id, OrderTracking) for fence in fences}

    with engine.begin() as db:
        renewed = tracker.renew(db, OrderTracking, fences)

    after = {order: columns(engine, order, OrderTracking) for order in before}
    assert owned == renewed
    assert owned == {order for order in before if before[order] != after[order]}
    assert all(before[order]["heartbeat_at"] < after[order]["heartbeat_at"] for order in owned)


def test_an_owner_without_a_celery_id_renews_its_lease(engine: Engine) -> None:
    order = add_order(engine)
    with engine.begin() as db:
        fence = claim(db, order, task=None)

        assert tracker.renew(db, OrderTracking, [fence]) == {order}


def test_no_fences_renew_nothing(engine: Engine) -> None:
    with engine.begin() as db:
        assert tracker.renew(db, OrderTracking, []) == set()


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_alone_keeps_a_lost_lease_from_being_renewed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    fence = claimed(engine)
    with engine.begin() as db:
        victim = ONLY[guard](db, fence)
    guarded = sweeps.renew_leases_if_owned(OrderTracking)

    with engine.begin() as db:
        renewed = tracker.renew(db, OrderTracking, [fence])
        monkeypatch.setattr(sweeps, "renew_leases_if_owned", lambda _: without_guard(guarded, guard))
        carelessly_renewed = tracker.renew(db, OrderTracking, [fence])

    assert guards_of(guarded) == GUARDS
    assert renewed == set()
    assert victim in carelessly_renewed
