"""``WaitFor``: a job gives its row back, others run, it comes back; in ``def`` and ``async def`` bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, insert, text

from tasktrail import (
    Enqueued,
    GiveUp,
    InvalidField,
    RetryPolicy,
    Run,
    Settings,
    Status,
    TrackingRef,
    Trail,
    WaitFor,
    counters,
    tracker,
)
from tests.rows import columns
from tests.support import (
    SCHEMA,
    AsyncJobTrackingService,
    Effect,
    JobTrackingService,
    OrderTracking,
    OrderTrackingService,
)

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])
DAY = date(2026, 10, 30)


@dataclass(frozen=True)
class Step:
    """What a body does the next time it is called.

    Attributes:
        orders: how many orders it enqueues in its session, to wait for them.
        after: further rows it waits for.
        if_unmet: how it waits.
        writes: whether it writes an effect in its session.
        error: what it raises instead.
        before: called before anything else.
    """

    orders: int = 0
    after: tuple[Any, ...] = ()
    if_unmet: Any = "proceed"
    writes: bool = False
    error: BaseException | None = None
    before: Callable[[], object] = lambda: None


@dataclass
class Bench:
    """Tracked tasks whose bodies follow a script, worked on in this process."""

    trail: Trail
    engine: Engine
    script: list[Step] = field(default_factory=list)
    seen: list[list[tuple[TrackingRef, bool, bool]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        retry = RetryPolicy(base=0.001)
        self.order = self.trail.task(OrderTrackingService, name="tests.order", retry=retry)(lambda run: None)
        self.job = self.trail.task(JobTrackingService, name="tests.job", retry=retry)(self._job)
        self.async_job = self.trail.task(AsyncJobTrackingService, name="tests.async_job", retry=retry)(
            self._async_job
        )

    def _job(self, run: Run[Any]) -> None:
        step = self.script.pop(0)
        step.before()
        self._see(run.prerequisites())
        if step.writes:
            run.session.execute(insert(Effect).values(job_id=run.id))
        orders = [
            self.order.enqueue(run.session, on_duplicate="restart", day=DAY, currency=f"AA{letter}")
            for letter in "ABCDE"[: step.orders]
        ]
        self._end(step, orders)

    async def _async_job(self, run: Run[Any]) -> None:
        step = self.script.pop(0)
        step.before()
        self._see(await run.aprerequisites())
        if step.writes:
            await run.asession.execute(insert(Effect).values(job_id=run.id))
        orders = [
            await self.order.aenqueue(run.asession, on_duplicate="restart", day=DAY, currency=f"AA{letter}")
            for letter in "ABCDE"[: step.orders]
        ]
        self._end(step, orders)

    def _see(self, found: list[Any]) -> None:
        self.seen.append([(needed.ref, needed.is_met, needed.is_current) for needed in found])

    def _end(self, step: Step, orders: list[Enqueued]) -> None:
        if step.error is not None:
            raise step.error
        if orders or step.after:
            raise WaitFor([*orders, *step.after], if_unmet=step.if_unmet)

    def enqueue(self, kind: str, *script: Step) -> Enqueued:
        """Add a row whose body will follow these steps."""
        self.script[:] = script
        return getattr(self, kind).enqueue()

    def deliver(self, row: Any) -> str:
        """Do what a worker does with the row's message, and return the state it is in then."""
        self.trail.task_of(row.domain).celery_task.apply(args=(row.id,))
        return self.row(row)["status"]

    def row(self, row: Any) -> dict[str, Any]:
        return columns(self.engine, row.id, self.trail.registry.get(row.domain).model)

    def tick(self) -> Any:
        with self.trail.engines.pooled() as db:
            return self.trail.maintenance().tick(db)

    def needs(self, row: Any) -> list[tuple[int, bool]]:
        """Return the orders a row waits for, and whether they are met."""
        found = self.trail.task_of(row.domain).prerequisites(row.id)
        return [(needed.ref.id, needed.is_met) for needed in found]

    def count(self, table: str) -> int:
        with self.engine.connect() as db:
            return db.scalar(text(f"SELECT count(*) FROM {table}"))

    def orders(self) -> list[TrackingRef]:
        with self.engine.connect() as db:
            ids = db.scalars(text("SELECT id FROM tracking.order_tracking ORDER BY id"))
            return [TrackingRef("order", row_id) for row_id in ids]


@pytest.fixture
def bench(
    database_url: str, redis_url: str, engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Bench]:
    settings = Settings.load(database_url=database_url, broker_url=redis_url, home=tmp_path)
    celery = Celery("wait_for")
    celery.conf.task_default_queue = request.node.name
    trail = Trail(celery, settings, schema=SCHEMA)
    yield Bench(trail, engine)
    trail._parts.loop.run(trail.engines.asynchronous.dispose(), on_start=lambda _: None)
    trail.engines.dispose()
    celery.close()


@BOTH
def test_a_job_waits_for_what_it_enqueued_and_comes_back_when_all_of_it_is_done(
    bench: Bench, kind: str
) -> None:
    job = bench.enqueue(kind, Step(orders=2), Step())
    bench.deliver(job)
    held = bench.row(job)
    first, second = bench.orders()

    assert (held["status"], held["next_attempt_at"], held["dispatched_at"]) == ("PENDING", None, None)
    assert (held["attempts"], held["attempt_log"], held["heartbeat_at"]) == (0, [], None)
    assert bench.needs(job) == [(first.id, False), (second.id, False)]
    assert bench.deliver(first) == "COMPLETED"
    assert (bench.tick().made_due, bench.row(job)["next_attempt_at"]) == (0, None)
    assert bench.deliver(second) == "COMPLETED"
    assert bench.tick().made_due == 1
    assert bench.row(job)["dispatched_at"] is not None
    assert bench.deliver(job) == "COMPLETED"
    assert (bench.row(job)["attempts"], bench.row(job)["attempt_log"]) == (0, [])
    assert bench.seen == [[], [(first, True, True), (second, True, True)]]


@BOTH
def test_a_message_that_comes_while_the_row_waits_runs_nothing(bench: Bench, kind: str) -> None:
    job = bench.enqueue(kind, Step(orders=1), Step())
    bench.deliver(job)

    assert bench.deliver(job) == "PENDING"
    assert len(bench.script) == 1


@BOTH
@pytest.mark.parametrize("marked", ["while the row waits", "before that, so that the mark stays"])
def test_a_mark_for_a_message_that_is_used_up_does_not_delay_the_row(
    bench: Bench, kind: str, marked: str
) -> None:
    job = bench.enqueue(kind, Step(orders=1), Step())
    bench.deliver(job)
    model = bench.trail.registry.get(kind).model
    with bench.engine.begin() as db:  # by whoever enqueued the row, who is slower than the worker
        if marked == "while the row waits":
            tracker.mark_dispatched(db, model, [job.id])
        else:
            db.execute(text(f"UPDATE {model.__table__.fullname} SET dispatched_at = now()"))
    bench.deliver(bench.orders()[0])
    done = bench.tick()

    assert (done.made_due, done.dispatched) == (1, 1)


@BOTH
def test_what_the_body_wrote_is_committed_with_the_wait(bench: Bench, kind: str) -> None:
    job = bench.enqueue(kind, Step(orders=1, writes=True), Step(writes=True))
    bench.deliver(job)

    assert bench.count("effects") == 1
    assert bench.row(bench.orders()[0])["dispatched_at"] is not None
    bench.deliver(bench.orders()[0])
    bench.tick()
    assert bench.deliver(job) == "COMPLETED"
    assert bench.count("effects") == 2


@BOTH
@pytest.mark.parametrize("error", [GiveUp("no"), WaitFor([TrackingRef("order", 7)])])
def test_what_the_body_enqueued_and_wrote_is_rolled_back_when_it_ends_in_any_other_way(
    bench: Bench, kind: str, error: Exception
) -> None:
    job = bench.enqueue(kind, *3 * [Step(orders=1, writes=True, error=error)])
    while bench.deliver(job) == "PENDING":
        pass

    assert bench.row(job)["status"] == "FAILED"
    assert (bench.count("effects"), bench.orders()) == (0, [])


@BOTH
def test_waiting_for_what_does_not_exist_is_an_error_like_any_other(bench: Bench, kind: str) -> None:
    job = bench.enqueue(kind, Step(after=(TrackingRef("order", 7),)), Step())
    bench.deliver(job)
    row = bench.row(job)

    assert (row["status"], row["attempts"]) == ("PENDING", 1)
    assert row["next_attempt_at"] is not None
    assert row["error_message"].startswith("TrackingNotFound: order 7: is named as a prerequisite")
    assert bench.needs(job) == []
    assert bench.deliver(job) == "COMPLETED"


@BOTH
@pytest.mark.parametrize("case", ["itself", "unknown domain", "nothing"])
def test_a_wait_that_makes_no_sense_fails_the_row_and_says_why(bench: Bench, kind: str, case: str) -> None:
    after: dict[str, Any] = {"itself": (TrackingRef(kind, 1),), "unknown domain": (TrackingRef("x", 1),)}
    error = None
    if case == "nothing":
        with pytest.raises(InvalidField, match="names no row to wait for") as refused:
            WaitFor([])
        error = refused.value
    job = bench.enqueue(kind, *3 * [Step(after=after.get(case, ()), error=error, writes=True)])
    while bench.deliver(job) == "PENDING":
        pass
    row = bench.row(job)

    words = {
        "itself": "InvalidField: after: a row cannot wait for itself",
        "unknown domain": "UnknownDomain: no domain is called 'x'",
        "nothing": "InvalidField: after: names no row to wait for",
    }
    assert row["status"] == "FAILED"
    assert row["error_message"].startswith(words[case])
    assert row["attempts"] == (3 if case == "unknown domain" else 1)
    assert (bench.count("effects"), bench.needs(job)) == (0, [])


@BOTH
def test_two_jobs_cannot_wait_for_each_other(bench: Bench, kind: str) -> None:
    other = bench.job.enqueue(payload="other")
    job = bench.enqueue(kind, Step(after=(other,)), Step(after=(TrackingRef(kind, 0),)))
    assert bench.deliver(job) == "PENDING"
    bench.script[0] = Step(after=(job,))
    bench.deliver(other)

    assert bench.row(other)["status"] == "FAILED"
    assert "that would be a cycle" in bench.row(other)["error_message"]


@BOTH
def test_what_is_met_already_is_not_waited_for(bench: Bench, kind: str) -> None:
    order = bench.order.enqueue(day=DAY, currency="ZZZ")
    bench.deliver(order)
    job = bench.enqueue(kind, Step(after=(order,)), Step())
    bench.deliver(job)
    row = bench.row(job)

    assert row["status"] == "PENDING"
    assert row["next_attempt_at"] is not None
    assert row["dispatched_at"] is not None  # its message is on its way; maintenance is not needed
    assert bench.deliver(job) == "COMPLETED"


@BOTH
@pytest.mark.parametrize(
    ("if_unmet", "status", "made_due", "cancelled"),
    [("proceed", "PENDING", 1, 0), ("wait", "PENDING", 0, 0), ("cancel", "CANCELLED", 0, 1)],
)
@pytest.mark.parametrize("ended", ["FAILED", "CANCELLED", "gone"])
def test_a_prerequisite_that_will_never_complete_does_what_was_asked_for(
    bench: Bench, kind: str, ended: str, if_unmet: str, status: str, made_due: int, cancelled: int
) -> None:
    job = bench.enqueue(kind, Step(orders=1, if_unmet=if_unmet), Step())
    bench.deliver(job)
    (order,) = bench.orders()
    with bench.engine.begin() as db:
        if ended == "gone":
            db.execute(text("DELETE FROM tracking.order_tracking"))
        else:
            tracker.move(db, OrderTracking, order.id, Status.CANCELLED, "nobody wants it")
            db.execute(text(f"UPDATE tracking.order_tracking SET status = '{ended}'"))
    done = bench.tick()

    assert (done.made_due, done.cancelled) == (made_due, cancelled)
    assert bench.row(job)["status"] == status
    assert (bench.row(job)["next_attempt_at"] is None) is (if_unmet != "proceed")
    if if_unmet == "proceed":
        assert bench.deliver(job) == "COMPLETED"
        assert bench.seen[-1] == [(order, True, True)]


@BOTH
def test_a_cancelled_job_cannot_wait_and_what_it_enqueued_is_rolled_back(bench: Bench, kind: str) -> None:
    task = getattr(bench, kind)
    job = bench.enqueue(kind, Step(orders=1, writes=True, before=lambda: task.cancel(1, "not needed")))
    bench.deliver(job)
    row = bench.row(job)

    assert (row["status"], row["error_message"]) == ("CANCELLED", "not needed")
    assert (bench.orders(), bench.count("effects"), bench.needs(job)) == ([], 0, [])
    with bench.trail.engines.pooled() as db:
        assert counters.read(db, SCHEMA)[kind, counters.STALE_WRITES] == 1


@BOTH
def test_a_job_cancelled_while_it_waits_stays_cancelled(bench: Bench, kind: str) -> None:
    job = bench.enqueue(kind, Step(orders=1), Step())
    bench.deliver(job)
    getattr(bench, kind).cancel(job.id, "not needed")
    bench.deliver(bench.orders()[0])
    bench.tick()

    assert bench.deliver(job) == "CANCELLED"


@BOTH
def test_an_attempt_knows_what_it_waited_for_itself_from_what_earlier_ones_waited_for(
    bench: Bench, kind: str
) -> None:
    job = bench.enqueue(
        kind, Step(orders=1), Step(error=GiveUp("in vain")), Step(orders=2), Step(error=GiveUp("again"))
    )
    bench.deliver(job)
    first = bench.orders()[0]
    bench.order.cancel(first.id, "no")
    bench.tick()
    assert bench.deliver(job) == "FAILED"
    getattr(bench, kind).retry(job.id)
    assert bench.deliver(job) == "PENDING"
    second = bench.orders()[1]
    assert bench.needs(job) == [(first.id, False), (second.id, False)]
    bench.deliver(first)
    bench.deliver(second)
    bench.tick()
    assert bench.deliver(job) == "FAILED"

    assert bench.seen == [
        [],
        [(first, True, True)],
        [(first, True, False)],
        [(first, True, True), (second, True, True)],
    ]


@BOTH
def test_a_job_may_wait_several_times_in_one_attempt(bench: Bench, kind: str) -> None:
    job = bench.enqueue(kind, Step(orders=1), Step(orders=2), Step())
    for _ in range(2):
        bench.deliver(job)
        for order in bench.orders():
            bench.deliver(order)
        bench.tick()

    assert bench.deliver(job) == "COMPLETED"
    assert bench.row(job)["attempts"] == 0
    assert [len(found) for found in bench.seen] == [0, 1, 2]


def test_a_body_may_wait_without_ever_using_its_session(bench: Bench) -> None:
    order = bench.order.enqueue(day=DAY, currency="ZZZ")
    jobs = [bench.job.enqueue(), bench.async_job.enqueue()]
    bench.script[:] = 2 * [Step(after=(order,))]

    assert [bench.deliver(job) for job in jobs] == ["PENDING", "PENDING"]
    assert [bench.needs(job) for job in jobs] == [[(order.id, False)], [(order.id, False)]]


@BOTH
def test_a_wait_that_the_database_refuses_costs_an_attempt_and_does_not_strand_the_row(
    bench: Bench, kind: str
) -> None:
    with bench.engine.begin() as db:
        db.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$BEGIN RAISE deadlock_detected USING MESSAGE = 'as in a deadlock'; END$$"
            )
        )
        db.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON tracking.tasktrail_prerequisites"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    job = bench.enqueue(kind, Step(orders=1, writes=True), Step())
    bench.deliver(job)
    row = bench.row(job)

    assert (row["status"], row["attempts"]) == ("PENDING", 1)
    assert "as in a deadlock" in row["error_message"]
    assert (bench.orders(), bench.count("effects")) == ([], 0)
    assert bench.deliver(job) == "COMPLETED"
