"""Every operation on a tracking row, on real PostgreSQL: what it writes, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import count, product
from threading import Barrier
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, Engine, String, create_engine, func, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tasktrail import (
    TRANSITIONS,
    BaseTaskTracking,
    DuplicateTracking,
    FencedOut,
    InvalidField,
    NaturalKey,
    Status,
    TrackingNotFound,
    TrackingOptions,
    WrongState,
    tracker,
)
from tasktrail.engines import Engines
from tasktrail.models import ATTEMPT_LOG_LIMIT, AttemptEntry
from tasktrail.retry import NoRetry, Retry
from tasktrail.states import ACTIVE, REVIVABLE, sources
from tasktrail.tracker import Added, AddedRow, Outcome
from tests.rows import (
    add_job,
    add_job_in,
    claim,
    columns,
    count_rows,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.support import JobTracking, OrderTracking, ParcelTracking

DAY_ONE = date(2000, 1, 1).toordinal()
_days = count(DAY_ONE)


@pytest.fixture(scope="module")
def engine(make_database: Callable[..., str], library_template: str) -> Iterator[Engine]:
    """One database for the file; each test has rows of its own."""
    engine = create_engine(make_database(library_template), pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture(params=[OrderTracking, ParcelTracking], ids=["in one piece", "in partitions"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The fields of an order that no other test has; its table may be a partitioned one."""
    monkeypatch.setattr(sys.modules[__name__], "OrderTracking", request.param)
    return {"day": date.fromordinal(next(_days)), "currency": "EUR"}


def add_order(engine: Engine, fields: Mapping[str, Any], status: Status = Status.PENDING) -> int:
    table = OrderTracking.__table__
    with engine.begin() as db:
        order = tracker.create(db, OrderTracking, fields).id
        db.execute(table.update().where(table.c.id == order).values(status=status))
        return order


def create(engine: Engine, fields: Mapping[str, Any], **options: Any) -> AddedRow:
    with engine.begin() as db:
        return tracker.create(db, OrderTracking, fields, **options)


def together(function: Callable[[int], object], workers: int = 8) -> list[Any]:
    """Call a function from several threads at the same moment."""
    barrier = Barrier(workers)

    def start(number: int) -> object:
        barrier.wait()
        return function(number)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(start, range(workers)))


# create


def test_a_new_row_waits_and_is_due_now(engine: Engine, order: dict[str, Any]) -> None:
    with engine.begin() as db:
        began = db.scalar(text("SELECT clock_timestamp()"))
        added = tracker.create(db, OrderTracking, order)
        ended = db.scalar(text("SELECT clock_timestamp()"))

    row = columns(engine, added.id, OrderTracking)
    assert (added.outcome, added.status) == (Added.CREATED, Status.PENDING)
    assert order == {name: row[name] for name in order}
    assert row["celery_task_id"] == added.celery_task_id
    assert (row["status"], row["attempts"], row["max_attempts"]) == ("PENDING", 0, 3)
    assert row["created_at"] == row["updated_at"] == row["next_attempt_at"]
    assert began - timedelta(seconds=1) <= row["created_at"] <= ended
    assert row["attempt_log"] == []
    never = ["started_at", "completed_at", "error_message", "heartbeat_at", "worker", "dispatched_at"]
    assert dict.fromkeys(never) == {name: row[name] for name in never}


@pytest.mark.parametrize("lend", ["pooled", "kept"])
def test_a_row_can_be_created_on_every_connection_the_tracker_takes(engine: Engine, lend: str) -> None:
    engines = Engines(engine.url.render_as_string(hide_password=False))
    with getattr(engines, lend)() as db:
        job = tracker.create(db, JobTracking, {"payload": lend}).id
    engines.dispose()

    assert columns(engine, job)["payload"] == lend


def test_a_new_row_keeps_what_its_creator_may_set(engine: Engine) -> None:
    due = datetime(2030, 1, 1, tzinfo=UTC)

    job = add_job(engine, max_attempts=7, next_attempt_at=due, celery_task_id="task x", payload="p")

    row = columns(engine, job)
    assert (row["max_attempts"], row["next_attempt_at"]) == (7, due)
    assert (row["celery_task_id"], row["payload"]) == ("task x", "p")


def test_a_bad_field_leaves_no_row_and_a_usable_transaction(engine: Engine, order: dict[str, Any]) -> None:
    before = count_rows(engine, OrderTracking)
    with engine.begin() as db:
        with pytest.raises(InvalidField, match=r"^currency: is 4 characters long, 3 fit \(got 'EURO'\)$"):
            tracker.create(db, OrderTracking, {**order, "currency": "EURO"})
        tracker.create(db, OrderTracking, order)

    assert count_rows(engine, OrderTracking) == before + 1


def test_rows_of_a_domain_without_a_natural_key_are_never_duplicates(engine: Engine) -> None:
    jobs = {add_job(engine, payload="same") for _ in range(3)}

    assert len(jobs) == 3


@pytest.mark.parametrize(
    ("on_duplicate", "status", "expected"),
    [
        *(("return", status, Added.EXISTING) for status in Status),
        *(("restart", status, Added.EXISTING) for status in Status if status not in REVIVABLE),
        *(("restart", status, Added.RESTARTED) for status in sorted(REVIVABLE)),
    ],
)
def test_a_unit_of_work_that_is_tracked_already_is_found_or_restarted(
    engine: Engine, order: dict[str, Any], on_duplicate: str, status: Status, expected: Added
) -> None:
    there = add_order(engine, order, status)
    task = columns(engine, there, OrderTracking)["celery_task_id"]

    added = create(engine, {**order, "tags": ["new"]}, on_duplicate=on_duplicate)

    now = Status.PENDING if expected is Added.RESTARTED else status
    row = columns(engine, there, OrderTracking)
    assert AddedRow(there, row["celery_task_id"], expected, now) == added
    assert (row["celery_task_id"] == task) == (expected is Added.EXISTING)
    assert (row["status"], row["tags"]) == (now, None)


@pytest.mark.parametrize(
    ("due", "is_later"),
    [
        pytest.param(datetime(2024, 1, 1, tzinfo=UTC), False, id="past"),
        pytest.param(datetime.now(UTC) + timedelta(days=30), True, id="future"),
    ],
)
def test_a_restarted_unit_of_work_is_due_when_it_is_asked_to_be(
    engine: Engine, order: dict[str, Any], due: datetime, is_later: bool
) -> None:
    there = add_order(engine, order, Status.FAILED)

    added = create(engine, {**order, "next_attempt_at": due}, on_duplicate="restart")

    row = columns(engine, there, OrderTracking)
    assert added.outcome is Added.RESTARTED
    expected = due if is_later else row["updated_at"]
    assert abs(row["next_attempt_at"] - expected) < timedelta(seconds=1)


def test_a_restarted_unit_of_work_may_wait_to_be_given_a_due_time(
    engine: Engine, order: dict[str, Any]
) -> None:
    there = add_order(engine, order, Status.CANCELLED)

    create(engine, {**order, "next_attempt_at": None}, on_duplicate="restart")

    row = columns(engine, there, OrderTracking)
    assert (row["status"], row["next_attempt_at"]) == (Status.PENDING, None)


@pytest.mark.parametrize("status", Status)
def test_a_unit_of_work_that_is_tracked_already_is_an_error_where_that_is_asked_for(
    engine: Engine, order: dict[str, Any], status: Status
) -> None:
    there = add_order(engine, order, status)
    before = columns(engine, there, OrderTracking)

    with pytest.raises(DuplicateTracking) as caught:
        create(engine, order)

    error, domain = caught.value, OrderTracking.__tracking__.domain
    assert (domain, there, order, status) == (error.domain, error.tracking_id, error.key, error.status)
    assert before == columns(engine, there, OrderTracking)


def test_a_duplicate_leaves_the_callers_transaction_usable(engine: Engine, order: dict[str, Any]) -> None:
    add_order(engine, order)
    with engine.begin() as db:
        with pytest.raises(DuplicateTracking):
            tracker.create(db, OrderTracking, order)
        other = tracker.create(db, OrderTracking, {**order, "currency": "USD"})

    assert columns(engine, other.id, OrderTracking)["currency"] == "USD"


def test_an_unknown_word_for_what_to_do_with_a_duplicate_is_refused(
    engine: Engine, order: dict[str, Any]
) -> None:
    add_order(engine, order)

    with pytest.raises(InvalidField, match=r"^on_duplicate: "):
        create(engine, order, on_duplicate="ignore")


def test_of_eight_threads_that_create_one_unit_of_work_one_adds_a_row_and_seven_find_it(
    engine: Engine, order: dict[str, Any]
) -> None:
    before = count_rows(engine, OrderTracking)

    added = together(lambda _: create(engine, order, on_duplicate="return"))

    outcomes = [row.outcome for row in added]
    assert sorted(outcomes) == [Added.CREATED, *[Added.EXISTING] * 7]
    assert len({(row.id, row.celery_task_id) for row in added}) == 1
    assert count_rows(engine, OrderTracking) == before + 1


def test_of_eight_threads_that_insist_on_a_new_row_seven_are_told_of_the_first(
    engine: Engine, order: dict[str, Any]
) -> None:
    def insist(_: int) -> int | str:
        try:
            return create(engine, order, on_duplicate="error").id
        except DuplicateTracking as error:
            return f"duplicate of {error.tracking_id}"

    outcomes = together(insist)

    [created] = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert outcomes.count(f"duplicate of {created}") == 7


def test_of_eight_threads_that_restart_a_failed_row_one_does(engine: Engine, order: dict[str, Any]) -> None:
    there = add_order(engine, order, Status.FAILED)

    added = together(lambda _: create(engine, order, on_duplicate="restart"))

    outcomes = [row.outcome for row in added]
    assert sorted(outcomes) == [*[Added.EXISTING] * 7, Added.RESTARTED]
    assert {row.id for row in added} == {there}
    assert {row.status for row in added} == {Status.PENDING}


@pytest.mark.parametrize(
    ("first_commits", "expected"),
    [(True, Added.EXISTING), (False, Added.CREATED)],
    ids=["commits", "rolls back"],
)
def test_a_creator_waits_for_a_rival_that_has_not_committed_yet(
    engine: Engine, order: dict[str, Any], first_commits: bool, expected: Added
) -> None:
    with ThreadPoolExecutor(1) as pool, Session(engine) as db:
        first = tracker.create(db, OrderTracking, order)
        outcome = pool.submit(create, engine, order, on_duplicate="return")
        wait_until(lambda: somebody_waits_for_a_lock(engine))
        if first_commits:
            db.commit()
        else:
            db.rollback()
        second = outcome.result(10)

    assert expected is second.outcome
    assert first_commits == (first.id == second.id)


class Base(DeclarativeBase):
    """The table of one test."""


class ShopTracking(BaseTaskTracking, Base):
    """A domain whose natural key has a column that the database fills, and another constraint."""

    __tablename__ = "shop_tracking"
    __tracking__ = TrackingOptions(domain="shop", natural_key=NaturalKey(("shop", "region"), "uq_shop"))

    shop: Mapped[int]
    region: Mapped[str] = mapped_column(String(10), server_default="EU")
    code: Mapped[int | None] = mapped_column(unique=True)


@pytest.fixture(scope="module")
def shops(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    return engine


def test_a_part_of_the_natural_key_that_the_database_fills_is_asked_for_or_known(shops: Engine) -> None:
    def add(on_duplicate: tracker.OnDuplicate) -> AddedRow:
        with shops.begin() as db:
            return tracker.create(db, ShopTracking, {"shop": 1}, on_duplicate=on_duplicate)

    try:
        first = add("error")
    except InvalidField as error:
        named = error.field
    else:
        named = "region" if add("return").id == first.id else "nothing"

    assert named == "region"


def test_another_constraint_than_the_natural_key_is_not_mistaken_for_a_duplicate(shops: Engine) -> None:
    with shops.begin() as db:
        tracker.create(db, ShopTracking, {"shop": 2, "region": "EU", "code": 1})

    with pytest.raises(IntegrityError), shops.begin() as db:
        tracker.create(db, ShopTracking, {"shop": 3, "region": "EU", "code": 1}, on_duplicate="return")


# create_many


def test_many_rows_are_added_and_those_there_already_are_left_out(
    engine: Engine, order: dict[str, Any]
) -> None:
    there = add_order(engine, order)
    fields = [{**order, "currency": currency} for currency in ("EUR", "USD", "GBP", "USD")]

    with engine.begin() as db:
        added = tracker.create_many(db, OrderTracking, fields)

    rows = [columns(engine, row.id, OrderTracking) for row in added]
    assert there not in {row.id for row in added}
    assert {row["currency"] for row in rows} == {"USD", "GBP"}
    assert [row["celery_task_id"] for row in rows] == [row.celery_task_id for row in added]
    assert len({row.celery_task_id for row in added}) == 2
    assert {(row.outcome, row.status) for row in added} == {(Added.CREATED, Status.PENDING)}


def test_thousands_of_rows_go_in_at_once(engine: Engine) -> None:
    before = count_rows(engine)

    with engine.begin() as db:
        added = tracker.create_many(db, JobTracking, [{"payload": str(number)} for number in range(5000)])

    assert len({row.id for row in added}) == 5000
    assert count_rows(engine) == before + 5000


def test_no_rows_are_none(engine: Engine) -> None:
    with engine.begin() as db:
        assert tracker.create_many(db, JobTracking, iter(())) == []


def test_one_bad_row_among_many_leaves_none(engine: Engine, order: dict[str, Any]) -> None:
    before = count_rows(engine, OrderTracking)

    with engine.begin() as db, pytest.raises(InvalidField, match=r"^currency: "):
        tracker.create_many(db, OrderTracking, [order, {**order, "currency": "eur"}])

    assert count_rows(engine, OrderTracking) == before


@pytest.mark.parametrize(
    "rows",
    [[{}, {"payload": "x"}], [{"payload": "x"}, {}], [{"payload": "x"}, {"max_attempts": 2}]],
    ids=["more", "fewer", "others"],
)
def test_a_field_that_some_of_many_rows_have_is_written_or_refused_never_dropped(
    engine: Engine, rows: list[dict[str, Any]]
) -> None:
    try:
        with engine.begin() as db:
            added = tracker.create_many(db, JobTracking, rows)
    except InvalidField:
        return

    stored = [columns(engine, row.id) for row in sorted(added, key=lambda row: row.id)]
    assert [{name: row[name] for name in asked} for asked, row in zip(rows, stored, strict=True)] == rows


def test_threads_that_add_overlapping_batches_add_each_row_once(
    engine: Engine, order: dict[str, Any]
) -> None:
    currencies = [f"A{letter}{other}" for letter in "ABCDE" for other in "ABCDEFGHIJ"]

    def add(number: int) -> int:
        fields = [{**order, "currency": currency} for currency in currencies[: 20 + 5 * number]]
        with engine.begin() as db:
            return len(tracker.create_many(db, OrderTracking, fields))

    added = together(add, 4)

    assert sum(added) == 35


# Reading


def test_a_snapshot_is_detached_and_complete(engine: Engine) -> None:
    job = add_job(engine, payload="p")
    with engine.connect() as db:
        row = tracker.get(db, JobTracking, job)

    expected = columns(engine, job)
    assert expected == {name: getattr(row, name) for name in expected}


def test_a_snapshot_of_a_session_is_not_watched_by_it(engine: Engine) -> None:
    job = add_job(engine)
    with Session(engine) as db:
        tracker.get(db, JobTracking, job).payload = "changed by accident"
        db.commit()

    assert columns(engine, job)["payload"] == ""


def test_a_row_that_is_not_there_is_not_found(engine: Engine) -> None:
    with engine.connect() as db, pytest.raises(TrackingNotFound) as caught:
        tracker.get(db, JobTracking, 404_404)

    assert (caught.value.domain, caught.value.tracking_id) == ("job", 404_404)


def test_a_row_is_found_by_its_natural_key(engine: Engine, order: dict[str, Any]) -> None:
    there = add_order(engine, order)

    with engine.connect() as db:
        found = tracker.find(db, OrderTracking, **order)
        missing = tracker.find(db, OrderTracking, **{**order, "currency": "XXX"})

    assert found is not None
    assert (found.id, missing) == (there, None)


def test_rows_are_listed_by_state_oldest_first_up_to_a_limit(database_url: str) -> None:
    engine = create_engine(database_url)
    by_state = {status: [add_job_in(engine, status) for _ in range(2)] for status in Status}

    with engine.connect() as db:
        listed = {status: ids(tracker.by_status(db, JobTracking, [status])) for status in Status}
        active = ids(tracker.active(db, JobTracking))
        limited = ids(tracker.active(db, JobTracking, limit=3))
        none = ids(tracker.by_status(db, JobTracking, []))
    engine.dispose()

    assert by_state == listed
    assert sorted(by_state[Status.PENDING] + by_state[Status.PROCESSING]) == active
    assert (active[:3], []) == (limited, none)


def ids(rows: list[JobTracking]) -> list[int]:
    return [row.id for row in rows]


# Dispatching


def test_rows_are_marked_as_dispatched_unless_a_worker_was_faster(engine: Engine) -> None:
    jobs = {status: add_job_in(engine, status) for status in Status}

    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [*jobs.values(), 404_404])

    marked = [status for status, job in jobs.items() if columns(engine, job)["dispatched_at"] is not None]
    assert marked == [Status.PENDING]


def test_a_row_without_a_due_time_is_not_marked_as_dispatched(engine: Engine) -> None:
    """It was claimed meanwhile and put on hold: its message is used up, and it needs another one when due."""
    job = add_job(engine, next_attempt_at=None)

    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])

    assert columns(engine, job)["dispatched_at"] is None


def test_a_note_of_an_older_transaction_does_not_turn_the_clock_of_a_row_back(engine: Engine) -> None:
    job = add_job(engine)
    with engine.connect() as old:
        old.execute(text("SELECT now()"))
        claimed = claim(engine, job)
        before = columns(engine, job)["updated_at"]

        tracker.heartbeat(old, JobTracking, claimed.fence)
        old.commit()

    assert before <= columns(engine, job)["updated_at"]


# An attempt's writes


def test_a_heartbeat_renews_the_lease_and_nothing_else(engine: Engine) -> None:
    job = add_job(engine)
    fence = claim(engine, job).fence
    before = columns(engine, job)

    with engine.begin() as db:
        tracker.heartbeat(db, JobTracking, fence)

    after = columns(engine, job)
    assert before.pop("heartbeat_at") < after.pop("heartbeat_at")
    assert before.pop("updated_at") <= after.pop("updated_at")
    assert before == after


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"done": 3}, (3, 9)),
        ({"total": 5}, (1, 5)),
        ({"done": 0, "total": 0}, (0, 0)),
        ({}, (1, 9)),
    ],
)
def test_progress_writes_the_numbers_it_is_given_and_renews_the_lease(
    engine: Engine, order: dict[str, Any], numbers: dict[str, int], expected: tuple[int, int]
) -> None:
    there = add_order(engine, {**order, "done": 1, "total": 9})
    with engine.begin() as db:
        fence = tracker.claim(db, OrderTracking, there, celery_task_id=None, worker=None).fence
    before = columns(engine, there, OrderTracking)

    with engine.begin() as db:
        tracker.progress(db, OrderTracking, fence, **numbers)

    row = columns(engine, there, OrderTracking)
    assert expected == (row["done"], row["total"])
    assert before["heartbeat_at"] < row["heartbeat_at"]
    assert before["updated_at"] < row["updated_at"]
    assert row["status"] == Status.PROCESSING


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"done": -1}, "done"),
        ({"done": 1, "total": -1}, "total"),
        ({"done": 2**31}, "done"),
        ({"total": 2.5}, "total"),
    ],
)
def test_progress_that_is_no_number_of_things_is_refused(
    engine: Engine, order: dict[str, Any], numbers: dict[str, Any], named: str
) -> None:
    there = add_order(engine, order)
    with engine.begin() as db:
        fence = tracker.claim(db, OrderTracking, there, celery_task_id=None, worker=None).fence
    before = columns(engine, there, OrderTracking)

    with engine.begin() as db, pytest.raises(InvalidField, match=rf"^{named}: "):
        tracker.progress(db, OrderTracking, fence, **numbers)

    assert before == columns(engine, there, OrderTracking)


def test_a_domain_without_progress_columns_says_so(engine: Engine) -> None:
    fence = claim(engine, add_job(engine)).fence

    with engine.begin() as db, pytest.raises(InvalidField, match="job declares no progress columns"):
        tracker.progress(db, JobTracking, fence, done=1)


def test_a_job_records_what_it_found(engine: Engine, order: dict[str, Any]) -> None:
    there = add_order(engine, order)
    with engine.begin() as db:
        fence = tracker.claim(db, OrderTracking, there, celery_task_id=None, worker=None).fence
    before = columns(engine, there, OrderTracking)
    found = {"tags": ["a"], "details": {"n": 1}, "urgent": False, "seen_at": datetime(2024, 3, 1, tzinfo=UTC)}

    with engine.begin() as db:
        tracker.record(db, OrderTracking, fence, found)
        tracker.record(db, OrderTracking, fence, {})

    row = columns(engine, there, OrderTracking)
    assert found == {name: row[name] for name in found}
    assert before["heartbeat_at"] < row["heartbeat_at"]
    assert order == {name: row[name] for name in order}


@pytest.mark.parametrize(
    ("values", "named"),
    [({"status": "COMPLETED"}, "status"), ({"colour": 1}, "colour"), ({"done": "x"}, "done")],
)
def test_a_job_cannot_record_what_is_no_field_of_its_domain(
    engine: Engine, order: dict[str, Any], values: dict[str, Any], named: str
) -> None:
    there = add_order(engine, order)
    with engine.begin() as db:
        fence = tracker.claim(db, OrderTracking, there, celery_task_id=None, worker=None).fence

    with engine.begin() as db, pytest.raises(InvalidField, match=rf"^{named}: "):
        tracker.record(db, OrderTracking, fence, {"urgent": True, **values})

    assert columns(engine, there, OrderTracking)["urgent"] is None


@pytest.mark.parametrize("note", [None, "2 of 10 currencies are missing"])
def test_a_completed_row_has_an_end_a_note_or_none_and_no_lease(engine: Engine, note: str | None) -> None:
    job = add_job(engine)
    fail_attempts(engine, job, 1)
    fence = claim(engine, job, task="task 9", worker="w9").fence

    with engine.begin() as db:
        tracker.complete(db, JobTracking, fence, note=note)

    row = columns(engine, job)
    assert (row["status"], row["error_message"], row["heartbeat_at"]) == (Status.COMPLETED, note, None)
    assert row["started_at"] < row["completed_at"]
    assert (row["celery_task_id"], row["worker"]) == ("task 9", "w9")
    assert (row["attempts"], len(row["attempt_log"])) == (1, 1)


AT_ONCE = Retry(0)


def fail_attempts(engine: Engine, job: int, times: int, decision: Retry | NoRetry = AT_ONCE) -> None:
    with engine.begin() as db:
        for _ in range(times):
            fence = tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1").fence
            tracker.fail(db, JobTracking, fence, decision, error=f"ValueError: attempt {fence.attempts + 1}")


@pytest.mark.parametrize("delay", [0.0, 60.0, 0.25, 86_400.0])
def test_a_failed_attempt_with_attempts_left_waits_for_its_delay(engine: Engine, delay: float) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
    fence = claim(engine, job).fence

    with engine.begin() as db:
        due = tracker.fail(db, JobTracking, fence, Retry(delay), error="ValueError: no")

    row = columns(engine, job)
    assert (row["status"], row["attempts"], row["error_message"]) == (Status.PENDING, 1, "ValueError: no")
    assert due == row["next_attempt_at"]
    waited = (due - row["updated_at"]).total_seconds()
    assert waited == pytest.approx(delay, abs=0.001)
    assert (row["heartbeat_at"], row["completed_at"], row["dispatched_at"]) == (None, None, None)


def test_a_failed_attempt_without_a_next_one_ends_the_row(engine: Engine) -> None:
    job = add_job(engine)
    fence = claim(engine, job).fence

    with engine.begin() as db:
        due = tracker.fail(db, JobTracking, fence, NoRetry("no"), error="ValueError: no")

    row = columns(engine, job)
    assert due is None
    assert (row["status"], row["attempts"], row["error_message"]) == (Status.FAILED, 1, "ValueError: no")
    assert (row["heartbeat_at"], row["started_at"]) == (None, fence.started_at)
    assert row["completed_at"] > row["started_at"]


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_failure_is_logged_with_all_that_is_known_of_it(engine: Engine, outcome: Outcome) -> None:
    job = add_job(engine)
    fence = claim(engine, job, worker="w3").fence

    with engine.begin() as db:
        tracker.fail(db, JobTracking, fence, Retry(0), error="ValueError: nö \x00", outcome=outcome)

    row = columns(engine, job)
    [entry] = row["attempt_log"]
    assert AttemptEntry.__required_keys__ == entry.keys()
    assert (entry["number"], entry["outcome"]) == (1, outcome)
    assert (entry["error"], entry["worker"]) == ("ValueError: nö �", "w3")
    assert datetime.fromisoformat(entry["start"]) == fence.started_at
    assert fence.started_at < datetime.fromisoformat(entry["end"]) <= row["updated_at"] + timedelta(seconds=1)


@pytest.mark.parametrize("failures", [1, 49, 50, 51, 60])
def test_the_log_keeps_the_newest_fifty_attempts_with_their_numbers(engine: Engine, failures: int) -> None:
    job = add_job(engine, max_attempts=100)

    fail_attempts(engine, job, failures)

    row = columns(engine, job)
    expected = list(range(max(1, failures - ATTEMPT_LOG_LIMIT + 1), failures + 1))
    assert expected == [entry["number"] for entry in row["attempt_log"]]
    assert row["attempt_log"][-1]["error"] == f"ValueError: attempt {failures}"
    assert row["attempts"] == failures
    assert ATTEMPT_LOG_LIMIT == 50


@pytest.mark.parametrize("write", ["fail", "retry", "complete", "cancel", "move"])
def test_a_text_of_any_length_is_stored_as_at_most_eight_kilobytes(engine: Engine, write: str) -> None:
    job = add_job(engine)
    fence = claim(engine, job).fence
    huge = "ValueError: " + "é\x00\ud800" * 10_000

    with engine.begin() as db:
        if write == "fail":
            tracker.fail(db, JobTracking, fence, NoRetry("no"), error=huge)
        elif write == "retry":
            tracker.fail(db, JobTracking, fence, Retry(1), error=huge)
        elif write == "complete":
            tracker.complete(db, JobTracking, fence, note=huge)
        elif write == "cancel":
            tracker.cancel(db, JobTracking, job, huge)
        else:
            tracker.move(db, JobTracking, job, Status.FAILED, huge)

    row = columns(engine, job)
    texts = [row["error_message"], *(entry["error"] for entry in row["attempt_log"])]
    assert {text.startswith("ValueError: é�") for text in texts} == {True}
    assert {8180 < len(text.encode()) <= 8192 for text in texts} == {True}
    assert len(texts) == (1 if write == "complete" else 2)


def test_a_released_row_is_due_at_once_and_has_lost_no_attempt(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
    fence = claim(engine, job).fence

    with engine.begin() as db:
        tracker.release(db, JobTracking, fence)

    row = columns(engine, job)
    assert (row["status"], row["attempts"], row["attempt_log"]) == (Status.PENDING, 0, [])
    assert fence.started_at < row["next_attempt_at"] <= row["updated_at"] + timedelta(seconds=1)
    assert (row["dispatched_at"], row["heartbeat_at"], row["error_message"]) == (None, None, None)
    assert claim(engine, job).fence.started_at > fence.started_at


# From outside


def test_a_row_that_waits_is_cancelled_with_the_reason_and_without_a_log(engine: Engine) -> None:
    job = add_job(engine)

    with engine.begin() as db:
        tracker.cancel(db, JobTracking, job, "nobody wants it")

    row = columns(engine, job)
    assert (row["status"], row["error_message"]) == (Status.CANCELLED, "nobody wants it")
    assert row["completed_at"] >= row["created_at"]
    assert (row["attempts"], row["attempt_log"], row["started_at"]) == (0, [], None)


def test_a_running_row_is_cancelled_and_its_attempt_logged_but_not_counted(engine: Engine) -> None:
    job = add_job(engine)
    fail_attempts(engine, job, 1)
    fence = claim(engine, job, worker="w2").fence

    with engine.begin() as db:
        tracker.cancel(db, JobTracking, job, "nobody wants it")

    row = columns(engine, job)
    assert (row["status"], row["attempts"], row["heartbeat_at"]) == (Status.CANCELLED, 1, None)
    assert [(entry["number"], entry["outcome"]) for entry in row["attempt_log"]] == [
        (1, "error"),
        (2, "cancelled"),
    ]
    last = row["attempt_log"][-1]
    assert (last["error"], last["worker"]) == ("nobody wants it", "w2")
    assert datetime.fromisoformat(last["start"]) == fence.started_at


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_row_that_has_ended_cannot_be_cancelled(engine: Engine, status: Status) -> None:
    job = add_job_in(engine, status)
    before = columns(engine, job)

    with engine.begin() as db, pytest.raises(WrongState) as caught:
        tracker.cancel(db, JobTracking, job, "too late")

    assert ("cancel", status) == (caught.value.operation, caught.value.status)
    assert set(caught.value.allowed) == ACTIVE
    assert before == columns(engine, job)


@pytest.mark.parametrize("status", sorted(REVIVABLE))
def test_a_row_that_ended_badly_starts_again_with_its_history(engine: Engine, status: Status) -> None:
    job = add_job_in(engine, status)
    before = columns(engine, job)

    with engine.begin() as db:
        revived = tracker.revive(db, JobTracking, job)

    row = columns(engine, job)
    assert AddedRow(job, row["celery_task_id"], Added.RESTARTED, Status.PENDING) == revived
    assert row["celery_task_id"] != before["celery_task_id"]
    assert row["status"] == Status.PENDING
    assert before["updated_at"] < row["next_attempt_at"] <= row["updated_at"] + timedelta(seconds=1)
    assert (row["completed_at"], row["dispatched_at"], row["heartbeat_at"]) == (None, None, None)
    kept = ["attempts", "attempt_log", "error_message", "created_at"]
    assert {name: before[name] for name in kept} == {name: row[name] for name in kept}
    assert claim(engine, job).fence.tracking_id == job


@pytest.mark.parametrize(
    ("attempts", "max_attempts", "grant", "expected"),
    [(3, 3, 1, 4), (3, 3, 3, 6), (1, 3, 1, 3), (1, 3, 2, 3), (1, 3, 3, 4), (7, 3, 1, 8)],
)
def test_a_revived_row_has_at_least_the_attempts_it_is_granted(
    engine: Engine, attempts: int, max_attempts: int, grant: int, expected: int
) -> None:
    job = add_job(engine, max_attempts=max_attempts)
    fail_attempts(engine, job, attempts - 1)
    fail_attempts(engine, job, 1, NoRetry("no"))

    with engine.begin() as db:
        tracker.revive(db, JobTracking, job, grant=grant)

    row = columns(engine, job)
    assert (row["attempts"], row["max_attempts"]) == (attempts, expected)


def test_the_room_for_attempts_grows_with_every_revival(engine: Engine) -> None:
    job = add_job(engine, max_attempts=1)
    limits = []
    for _ in range(4):
        fail_attempts(engine, job, 1, NoRetry("all attempts failed"))
        with engine.begin() as db:
            tracker.revive(db, JobTracking, job)
        limits.append(columns(engine, job)["max_attempts"])

    assert limits == [2, 3, 4, 5]
    assert [entry["number"] for entry in columns(engine, job)["attempt_log"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING, Status.COMPLETED])
def test_a_row_that_did_not_end_badly_cannot_be_revived(engine: Engine, status: Status) -> None:
    job = add_job_in(engine, status)
    before = columns(engine, job)

    with engine.begin() as db, pytest.raises(WrongState) as caught:
        tracker.revive(db, JobTracking, job)

    assert ("retry", status) == (caught.value.operation, caught.value.status)
    assert set(caught.value.allowed) == REVIVABLE
    assert before == columns(engine, job)


@pytest.mark.parametrize("grant", [0, -1])
def test_a_revival_grants_an_attempt_at_least(engine: Engine, grant: int) -> None:
    job = add_job_in(engine, Status.FAILED)

    with engine.begin() as db, pytest.raises(InvalidField, match=r"^grant: must be at least 1"):
        tracker.revive(db, JobTracking, job, grant=grant)

    assert columns(engine, job)["status"] == Status.FAILED


def test_a_cancellation_and_a_completion_at_once_leave_one_of_the_two(engine: Engine) -> None:
    for _ in range(10):
        job = add_job(engine)
        fence = claim(engine, job).fence

        def end(number: int, job: int = job, fence: tracker.Fence = fence) -> str:
            with engine.begin() as db:
                try:
                    if number:
                        tracker.cancel(db, JobTracking, job, "nobody wants it")
                    else:
                        tracker.complete(db, JobTracking, fence)
                except FencedOut:
                    return "fenced out"
                except WrongState:
                    return "wrong state"
            return Status.CANCELLED if number else Status.COMPLETED

        outcomes = together(end, 2)

        status = columns(engine, job)["status"]
        assert sorted(outcomes) in (["COMPLETED", "wrong state"], ["CANCELLED", "fenced out"])
        assert status in outcomes


# move, for callers of the seed API


@pytest.mark.parametrize(
    ("source", "target"), list(product(Status, Status)), ids=lambda status: status.lower()
)
def test_a_row_moves_along_the_transitions_and_no_other_way(
    engine: Engine, source: Status, target: Status
) -> None:
    job = add_job_in(engine, source)
    before = columns(engine, job)

    with engine.begin() as db:
        if (source, target) in TRANSITIONS:
            tracker.move(db, JobTracking, job, target, "ValueError: because")
        else:
            with pytest.raises(WrongState) as caught:
                tracker.move(db, JobTracking, job, target, "ValueError: because")
            assert (caught.value.status, set(caught.value.allowed)) == (source, sources(target))
            assert f"cannot move to {target}" in str(caught.value)

    after = columns(engine, job)
    assert after["status"] == (target if (source, target) in TRANSITIONS else source)
    assert (before == after) == ((source, target) not in TRANSITIONS)


@pytest.mark.parametrize("target", Status)
def test_a_row_that_is_not_there_moves_nowhere(engine: Engine, target: Status) -> None:
    with engine.begin() as db, pytest.raises(TrackingNotFound):
        tracker.move(db, JobTracking, 404_404, target)


def moved(engine: Engine, source: Status, target: Status, error: str | None = None) -> dict[str, Any]:
    job = add_job_in(engine, source)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
        tracker.move(db, JobTracking, job, target, error)
    return columns(engine, job)


def test_moving_to_processing_stamps_the_start(engine: Engine) -> None:
    row = moved(engine, Status.PENDING, Status.PROCESSING)

    assert row["started_at"] >= row["created_at"]
    assert (row["completed_at"], row["error_message"], row["attempts"]) == (None, None, 0)


@pytest.mark.parametrize("operation", ["claim", "move"])
def test_a_row_that_starts_has_no_end_even_if_somebody_wrote_one_by_hand(
    engine: Engine, operation: str
) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        db.execute(update(JobTracking).values(completed_at=func.now()).where(JobTracking.id == job))

    with engine.begin() as db:
        ON_ONE_ROW[operation][1](db, job)

    assert columns(engine, job)["completed_at"] is None


def test_moving_to_completed_stamps_the_end(engine: Engine) -> None:
    row = moved(engine, Status.PROCESSING, Status.COMPLETED, "not all of it")

    assert row["completed_at"] > row["started_at"]
    assert (row["heartbeat_at"], row["error_message"], row["attempts"]) == (None, "not all of it", 0)


def test_moving_to_failed_counts_and_logs_the_attempt(engine: Engine) -> None:
    row = moved(engine, Status.PROCESSING, Status.FAILED, "ValueError: no")

    [entry] = row["attempt_log"]
    assert (row["attempts"], row["error_message"], row["heartbeat_at"]) == (1, "ValueError: no", None)
    assert row["completed_at"] > row["started_at"]
    assert (entry["number"], entry["outcome"], entry["error"]) == (1, "error", "ValueError: no")


@pytest.mark.parametrize("target", [Status.FAILED, Status.CANCELLED])
def test_an_attempt_that_ends_without_a_word_is_logged_with_a_text_all_the_same(
    engine: Engine, target: Status
) -> None:
    row = moved(engine, Status.PROCESSING, target)

    [entry] = row["attempt_log"]
    assert isinstance(entry["error"], str)


@pytest.mark.parametrize("source", sorted(sources(Status.PENDING)))
def test_moving_to_pending_makes_the_row_due_and_forgets_its_end(engine: Engine, source: Status) -> None:
    row = moved(engine, source, Status.PENDING)

    assert (row["completed_at"], row["heartbeat_at"]) == (None, None)
    assert row["next_attempt_at"] > row["started_at"]


@pytest.mark.parametrize("source", sorted(sources(Status.PENDING)))
def test_a_row_that_had_ended_is_moved_to_pending_as_if_it_were_revived(
    engine: Engine, source: Status
) -> None:
    """Workers go on discarding messages under an id that was revoked; without room it would fail at once."""
    job = add_job(engine, max_attempts=1)
    with engine.begin() as db:
        tracker.move(db, JobTracking, job, Status.PROCESSING)
        if source is not Status.PROCESSING:
            tracker.move(db, JobTracking, job, source)
    before = columns(engine, job)

    with engine.begin() as db:
        tracker.move(db, JobTracking, job, Status.PENDING)

    row = columns(engine, job)
    assert (row["celery_task_id"] == before["celery_task_id"]) == (source is Status.PROCESSING)
    assert (row["attempts"], row["max_attempts"]) == ((1, 2) if source is Status.FAILED else (0, 1))


@pytest.mark.parametrize("source", sorted(sources(Status.PENDING)))
def test_a_row_that_was_moved_to_pending_counts_as_not_dispatched(engine: Engine, source: Status) -> None:
    """Like one that is released or revived; else nobody would send a message for it again."""
    job = add_job(engine)
    with engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [job])
        tracker.move(db, JobTracking, job, Status.PROCESSING)
        if source is not Status.PROCESSING:
            tracker.move(db, JobTracking, job, source)
        tracker.move(db, JobTracking, job, Status.PENDING)

    assert columns(engine, job)["dispatched_at"] is None


# Every operation, one table: what is not there


MISSING = 404_404
NOBODY = tracker.Fence(MISSING, 0, None, datetime(2024, 3, 1, tzinfo=UTC))
OPERATIONS: dict[str, Callable[[Connection], object]] = {
    "get": lambda db: tracker.get(db, OrderTracking, MISSING),
    "fence": lambda db: tracker.fence(db, OrderTracking, MISSING, "fail"),
    "claim": lambda db: tracker.claim(db, OrderTracking, MISSING, celery_task_id=None, worker=None),
    "heartbeat": lambda db: tracker.heartbeat(db, OrderTracking, NOBODY),
    "progress": lambda db: tracker.progress(db, OrderTracking, NOBODY, done=1),
    "record": lambda db: tracker.record(db, OrderTracking, NOBODY, {"done": 1}),
    "complete": lambda db: tracker.complete(db, OrderTracking, NOBODY),
    "fail": lambda db: tracker.fail(db, OrderTracking, NOBODY, NoRetry("no"), error="no"),
    "retry": lambda db: tracker.fail(db, OrderTracking, NOBODY, Retry(1), error="no"),
    "release": lambda db: tracker.release(db, OrderTracking, NOBODY),
    "cancel": lambda db: tracker.cancel(db, OrderTracking, MISSING, "no"),
    "revive": lambda db: tracker.revive(db, OrderTracking, MISSING),
    "move": lambda db: tracker.move(db, OrderTracking, MISSING, Status.FAILED),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_on_a_row_that_is_not_there_says_so(engine: Engine, operation: str) -> None:
    with engine.begin() as db, pytest.raises(TrackingNotFound) as caught:
        OPERATIONS[operation](db)

    assert (caught.value.domain, caught.value.tracking_id) == ("order", MISSING)


def fence_of(db: Connection, job: int) -> tracker.Fence:
    return tracker.fence(db, JobTracking, job, "test")[0]


ON_ONE_ROW: dict[str, tuple[Status, Callable[[Connection, int], object]]] = {
    "claim": (
        Status.PENDING,
        lambda db, job: tracker.claim(db, JobTracking, job, celery_task_id="task 1", worker="w1"),
    ),
    "mark_dispatched": (Status.PENDING, lambda db, job: tracker.mark_dispatched(db, JobTracking, [job])),
    "heartbeat": (
        Status.PROCESSING,
        lambda db, job: tracker.heartbeat(db, JobTracking, fence_of(db, job)),
    ),
    "record": (
        Status.PROCESSING,
        lambda db, job: tracker.record(db, JobTracking, fence_of(db, job), {"payload": "found"}),
    ),
    "complete": (
        Status.PROCESSING,
        lambda db, job: tracker.complete(db, JobTracking, fence_of(db, job)),
    ),
    "fail": (
        Status.PROCESSING,
        lambda db, job: tracker.fail(db, JobTracking, fence_of(db, job), NoRetry("no"), error="no"),
    ),
    "retry": (
        Status.PROCESSING,
        lambda db, job: tracker.fail(db, JobTracking, fence_of(db, job), Retry(1), error="no"),
    ),
    "release": (Status.PROCESSING, lambda db, job: tracker.release(db, JobTracking, fence_of(db, job))),
    "cancel": (Status.PROCESSING, lambda db, job: tracker.cancel(db, JobTracking, job, "no")),
    "revive": (Status.FAILED, lambda db, job: tracker.revive(db, JobTracking, job)),
    "move": (Status.PENDING, lambda db, job: tracker.move(db, JobTracking, job, Status.PROCESSING)),
}


@pytest.mark.parametrize("operation", ON_ONE_ROW)
def test_an_operation_on_one_row_leaves_its_neighbours_alone(engine: Engine, operation: str) -> None:
    status, operate = ON_ONE_ROW[operation]
    job, *others = [add_job_in(engine, status) for _ in range(3)]
    others += [add_job_in(engine, other) for other in Status]
    before = [columns(engine, other) for other in others]
    changed = columns(engine, job)

    with engine.begin() as db:
        operate(db, job)

    assert before == [columns(engine, other) for other in others]
    assert changed != columns(engine, job)


@pytest.mark.parametrize("operation", sorted(set(ON_ONE_ROW) - {"heartbeat", "mark_dispatched"}))
def test_an_operation_says_when_it_changed_the_row(engine: Engine, operation: str) -> None:
    status, operate = ON_ONE_ROW[operation]
    job = add_job_in(engine, status)
    before = columns(engine, job)["updated_at"]

    with engine.begin() as db:
        operate(db, job)

    assert before < columns(engine, job)["updated_at"]


def test_no_operation_commits(engine: Engine, order: dict[str, Any]) -> None:
    before = count_rows(engine, OrderTracking)
    with Session(engine) as db:
        there = tracker.create(db, OrderTracking, order).id
        fence = tracker.claim(db, OrderTracking, there, celery_task_id=None, worker=None).fence
        tracker.progress(db, OrderTracking, fence, done=1)
        tracker.fail(db, OrderTracking, fence, NoRetry("no"), error="no")
        tracker.revive(db, OrderTracking, there)
        tracker.cancel(db, OrderTracking, there, "no")
        assert db.in_transaction()

    assert before == count_rows(engine, OrderTracking)
