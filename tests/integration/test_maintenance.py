"""Maintenance on a real database: who leads, what is sent, rescued and deleted, and how much at a time.

Time passes by moving the times in the rows.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from tasktrail import FencedOut, RetryPolicy, Status, tracker
from tasktrail.chores import Chore
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.errors import LeaseExpired
from tasktrail.maintenance import BATCH, BATCHES_PER_TICK
from tasktrail.registry import Domain
from tasktrail.retry import Retry
from tasktrail.settings import sqlalchemy_url
from tasktrail.sweeps import MOST_PATIENCE
from tests.rows import add_job, add_job_in, claim, columns, count_rows
from tests.support import SCHEMA, JobTracking, JobTrackingService, OrderTracking, create_tables
from tests.upkeep import Outbox, Rows, Upkeep, all_domains, disconnect, leaders, shift
from tests.waiting import until

HOUR = 3600
DAY = 24 * HOUR
QUICK = {"maintenance_interval": 0.02, "heartbeat_interval": 0.1}


MakeUpkeep = Callable[..., Upkeep]


@pytest.fixture
def make_upkeep(database_url: str) -> Iterator[MakeUpkeep]:
    """Maintenance of the fresh database, with settings of one's own."""
    made: list[Upkeep] = []

    def make(**options: Any) -> Upkeep:
        made.append(Upkeep(**{"url": database_url, **options}))
        return made[-1]

    yield make
    for upkeep in made:
        upkeep.engines.dispose()


@pytest.fixture
def upkeep(make_upkeep: MakeUpkeep) -> Upkeep:
    """Maintenance of the fresh database, with the usual settings."""
    return make_upkeep()


def pass_time(engine: Engine, seconds: float, model: Any = JobTracking) -> None:
    """Let time pass for all rows of a domain."""
    times = ("created_at", "completed_at", "next_attempt_at", "dispatched_at", "heartbeat_at", "started_at")
    shift(engine, -seconds, *times, model=model)


def add_jobs(engine: Engine, count: int, *, seconds_ago: float = HOUR, status: str = "PENDING") -> None:
    """Add many rows at once: PENDING and due since then, PROCESSING with a heartbeat or ended then."""
    columns = {
        "PENDING": "next_attempt_at",
        "PROCESSING": "created_at, started_at, heartbeat_at",
    }.get(status, "created_at, started_at, completed_at")
    then = ", ".join("now() - make_interval(secs => :ago)" for _ in columns.split(","))
    with engine.begin() as db:
        db.execute(
            text(
                f"INSERT INTO tracking.job_tracking (status, celery_task_id, worker, {columns})"
                f" SELECT :status, gen_random_uuid(), 'w1', {then} FROM generate_series(1, :count)"
            ),
            {"status": status, "ago": seconds_ago, "count": count},
        )


def scalar(engine: Engine, query: str) -> Any:
    with engine.connect() as db:
        return db.scalar(text(query))


def waiting_for_locks(engine: Engine, name: str) -> int:
    """Count the connections of an application that wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'"
    return int(scalar(engine, query.format(name)))


def at_once(upkeeps: Sequence[Upkeep]) -> None:
    """Do a round on each of several connections, all at the same moment."""
    barrier = threading.Barrier(len(upkeeps))

    def tick(upkeep: Upkeep) -> None:
        with upkeep.engines.pooled() as db:
            barrier.wait(10)
            upkeep.maintenance.tick(db)

    with ThreadPoolExecutor(len(upkeeps)) as threads:
        list(threads.map(tick, upkeeps))


# Dispatching


def test_a_due_row_whose_message_never_went_out_is_sent_once(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job(engine)

    rounds = [upkeep.tick().dispatched for _ in range(3)]

    assert rounds == [1, 0, 0]
    assert upkeep.outbox.ids() == [job]
    assert columns(engine, job)["dispatched_at"] >= columns(engine, job)["next_attempt_at"]


def test_a_message_goes_out_under_the_celery_id_of_its_row(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job(engine)
    sent: list[Rows] = []
    upkeep.outbox.before = sent.append

    upkeep.tick()

    assert sent == [[(job, columns(engine, job)["celery_task_id"])]]


@pytest.mark.parametrize(
    "due", [datetime.now(UTC) + timedelta(hours=3), None], ids=["not due yet", "held, or a migration's"]
)
def test_a_row_that_is_not_due_is_never_sent(engine: Engine, upkeep: Upkeep, due: datetime | None) -> None:
    job = add_job(engine, next_attempt_at=due)
    before = columns(engine, job)

    upkeep.tick()

    assert upkeep.outbox.ids() == []
    assert columns(engine, job) == before


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PENDING])
def test_a_row_that_does_not_wait_for_a_worker_is_never_sent(
    engine: Engine, upkeep: Upkeep, status: Status
) -> None:
    job = add_job_in(engine, status)

    upkeep.tick()

    assert upkeep.outbox.ids() == []
    assert columns(engine, job)["status"] == status


def test_a_retry_in_three_hours_is_sent_once_when_it_is_due_and_not_before(
    engine: Engine, upkeep: Upkeep
) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
    fence = claim(engine, job).fence
    with engine.begin() as db:
        tracker.fail(db, JobTracking, fence, Retry(3 * HOUR), error="ValueError: not now")

    early = [upkeep.tick().dispatched]
    pass_time(engine, 3 * HOUR - 60)
    early.append(upkeep.tick().dispatched)
    pass_time(engine, 60)
    due = [upkeep.tick().dispatched for _ in range(3)]

    assert (early, due) == ([0, 0], [1, 0, 0])


def test_a_row_in_a_long_queue_is_sent_again_after_waits_that_double(engine: Engine, upkeep: Upkeep) -> None:
    add_jobs(engine, 1200, seconds_ago=0)
    first = upkeep.tick().dispatched
    waited = 0.0
    again = []
    for _ in range(6):
        patience = min(max(60.0, waited), MOST_PATIENCE * 60.0)  # doubling ends there
        pass_time(engine, patience - 5)
        early = upkeep.tick().dispatched
        pass_time(engine, 10)
        again.append((early, upkeep.tick().dispatched))
        waited += patience + 5

    assert first == 1200
    assert again == [(0, 1200)] * 6
    assert waited > HOUR / 2


def test_rows_go_out_longest_due_first(engine: Engine, upkeep: Upkeep) -> None:
    add_jobs(engine, BATCH + 1, seconds_ago=0)
    shift(engine, -HOUR, "next_attempt_at", ids=[BATCH + 1])
    batches: list[Rows] = []
    upkeep.outbox.before = batches.append

    upkeep.tick()

    assert [len(batch) for batch in batches] == [BATCH, 1]
    assert BATCH + 1 in [row for row, _ in batches[0]]


def test_a_broker_that_fails_leaves_the_rows_to_the_next_round(engine: Engine, upkeep: Upkeep) -> None:
    add_jobs(engine, BATCH + 10)
    upkeep.outbox.works = False

    failed = upkeep.tick().dispatched
    unmarked = scalar(engine, "SELECT count(*) FROM tracking.job_tracking WHERE dispatched_at IS NULL")
    tried = upkeep.outbox.batches.copy()
    upkeep.outbox.works = True
    sent = upkeep.tick().dispatched

    assert (failed, unmarked, tried) == (0, BATCH + 10, [BATCH])
    assert sent == BATCH + 10
    assert upkeep.outbox.ids() == list(range(1, BATCH + 11))


def test_a_row_whose_message_got_out_before_the_broker_failed_goes_on(engine: Engine, upkeep: Upkeep) -> None:
    job, other = add_job(engine), add_job(engine)
    upkeep.outbox.works = False
    upkeep.outbox.before = lambda _: claim(engine, job)

    upkeep.tick()

    assert columns(engine, job)["status"] == Status.PROCESSING
    assert columns(engine, job)["dispatched_at"] is not None
    assert columns(engine, other)["dispatched_at"] is None


def test_a_domain_without_a_task_is_not_sent(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    job = add_job(engine)
    upkeep = make_upkeep(
        domains=[Domain(name="job", model=JobTracking, service=JobTrackingService, schema=SCHEMA)]
    )

    upkeep.tick()

    assert upkeep.outbox.ids() == []
    assert columns(engine, job)["dispatched_at"] is None


# Rescue


def expire(engine: Engine, *jobs: int, seconds: float = 61) -> None:
    shift(engine, -seconds, "heartbeat_at", ids=jobs)


def test_a_row_whose_lease_ran_out_is_due_again_with_the_attempt_counted_and_logged(
    engine: Engine, upkeep: Upkeep
) -> None:
    job = add_job(engine)
    fence = claim(engine, job, worker="w7").fence
    expire(engine, job)

    rounds = [upkeep.tick().rescued for _ in range(2)]

    row = columns(engine, job)
    [entry] = row["attempt_log"]
    assert rounds == [1, 0]
    assert (row["status"], row["attempts"], row["heartbeat_at"]) == (Status.PENDING, 1, None)
    assert (entry["number"], entry["outcome"], entry["worker"]) == (1, "lost", "w7")
    assert entry["error"] == row["error_message"] == "LeaseExpired: no heartbeat for 60 s"
    assert datetime.fromisoformat(entry["start"]) == fence.started_at
    assert timedelta(seconds=59) < row["next_attempt_at"] - row["updated_at"] < timedelta(seconds=61)
    assert upkeep.counters() == {("job", "lease_expiries"): 1}


def test_a_rescued_row_is_sent_when_its_delay_is_over(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    job = add_job(engine)
    claim(engine, job)
    expire(engine, job)
    upkeep = make_upkeep(policy=RetryPolicy(base=0))

    done = upkeep.tick()

    assert (done.rescued, done.dispatched) == (1, 1)
    assert upkeep.outbox.ids() == [job]


def test_a_row_that_lost_its_last_attempt_is_failed(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job(engine, max_attempts=1)
    claim(engine, job)
    expire(engine, job)

    upkeep.tick()

    row = columns(engine, job)
    assert (row["status"], row["attempts"]) == (Status.FAILED, 1)
    assert row["completed_at"] >= row["started_at"]
    assert [entry["outcome"] for entry in row["attempt_log"]] == ["lost"]


def test_a_policy_may_give_up_on_a_lost_attempt_at_once(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    job = add_job(engine, max_attempts=9)
    claim(engine, job)
    expire(engine, job)

    make_upkeep(policy=RetryPolicy(give_up_on=(LeaseExpired,))).tick()

    row = columns(engine, job)
    assert (row["status"], row["attempts"]) == (Status.FAILED, 1)


def test_a_job_that_is_lost_each_time_ends_failed(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    upkeep = make_upkeep(policy=RetryPolicy(base=0))
    job = add_job(engine, max_attempts=4)
    attempts = 0
    while columns(engine, job)["status"] == Status.PENDING:
        claim(engine, job)
        expire(engine, job)
        upkeep.tick()
        attempts += 1

    row = columns(engine, job)
    assert (attempts, row["attempts"], row["status"]) == (4, 4, Status.FAILED)
    assert [entry["number"] for entry in row["attempt_log"]] == [1, 2, 3, 4]


def test_a_lease_is_good_until_it_ran_out(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job(engine)
    claim(engine, job)
    expire(engine, job, seconds=50)

    assert upkeep.tick().rescued == 0
    assert columns(engine, job)["status"] == Status.PROCESSING


def test_a_row_without_a_lease_is_never_rescued(engine: Engine, upkeep: Upkeep) -> None:
    """Callers of the seed API and a migration take rows to PROCESSING without a heartbeat."""
    job = add_job(engine)
    with engine.begin() as db:
        tracker.move(db, JobTracking, job, Status.PROCESSING)
    pass_time(engine, 30 * DAY)

    assert upkeep.tick().rescued == 0
    assert columns(engine, job)["status"] == Status.PROCESSING


def test_the_worker_of_a_rescued_row_is_fenced_out(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job(engine)
    fence = claim(engine, job).fence
    expire(engine, job)
    upkeep.tick()

    with engine.begin() as db, pytest.raises(FencedOut):
        tracker.complete(db, JobTracking, fence)


# Several at once


def test_of_several_leaders_at_once_one_sends_each_row(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    add_jobs(engine, 3000)
    upkeeps = [make_upkeep() for _ in range(4)]

    at_once(upkeeps)

    sent = sorted(row for upkeep in upkeeps for row in upkeep.outbox.ids())
    assert sent == list(range(1, 3001))


def test_of_several_leaders_at_once_one_rescues_each_row(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    add_jobs(engine, 3000, status="PROCESSING")
    upkeeps = [make_upkeep() for _ in range(4)]

    at_once(upkeeps)

    table = "tracking.job_tracking"
    query = f"SELECT count(*) FROM {table} WHERE attempts = 1 AND jsonb_array_length(attempt_log) = 1"
    assert scalar(engine, query) == 3000
    assert upkeeps[0].counters() == {("job", "lease_expiries"): 3000}


def test_a_leader_that_lost_its_leadership_in_the_middle_of_a_round_does_nothing_twice(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    paused, go_on = threading.Event(), threading.Event()
    first = make_upkeep(name="first", lease=2.0, **QUICK)
    second = make_upkeep(name="second", lease=2.0, **QUICK)

    def pause(_: Rows) -> None:
        paused.set()
        go_on.wait(20)

    first.outbox.before = pause
    with first.running():
        add_jobs(engine, 5)
        assert paused.wait(20)
        lost = add_job(engine)
        claim(engine, lost)  # before anybody leads who would send it
        with second.running():
            until(lambda: leaders(engine) == ["second"])  # the silent one lost the lock
            later = [add_job(engine) for _ in range(5)]
            expire(engine, lost)
            until(lambda: columns(engine, lost)["attempts"] == 1)
            until(lambda: second.outbox.ids() == later)
            go_on.set()
            until(first.outbox.ids)
        until(lambda: leaders(engine) == ["first"])  # and leads again when it can

    assert sorted(first.outbox.ids() + second.outbox.ids()) == [*range(1, 6), *later]
    assert columns(engine, lost)["attempts"] == 1


# Leadership


def test_only_one_of_two_leads(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    first, second = (make_upkeep(name=name, **QUICK) for name in ("first", "second"))

    with first.running(), second.running():
        [leader] = until(lambda: leaders(engine))
        jobs = []
        for _ in range(5):
            jobs.append(add_job(engine))
            until(lambda: len(first.outbox.ids() + second.outbox.ids()) == len(jobs))

    follower = {"first": second, "second": first}[leader]
    assert follower.outbox.ids() == []


def test_the_leader_does_the_chores_and_one_that_fails_keeps_it_from_nothing(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    done: list[str] = []

    def chore_of(name: str) -> Chore:
        def work() -> None:
            done.append(name)
            raise ValueError("a chore that fails")

        return Chore("chore", 0.01, work)

    names = ("first", "second")
    first, second = (make_upkeep(name=name, chores=[chore_of(name)], **QUICK) for name in names)
    with first.running(), second.running():
        [leader] = until(lambda: leaders(engine))
        until(lambda: len(done) > 2)
        job = add_job(engine)
        until(lambda: first.outbox.ids() + second.outbox.ids() == [job])
        by_now = set(done)

    assert by_now == {leader}


def test_applications_with_tables_of_their_own_do_not_keep_each_other_from_leading(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    jobs, orders = (
        [domain for domain in all_domains(RetryPolicy()) if domain.model is model]
        for model in (JobTracking, OrderTracking)
    )
    first = make_upkeep(name="jobs", domains=jobs, **QUICK)
    second = make_upkeep(name="orders", domains=orders, **QUICK)

    with first.running(), second.running():
        until(lambda: sorted(leaders(engine)) == ["jobs", "orders"])


def test_another_one_leads_when_the_leader_ends(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    first, second = (make_upkeep(name=name, **QUICK) for name in ("first", "second"))

    with ExitStack() as rest:
        with ExitStack() as leading:
            leading.enter_context(first.running())
            until(lambda: leaders(engine) == ["first"])
            rest.enter_context(second.running())
        until(lambda: leaders(engine) == ["second"])
        job = add_job(engine)
        until(lambda: second.outbox.ids() == [job])


def test_a_leader_that_is_cut_off_from_the_database_leads_again(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    upkeep = make_upkeep(name="cut off", **QUICK)

    with upkeep.running() as thread:
        for _ in range(3):
            until(lambda: leaders(engine) == ["cut off"])
            disconnect(engine, "cut off")
            job = add_job(engine)
            until(lambda job=job: job in upkeep.outbox.ids())
        alive = thread.is_alive()

    assert alive
    assert upkeep.outbox.ids() == [1, 2, 3]


def test_a_leader_that_is_told_to_stop_gives_up_the_lock_and_a_clean_connection(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    upkeep = make_upkeep(name="leader", maintenance_interval=60)
    stop = threading.Event()
    thread = threading.Thread(target=upkeep.maintenance.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: leaders(engine) == ["leader"])

    stop.set()
    thread.join(10)

    assert not thread.is_alive()
    assert leaders(engine) == []
    with upkeep.engines.pooled() as db:
        assert db.scalar(text("SHOW idle_session_timeout")) == "0"
    upkeep.engines.dispose()


def test_maintenance_waits_for_a_database_that_is_not_there(
    database_url: str, make_upkeep: MakeUpkeep, caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = make_upkeep(url=database_url.replace("/test_", "/missing_"), **QUICK)

    with upkeep.running() as thread:
        until(lambda: caplog.text.count("leadership lost: the database at") >= 2)
        assert thread.is_alive()


def test_maintenance_outlives_an_error_that_nobody_expected(
    engine: Engine, make_upkeep: MakeUpkeep, caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = make_upkeep(redispatch_after=0.05, **QUICK)
    errors = iter([ZeroDivisionError("a bug in the transport")])

    def fail_once(_: Rows) -> None:
        for error in errors:
            raise error

    upkeep.outbox.before = fail_once
    with upkeep.running():
        job = add_job(engine)
        until(lambda: job in upkeep.outbox.ids())

    assert "a bug in the transport" in caplog.text


@pytest.fixture
def trouble(engine: Engine, request: pytest.FixtureRequest) -> Iterator[None]:
    """Something is wrong with the first domain's table: a failed deployment, or a lock that is held."""
    with engine.connect() as db:
        if request.param == "missing":
            db.execute(text("ALTER TABLE tracking.job_tracking RENAME TO gone"))
            db.commit()
        else:
            db.execute(text("LOCK TABLE tracking.job_tracking IN ACCESS EXCLUSIVE MODE"))
        yield
        db.rollback()


def add_order(engine: Engine, **fields: Any) -> int:
    with engine.begin() as db:
        fields = {"day": datetime.now(UTC).date(), "currency": "EUR", **fields}
        return tracker.create(db, OrderTracking, fields).id


@pytest.mark.parametrize("trouble", ["missing", "locked"], indirect=True)
@pytest.mark.usefixtures("trouble")
def test_a_domain_whose_table_cannot_be_used_keeps_no_other_from_being_dispatched_and_rescued(
    engine: Engine, make_upkeep: MakeUpkeep, caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = make_upkeep(lease=0.5, **QUICK)
    assert next(iter(upkeep.registry)).name == "job"
    due, lost = add_order(engine), add_order(engine, currency="USD", max_attempts=1)
    with engine.begin() as db:
        tracker.claim(db, OrderTracking, lost, celery_task_id="task 1", worker="w1")
    shift(engine, -61, "heartbeat_at", ids=[lost], model=OrderTracking)

    with upkeep.running() as thread:
        until(lambda: due in upkeep.outbox.ids("order"), seconds=20)
        until(lambda: columns(engine, lost, OrderTracking)["status"] == Status.FAILED, seconds=20)
        rounds = len(upkeep.outbox.batches)
        again = add_order(engine, currency="CHF")
        until(lambda: again in upkeep.outbox.ids("order"), seconds=20)
        assert thread.is_alive()

    assert len(upkeep.outbox.batches) > rounds
    assert caplog.text.count("the dispatch of job failed") == 1, "it is logged once, not in every round"
    assert "leadership lost" not in caplog.text


def test_a_domain_whose_table_can_be_used_again_goes_on_and_its_workers_may_renew_their_leases_first(
    engine: Engine, make_upkeep: MakeUpkeep, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    upkeep = make_upkeep(maintenance_interval=0.02, heartbeat_interval=30, lease=60)
    job, live = add_job(engine), add_job(engine)
    claim(engine, live)
    expire(engine, live)

    with engine.begin() as db:
        db.execute(text("LOCK TABLE tracking.job_tracking IN ACCESS EXCLUSIVE MODE"))
        upkeep.lead()
    first = upkeep.lead()

    assert (first.dispatched, first.rescued) == (1, 0)
    assert job in upkeep.outbox.ids()
    assert "the dispatch of job goes on" in caplog.text


def test_a_prerequisite_whose_table_is_locked_holds_up_nobody_else(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    upkeep = make_upkeep()
    job, order = add_job(engine), add_order(engine)
    waiting = [add_order(engine, currency=currency, next_attempt_at=None) for currency in ("USD", "CHF")]
    with engine.begin() as db:
        for row, (domain, needs) in zip(waiting, [("job", job), ("order", order)], strict=True):
            db.execute(
                text(
                    "INSERT INTO tracking.tasktrail_prerequisites (domain, tracking_id, needs_domain, "
                    "needs_id, if_unmet) VALUES ('order', :row, :domain, :needs, 'wait')"
                ),
                {"row": row, "domain": domain, "needs": needs},
            )
        db.execute(
            text(
                "UPDATE tracking.order_tracking SET status = 'COMPLETED', completed_at = now() WHERE id = :id"
            ),
            {"id": order},
        )

    with engine.begin() as db:
        db.execute(text("LOCK TABLE tracking.job_tracking IN ACCESS EXCLUSIVE MODE"))
        assert upkeep.lead().made_due == 1

    assert columns(engine, waiting[1], OrderTracking)["next_attempt_at"] is not None


@pytest.mark.parametrize("work", ["roll_up", "prune"])
@pytest.mark.parametrize("trouble", ["missing", "locked"], indirect=True)
@pytest.mark.usefixtures("trouble")
def test_a_domain_whose_table_cannot_be_used_keeps_no_other_from_being_rolled_up_and_pruned(
    engine: Engine, make_upkeep: MakeUpkeep, work: str
) -> None:
    upkeep = make_upkeep(lease=0.5, **QUICK)
    order = add_order(engine)
    with engine.begin() as db:
        db.execute(text("UPDATE tracking.order_tracking SET status = 'COMPLETED', completed_at = now()"))
    if work == "prune":
        shift(engine, -40 * DAY, "created_at", "completed_at", ids=[order], model=OrderTracking)

    getattr(upkeep.maintenance, work)()

    if work == "prune":
        assert count_rows(engine, OrderTracking) == 0
    else:
        query = "SELECT count(*) FROM tracking.tasktrail_rollup_state WHERE domain = 'order'"
        assert scalar(engine, query) == 1


def test_a_new_leader_gives_workers_the_time_to_renew_their_leases(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    """After an outage of the database all leases look expired, those of live workers, too."""
    upkeep = make_upkeep(maintenance_interval=0.02, heartbeat_interval=30, lease=60)
    live = add_job(engine)
    fence = claim(engine, live).fence
    expire(engine, live)

    with upkeep.running():
        for _ in range(3):
            job = add_job(engine)
            until(lambda job=job: job in upkeep.outbox.ids())
        with engine.begin() as db:
            tracker.heartbeat(db, JobTracking, fence)


def test_maintenance_survives_restarts_of_postgresql(tmp_path: Path, make_upkeep: MakeUpkeep) -> None:
    server = EmbeddedPostgres(tmp_path, options={"fsync": "off"})
    server.start()
    engine = create_engine(sqlalchemy_url(server.url), pool_pre_ping=True)
    try:
        create_tables(engine)
        upkeep = make_upkeep(url=server.url, **QUICK)
        with upkeep.running() as thread:
            for mode in ("fast", "immediate"):
                until(lambda: leaders(engine))
                server.restart(mode)
                job, lost = add_job(engine), add_job(engine, max_attempts=1)
                claim(engine, lost)
                expire(engine, lost)
                until(lambda job=job: job in upkeep.outbox.ids())
                until(lambda lost=lost: columns(engine, lost)["status"] == Status.FAILED)
            assert thread.is_alive()
    finally:
        engine.dispose()
        server.stop("immediate")


def test_a_leader_rescues_while_its_pruning_waits_for_somebody_elses_lock(
    engine: Engine, make_upkeep: MakeUpkeep
) -> None:
    add_jobs(engine, 1, seconds_ago=40 * DAY, status="COMPLETED")
    lost = add_job(engine, max_attempts=1)
    claim(engine, lost)
    expire(engine, lost)
    make_upkeep().maintenance.roll_up()

    with engine.begin() as other:
        other.execute(text("SELECT FROM tracking.tasktrail_rollup_state FOR UPDATE"))
        with make_upkeep(name="leader", prune_interval=0.01, **QUICK).running():
            until(lambda: waiting_for_locks(engine, "leader"))
            until(lambda: columns(engine, lost)["status"] == Status.FAILED)
            other.rollback()


@pytest.mark.parametrize("work", ["roll_up", "prune"])
def test_locks_of_a_leader_that_fell_silent_hold_the_next_one_up_for_a_lease_at_most(
    engine: Engine, make_upkeep: MakeUpkeep, work: str
) -> None:
    silent, following = (make_upkeep(name=name, lease=0.5, **QUICK) for name in ("silent", "following"))
    add_jobs(engine, 1, seconds_ago=40 * DAY, status="COMPLETED")
    silent.maintenance.roll_up()

    with silent.engines.maintenance.connect() as db:  # which is paused, or cut off, in the middle of it
        db.execute(text("SELECT FROM tracking.tasktrail_rollup_state FOR UPDATE"))
        start = time.monotonic()
        getattr(following.maintenance, work)()
        took = time.monotonic() - start
        with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
            db.execute(text("SELECT 1"))
        db.invalidate()

    assert 0.3 < took < 10


# Many rows


def test_a_hundred_thousand_overdue_rows_go_out_in_bounded_batches_and_memory_without_blocking_claims(
    engine: Engine, database_url: str, make_upkeep: MakeUpkeep
) -> None:
    total = 100_000
    add_jobs(engine, total)
    with engine.begin() as db:
        order = tracker.create(db, OrderTracking, {"day": datetime.now(UTC).date(), "currency": "EUR"}).id
    to_claim = iter(range(total, 0, -500))
    waits: list[float] = []
    sent: list[tuple[int, int]] = []
    memory: list[int] = []

    def claim_meanwhile(rows: Rows) -> None:
        """While its batch is being sent, claim a row of it and another one; a lock would be an error."""
        sent.append((len(rows), sum(row for row, _ in rows)))
        memory.append(tracemalloc.get_traced_memory()[0])
        for job in (rows[0][0], next(to_claim)):
            start = time.monotonic()
            with claimants.begin() as db:
                tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1")
            waits.append(time.monotonic() - start)

    class Counting(Outbox):
        def __call__(self, domain: Domain, rows: Rows) -> bool:
            if domain.name == "job":
                claim_meanwhile(rows)
                return True
            return super().__call__(domain, rows)

    claimants = create_engine(sqlalchemy_url(database_url), connect_args={"options": "-c lock_timeout=1000"})
    upkeep = make_upkeep(outbox=Counting())
    tracemalloc.start()
    try:
        first = upkeep.tick()
        upkeep.tick_until_nothing_is_left()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        claimants.dispose()

    claimed_first = total - sum(size for size, _ in sent)
    assert first.dispatched == BATCH * BATCHES_PER_TICK + 1
    assert upkeep.outbox.ids("order") == [order]
    assert {size for size, _ in sent[:-1]} == {BATCH}
    assert (
        scalar(engine, "SELECT count(*) FROM tracking.job_tracking WHERE dispatched_at IS NULL")
        == claimed_first
    )
    assert 0 <= claimed_first <= len(waits)
    assert max(waits) < 1
    assert peak < 8_000_000
    assert memory[-1] - memory[10] < 1_000_000


def test_many_lost_rows_are_rescued_in_bounded_batches(engine: Engine, upkeep: Upkeep) -> None:
    total = BATCH * BATCHES_PER_TICK + 700
    add_jobs(engine, total, status="PROCESSING")

    rounds = [done.rescued for done in upkeep.tick_until_nothing_is_left()]

    assert rounds == [BATCH * BATCHES_PER_TICK, 700]
    assert scalar(engine, "SELECT sum(attempts) FROM tracking.job_tracking") == total
    assert upkeep.counters() == {("job", "lease_expiries"): total}


# Pruning


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_rows_that_ended_before_the_retention_are_deleted(
    engine: Engine, upkeep: Upkeep, status: Status
) -> None:
    old, young = add_job_in(engine, status), add_job_in(engine, status)
    shift(engine, -31 * DAY, "created_at", "completed_at", ids=[old])
    shift(engine, -29 * DAY, "created_at", "completed_at", ids=[young])

    assert upkeep.prune() == 1
    assert scalar(engine, "SELECT array_agg(id) FROM tracking.job_tracking") == [young]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
def test_an_unfinished_row_is_never_deleted(engine: Engine, upkeep: Upkeep, status: Status) -> None:
    job = add_job_in(engine, status)
    shift(engine, -3650 * DAY, "created_at", "updated_at", "next_attempt_at", "started_at", ids=[job])

    assert upkeep.prune() == 0
    assert columns(engine, job)["status"] == status


def test_a_row_counts_from_its_end_and_not_from_its_creation(engine: Engine, upkeep: Upkeep) -> None:
    job = add_job_in(engine, Status.FAILED)
    shift(engine, -3650 * DAY, "created_at", ids=[job])
    shift(engine, -29 * DAY, "completed_at", ids=[job])

    assert upkeep.prune() == 0
    assert count_rows(engine) == 1


def test_each_domain_may_have_a_retention_of_its_own(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    jobs, *others = all_domains(RetryPolicy())
    short = Domain(
        name="job", model=JobTracking, service=jobs.service, retention=timedelta(hours=1), schema=SCHEMA
    )
    upkeep = make_upkeep(domains=[short, *others], retention=0.5)
    add_jobs(engine, 1, seconds_ago=2 * HOUR, status="COMPLETED")
    day = {"day": datetime.now(UTC).date()}
    with engine.begin() as db:
        kept = tracker.create(db, OrderTracking, {**day, "currency": "EUR"}).id
        tracker.create(db, OrderTracking, {**day, "currency": "USD"})
        for order in (1, 2):
            tracker.cancel(db, OrderTracking, order, "nobody wants it")
    shift(engine, -2 * HOUR, "created_at", "completed_at", ids=[1], model=OrderTracking)
    shift(engine, -13 * HOUR, "created_at", "completed_at", ids=[2], model=OrderTracking)

    assert upkeep.prune() == 2
    assert count_rows(engine) == 0
    assert scalar(engine, "SELECT array_agg(id) FROM tracking.order_tracking") == [kept]


def test_old_rows_are_deleted_in_bounded_batches(engine: Engine, upkeep: Upkeep) -> None:
    total = BATCH * BATCHES_PER_TICK + 700
    add_jobs(engine, total, seconds_ago=40 * DAY, status="COMPLETED")
    add_jobs(engine, 3, seconds_ago=DAY, status="COMPLETED")

    rounds = [upkeep.prune() for _ in range(3)]

    assert rounds == [BATCH * BATCHES_PER_TICK, 700, 0]
    assert count_rows(engine) == 3


def test_a_domain_whose_rows_cannot_be_deleted_keeps_no_other_from_being_pruned(
    engine: Engine, upkeep: Upkeep, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as db:
        tracker.create(db, OrderTracking, {"day": datetime.now(UTC).date(), "currency": "EUR"})
        db.execute(text("UPDATE tracking.order_tracking SET status = 'COMPLETED', completed_at = now()"))
        db.execute(text("ALTER TABLE tracking.job_tracking RENAME TO gone"))
    shift(engine, -40 * DAY, "created_at", "completed_at", ids=[1], model=OrderTracking)

    assert next(iter(upkeep.registry)).name == "job"
    assert upkeep.prune() == 1
    assert "pruning of job failed" in caplog.text


def test_old_rows_are_looked_for_now_and_then_only(engine: Engine, make_upkeep: MakeUpkeep) -> None:
    add_jobs(engine, 1, seconds_ago=40 * DAY, status="COMPLETED")
    with make_upkeep(prune_interval=HOUR, **QUICK).running():
        until(lambda: count_rows(engine) == 0)
        add_jobs(engine, 1, seconds_ago=40 * DAY, status="COMPLETED")
        job = add_job(engine)
        until(lambda: columns(engine, job)["dispatched_at"])
        assert count_rows(engine) == 2
    with make_upkeep(prune_interval=HOUR, **QUICK).running():
        until(lambda: count_rows(engine) == 1)
