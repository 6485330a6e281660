"""Enqueueing, on real PostgreSQL and Redis: a message goes out once its row is committed, or never."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tasktrail import (
    BrokerUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    DuplicateTracking,
    InvalidField,
    RetryPolicy,
    Settings,
    Status,
    TrackedTask,
    Trail,
    tracker,
)
from tasktrail.embedded import EmbeddedRedis
from tasktrail.retry import NoRetry
from tasktrail.tracker import Added
from tests.rows import columns, count_rows
from tests.support import SCHEMA, JobTracking, JobTrackingService, OrderTracking, OrderTrackingService

NOWHERE = "redis://127.0.0.1:1/0"
HORIZON = 900.0
_queues = count(1)
_days = count(date(2000, 1, 1).toordinal())


@pytest.fixture(scope="module")
def database_url(make_database: Callable[..., str], library_template: str) -> str:
    """One database for the file; each test has rows of its own."""
    return make_database(library_template)


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """The application's own engine."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@dataclass
class Shop:
    """An application with two tracked tasks, and a look into its queue."""

    trail: Trail
    queue: str
    work: TrackedTask[JobTracking]
    order: TrackedTask[OrderTracking]

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages in the queue, oldest first."""
        with self.trail.app.connection_for_read() as connection:
            found = connection.default_channel.client.lrange(self.queue, 0, -1)
        return [json.loads(message) for message in reversed(found)]

    def sent(self) -> list[int]:
        """Return the ids of the rows that messages in the queue are about."""
        return [json.loads(base64.b64decode(message["body"]))[0][0] for message in self.messages()]

    def forget(self) -> None:
        """Empty the queue."""
        with self.trail.app.connection_for_read() as connection:
            connection.default_channel.client.delete(self.queue)

    def close(self) -> None:
        self.trail.engines.dispose()
        self.trail.app.close()


IMPATIENT = {"max_retries": 1, "interval_start": 0, "interval_step": 0}


def open_shop(database_url: str, broker_url: str, **configuration: Any) -> Shop:
    queue = f"outbox {next(_queues)}"
    app = Celery("shop", set_as_current=False)
    app.conf.update(task_default_queue=queue, **configuration)
    settings = Settings.load(database_url=database_url, broker_url=broker_url, eta_horizon=HORIZON)
    trail = Trail(app, settings, schema=SCHEMA)

    @trail.task(JobTrackingService, retry=RetryPolicy(max_attempts=5), name="shop.work")
    def work(run: Any) -> None:
        """Do nothing."""

    @trail.task(OrderTrackingService, name="shop.order")
    def order(run: Any) -> None:
        """Do nothing."""

    return Shop(trail, queue, work, order)


@pytest.fixture
def shop(database_url: str, redis_url: str) -> Iterator[Shop]:
    shop = open_shop(database_url, redis_url)
    yield shop
    shop.forget()
    shop.close()


@pytest.fixture
def cut_off(database_url: str) -> Iterator[Shop]:
    """The same application with a broker that nobody answers for."""
    shop = open_shop(
        database_url, NOWHERE, broker_transport_options=IMPATIENT, task_publish_retry_policy=IMPATIENT
    )
    yield shop
    shop.close()


@pytest.fixture
async def async_db(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(database_url)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.fixture
def order() -> dict[str, Any]:
    """The fields of an order that no other test has."""
    return {"day": date.fromordinal(next(_days)), "currency": "EUR"}


def dispatched(engine: Engine, job: int) -> bool:
    return columns(engine, job)["dispatched_at"] is not None


def exists(engine: Engine, job: int) -> bool:
    with engine.connect() as db:
        return db.scalar(text("SELECT 1 FROM tracking.job_tracking WHERE id = :id"), {"id": job}) is not None


# In the caller's transaction


def test_a_commit_sends_the_message_once_and_marks_the_row(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        enqueued = shop.work.enqueue(db, payload="p")
        before = shop.sent()
        db.commit()
        after = shop.sent()
        db.execute(text("SELECT 1"))
        db.commit()

    assert (before, after) == ([], [enqueued.id])
    assert shop.sent() == after
    assert dispatched(engine, enqueued.id)


def test_a_message_carries_the_id_of_its_row_and_nothing_else(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        enqueued = shop.work.enqueue(db, payload="p")
        db.commit()

    [message] = shop.messages()
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs) == ([enqueued.id], {})
    headers = message["headers"]
    assert (headers["task"], headers["retries"], headers["eta"]) == ("shop.work", 0, None)
    assert headers["id"] == enqueued.celery_task_id == columns(engine, enqueued.id)["celery_task_id"]


def test_a_new_row_says_what_became_of_it(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        enqueued = shop.work.enqueue(db)
        db.commit()

    assert (enqueued.domain, enqueued.outcome, enqueued.status) == ("job", Added.CREATED, Status.PENDING)
    assert columns(engine, enqueued.id)["max_attempts"] == 5


def test_a_rollback_sends_nothing_and_leaves_no_row(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        enqueued = shop.work.enqueue(db)
        db.rollback()
        db.execute(text("SELECT 1"))
        db.commit()

    assert shop.sent() == []
    assert not exists(engine, enqueued.id)


def test_an_error_in_the_callers_transaction_sends_nothing(shop: Shop, engine: Engine) -> None:
    def fail_after_enqueue() -> None:
        with Session(engine) as db, db.begin():
            shop.work.enqueue(db)
            raise LookupError("no such customer")

    with pytest.raises(LookupError):
        fail_after_enqueue()

    assert shop.sent() == []


def test_a_session_that_is_closed_without_a_commit_sends_nothing_even_when_it_is_used_again(
    shop: Shop, engine: Engine
) -> None:
    session = Session(engine)
    with session:
        dropped = shop.work.enqueue(session)
    with session:
        kept = shop.work.enqueue(session)
        session.commit()

    assert not exists(engine, dropped.id)
    assert shop.sent() == [kept.id]


def test_a_session_that_is_used_again_sends_what_each_of_its_transactions_wrote(
    shop: Shop, engine: Engine
) -> None:
    with Session(engine) as db:
        first = shop.work.enqueue(db)
        db.commit()
        shop.work.enqueue(db)
        db.rollback()
        third = shop.work.enqueue(db)
        db.commit()

    assert shop.sent() == [first.id, third.id]


def test_a_savepoint_that_is_rolled_back_takes_only_its_own_messages_with_it(
    shop: Shop, engine: Engine
) -> None:
    with Session(engine) as db:
        before = shop.work.enqueue(db)
        savepoint = db.begin_nested()
        lost = shop.work.enqueue(db)
        savepoint.rollback()
        after = shop.work.enqueue(db)
        db.commit()

    assert shop.sent() == [before.id, after.id]
    assert not exists(engine, lost.id)


def test_a_savepoint_that_is_released_sends_nothing_before_the_commit(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        with db.begin_nested():
            enqueued = shop.work.enqueue(db)
        before = shop.sent()
        db.commit()

    assert (before, shop.sent()) == ([], [enqueued.id])


def test_a_released_savepoint_in_a_transaction_that_is_rolled_back_sends_nothing(
    shop: Shop, engine: Engine
) -> None:
    with Session(engine) as db:
        with db.begin_nested():
            shop.work.enqueue(db)
        db.rollback()
        db.execute(text("SELECT 1"))
        db.commit()

    assert shop.sent() == []


def test_savepoints_in_savepoints_send_what_was_committed_in_the_end(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        kept = [shop.work.enqueue(db).id]
        outer = db.begin_nested()
        shop.work.enqueue(db)
        with db.begin_nested():
            shop.work.enqueue(db)
        inner = db.begin_nested()
        shop.work.enqueue(db)
        inner.rollback()
        outer.rollback()
        with db.begin_nested():
            kept.append(shop.work.enqueue(db).id)
            with db.begin_nested():
                kept.append(shop.work.enqueue(db).id)
        db.commit()

    assert kept == shop.sent()
    assert all(exists(engine, job) for job in kept)


def test_a_commit_that_finds_a_savepoint_open_sends_its_messages_too(shop: Shop, engine: Engine) -> None:
    with Session(engine) as db:
        db.begin_nested()
        enqueued = shop.work.enqueue(db)
        db.commit()

    assert shop.sent() == [enqueued.id]


def test_the_messages_of_one_commit_go_out_in_the_order_they_were_enqueued(
    shop: Shop, engine: Engine, order: dict[str, Any]
) -> None:
    with Session(engine) as db:
        ids = [shop.work.enqueue(db).id for _ in range(3)]
        placed = shop.order.enqueue(db, **order).id
        ids += [shop.work.enqueue(db).id for _ in range(3)]
        db.commit()

    assert shop.sent() == [*ids[:3], placed, *ids[3:]]
    assert all(dispatched(engine, job) for job in ids)


def test_a_bad_field_leaves_the_callers_transaction_usable(
    shop: Shop, engine: Engine, order: dict[str, Any]
) -> None:
    with Session(engine) as db:
        with pytest.raises(InvalidField, match=r"^currency: "):
            shop.order.enqueue(db, **{**order, "currency": "EURO"})
        enqueued = shop.order.enqueue(db, **order)
        db.commit()

    assert shop.sent() == [enqueued.id]


# Duplicates


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
def test_a_unit_of_work_that_is_enqueued_twice_has_one_row_and_one_message(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool
) -> None:
    first = enqueue(shop, engine, in_session, **order)
    second = enqueue(shop, engine, in_session, **order)

    assert (first.outcome, second.outcome) == (Added.CREATED, Added.EXISTING)
    assert (first.id, first.celery_task_id) == (second.id, second.celery_task_id)
    assert shop.sent() == [first.id]


def enqueue(shop: Shop, engine: Engine, in_session: bool, **fields: Any) -> Any:
    if not in_session:
        return shop.order.enqueue(**fields)
    with Session(engine) as db:
        enqueued = shop.order.enqueue(db, **fields)
        db.commit()
    return enqueued


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
def test_a_duplicate_is_an_error_where_that_is_asked_for(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool
) -> None:
    first = enqueue(shop, engine, in_session, **order)

    with pytest.raises(DuplicateTracking) as caught:
        enqueue(shop, engine, in_session, on_duplicate="error", **order)

    assert first.id == caught.value.tracking_id
    assert shop.sent() == [first.id]


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
@pytest.mark.parametrize("on_duplicate", ["return", "restart"])
def test_a_failed_unit_of_work_is_restarted_with_a_message_where_that_is_asked_for(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool, on_duplicate: str
) -> None:
    first = enqueue(shop, engine, in_session, **order)
    with engine.begin() as db:
        fence = tracker.claim(db, OrderTracking, first.id, celery_task_id="task 1", worker="w1").fence
        tracker.fail(db, OrderTracking, fence, NoRetry("no"), error="ValueError: no")
    shop.forget()

    second = enqueue(shop, engine, in_session, on_duplicate=on_duplicate, **order)

    restarts = on_duplicate == "restart"
    assert second.outcome is (Added.RESTARTED if restarts else Added.EXISTING)
    assert second.status is (Status.PENDING if restarts else Status.FAILED)
    assert shop.sent() == ([first.id] if restarts else [])
    assert columns(engine, first.id, OrderTracking)["status"] == second.status


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
def test_a_unit_of_work_that_is_restarted_for_later_waits_until_then(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool
) -> None:
    first = enqueue(shop, engine, in_session, **order)
    shop.order.cancel(first.id, "stop")
    shop.forget()
    due = datetime.now(UTC) + timedelta(days=30)

    enqueue(shop, engine, in_session, on_duplicate="restart", next_attempt_at=due, **order)

    assert columns(engine, first.id, OrderTracking)["next_attempt_at"] == due
    assert shop.sent() == []


# Due times


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
def test_a_row_due_within_the_horizon_goes_out_with_an_eta(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=HORIZON - 60)

    enqueued = enqueue(shop, engine, in_session, next_attempt_at=due, **order)

    [message] = shop.messages()
    eta = datetime.fromisoformat(message["headers"]["eta"])
    assert abs(eta - due) < timedelta(seconds=10)
    assert columns(engine, enqueued.id, OrderTracking)["dispatched_at"] is not None


@pytest.mark.parametrize("in_session", [True, False], ids=["session", "own transaction"])
@pytest.mark.parametrize(
    "wait", [timedelta(seconds=HORIZON + 60), timedelta(days=900), None], ids=["horizon", "years", "no due"]
)
def test_a_row_due_later_or_never_stays_in_the_database(
    shop: Shop, engine: Engine, order: dict[str, Any], in_session: bool, wait: timedelta | None
) -> None:
    due = None if wait is None else datetime.now(UTC) + wait

    enqueued = enqueue(shop, engine, in_session, next_attempt_at=due, **order)

    row = columns(engine, enqueued.id, OrderTracking)
    assert shop.sent() == []
    assert (row["next_attempt_at"], row["dispatched_at"]) == (due, None)


# Coroutines


async def test_a_coroutine_enqueues_in_its_session_with_the_same_guarantees(
    shop: Shop, engine: Engine, async_db: AsyncSession
) -> None:
    committed = await shop.work.aenqueue(async_db, payload="p")
    before = shop.sent()
    await async_db.commit()
    after = shop.sent()
    dropped = await shop.work.aenqueue(async_db)
    await async_db.rollback()
    await async_db.execute(text("SELECT 1"))
    await async_db.commit()

    assert (before, after) == ([], [committed.id])
    assert shop.sent() == after
    assert dispatched(engine, committed.id)
    assert not exists(engine, dropped.id)


async def test_savepoints_of_a_coroutine_send_what_was_committed_in_the_end(
    shop: Shop, async_db: AsyncSession
) -> None:
    kept = [(await shop.work.aenqueue(async_db)).id]
    savepoint = await async_db.begin_nested()
    await shop.work.aenqueue(async_db)
    await savepoint.rollback()
    async with async_db.begin_nested():
        kept.append((await shop.work.aenqueue(async_db)).id)
    before = shop.sent()
    await async_db.commit()

    assert (before, shop.sent()) == ([], kept)


async def test_a_released_savepoint_of_a_coroutine_that_rolls_back_sends_nothing(
    shop: Shop, async_db: AsyncSession
) -> None:
    async with async_db.begin_nested():
        await shop.work.aenqueue(async_db)
    await async_db.rollback()

    assert shop.sent() == []


async def test_a_coroutine_enqueues_in_a_transaction_of_its_own(shop: Shop, engine: Engine) -> None:
    enqueued = await shop.work.aenqueue(payload="p")

    assert shop.sent() == [enqueued.id]
    assert dispatched(engine, enqueued.id)


async def test_a_coroutine_whose_broker_is_gone_keeps_its_row(
    cut_off: Shop, engine: Engine, async_db: AsyncSession
) -> None:
    enqueued = await cut_off.work.aenqueue(async_db)
    await async_db.commit()

    assert exists(engine, enqueued.id)
    assert not dispatched(engine, enqueued.id)


# In a transaction of its own


def test_a_row_is_committed_sent_and_marked(shop: Shop, engine: Engine) -> None:
    enqueued = shop.work.enqueue(payload="p")

    row = columns(engine, enqueued.id)
    assert shop.sent() == [enqueued.id]
    assert (row["payload"], row["status"]) == ("p", Status.PENDING)
    assert row["dispatched_at"] > row["created_at"]


def test_a_bad_field_leaves_no_row_and_no_message(shop: Shop, engine: Engine, order: dict[str, Any]) -> None:
    before = count_rows(engine, OrderTracking)

    with pytest.raises(InvalidField, match=r"^colour: "):
        shop.order.enqueue(**order, colour="red")

    assert before == count_rows(engine, OrderTracking)
    assert shop.sent() == []


# A broker that is gone


@pytest.mark.parametrize("rows", [1, 3])
def test_a_broker_that_is_gone_after_the_commit_is_no_error_and_the_rows_are_kept(
    cut_off: Shop, engine: Engine, caplog: pytest.LogCaptureFixture, rows: int
) -> None:
    with Session(engine) as db:
        ids = [cut_off.work.enqueue(db).id for _ in range(rows)]
        db.commit()

    assert all(exists(engine, job) for job in ids)
    assert not any(dispatched(engine, job) for job in ids)
    assert f"{rows} rows wait for maintenance to dispatch them" in caplog.text


@pytest.mark.parametrize("rows", [1, 3])
def test_a_broker_that_goes_away_between_enqueue_and_commit_is_no_error(
    database_url: str, engine: Engine, tmp_path: Path, rows: int
) -> None:
    """Over a connection that worked a moment ago."""
    server = EmbeddedRedis(tmp_path / "redis", persistent=False)
    shop = open_shop(database_url, server.start())
    shop.work.enqueue()
    with Session(engine) as db:
        ids = [shop.work.enqueue(db).id for _ in range(rows)]
        server.stop()
        db.commit()
    shop.close()

    assert all(exists(engine, job) for job in ids)
    assert not any(dispatched(engine, job) for job in ids)


def test_a_broker_that_is_gone_is_an_error_before_a_row_is_written(cut_off: Shop, engine: Engine) -> None:
    before = count_rows(engine)

    with pytest.raises(BrokerUnavailable) as caught:
        cut_off.work.enqueue(payload="p")
    with pytest.raises(BrokerUnavailable):
        cut_off.work.enqueue_many([{"payload": "p"}])

    message = str(caught.value)
    assert message.startswith("the broker at redis://127.0.0.1:1/0 cannot be used: ")
    assert message.endswith("Is it running, and is TASKTRAIL_BROKER_URL right?")
    assert "\n" not in message
    assert before == count_rows(engine)


@pytest.mark.parametrize(
    ("broker", "reason"),
    [
        ("redis+socket:///run/no.sock?virtual_host=first", "Database is int between 0 and limit - 1, not"),
        ("sentinel://127.0.0.1:1", "'master_name' transport option must be specified."),
        ("redis://127.0.0.1:1/0?colour=red", "unexpected keyword argument 'colour'"),
    ],
)
def test_a_broker_that_celery_cannot_make_sense_of_is_an_error_before_a_row_is_written(
    database_url: str, engine: Engine, broker: str, reason: str
) -> None:
    before = count_rows(engine)
    shop = open_shop(database_url, broker)

    with pytest.raises(ConfigurationError, match=r"^TASKTRAIL_BROKER_URL or the broker's ") as caught:
        shop.work.enqueue(payload="p")

    shop.close()
    assert reason in str(caught.value)
    assert before == count_rows(engine)


def test_a_broker_that_is_gone_is_known_before_anybody_grows_impatient(
    database_url: str, engine: Engine
) -> None:
    """With Celery's own defaults: whoever enqueues in a web request waits for the answer."""
    shop = open_shop(database_url, "redis://:secret@127.0.0.1:1/0")

    began = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        shop.work.enqueue()
    waited = time.monotonic() - began

    shop.close()
    assert "secret" not in str(caught.value)
    assert waited < 3


def test_a_broker_that_comes_back_is_used_again(database_url: str, engine: Engine, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", persistent=False)
    shop = open_shop(database_url, server.start())
    shop.work.enqueue()
    server.stop()
    with pytest.raises(BrokerUnavailable):
        shop.work.enqueue()
    server.start()

    enqueued = shop.work.enqueue()

    sent = shop.sent()
    shop.close()
    server.stop()
    assert sent == [enqueued.id]
    assert dispatched(engine, enqueued.id)


def test_a_database_that_is_gone_is_an_error_and_sends_nothing(redis_url: str) -> None:
    shop = open_shop("postgresql://shop:secret@127.0.0.1:1/shop", redis_url)

    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/shop cannot be used") as caught:
        shop.work.enqueue()

    assert shop.sent() == []
    assert "secret" not in str(caught.value)
    shop.close()


# Many rows


def test_many_rows_are_added_sent_and_marked(shop: Shop, engine: Engine) -> None:
    done = shop.work.enqueue_many([{"payload": f"many {number}"} for number in range(25)], batch_size=10)

    rows = stored(engine, "many %")
    assert (done.created, done.existing, done.dispatched) == (25, 0, 25)
    assert shop.sent() == [row["id"] for row in rows]
    assert [row["payload"] for row in rows] == [f"many {number}" for number in range(25)]
    assert all(row["dispatched_at"] is not None for row in rows)
    assert [message["headers"]["id"] for message in shop.messages()] == [
        row["celery_task_id"] for row in rows
    ]
    assert {row["max_attempts"] for row in rows} == {5}


def stored(engine: Engine, pattern: str) -> list[dict[str, Any]]:
    query = text("SELECT * FROM tracking.job_tracking WHERE payload LIKE :pattern ORDER BY id")
    with engine.connect() as db:
        return [dict(row) for row in db.execute(query, {"pattern": pattern}).mappings()]


def test_duplicates_among_many_and_of_rows_there_already_are_left_out(
    shop: Shop, engine: Engine, order: dict[str, Any]
) -> None:
    there = shop.order.enqueue(**order)
    shop.forget()
    rows = [{**order, "currency": currency} for currency in ("EUR", "USD", "GBP", "USD", "CHF", "GBP")]

    done = shop.order.enqueue_many(rows, batch_size=4)
    again = shop.order.enqueue_many(rows)

    assert (done.created, done.existing, done.dispatched) == (3, 3, 3)
    assert (again.created, again.existing, again.dispatched) == (0, 6, 0)
    assert len(shop.sent()) == len(set(shop.sent())) == 3
    assert there.id not in shop.sent()


def test_a_generator_is_read_batch_by_batch(shop: Shop, engine: Engine) -> None:
    seen: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(10):
            seen.append(len(stored(engine, "lazy %")))
            yield {"payload": f"lazy {number}"}

    done = shop.work.enqueue_many(rows(), batch_size=4)

    assert done.created == 10
    assert seen == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_a_bad_row_among_many_leaves_its_batch_out_and_keeps_those_before_it(
    shop: Shop, engine: Engine
) -> None:
    rows = [{"payload": "early 1"}, {"payload": "early 2"}, {"payload": "early 3"}, {"payload": 4}]

    with pytest.raises(InvalidField, match=r"^payload: must be text"):
        shop.work.enqueue_many(rows, batch_size=2)

    kept = stored(engine, "early %")
    assert [row["payload"] for row in kept] == ["early 1", "early 2"]
    assert shop.sent() == [row["id"] for row in kept]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_a_size(shop: Shop, batch_size: int) -> None:
    with pytest.raises(InvalidField, match=r"^batch_size: must be at least 1"):
        shop.work.enqueue_many([{}], batch_size=batch_size)


def test_no_rows_are_none(shop: Shop) -> None:
    done = shop.work.enqueue_many(iter(()))

    assert (done.created, done.existing, done.dispatched) == (0, 0, 0)


def test_each_of_many_rows_goes_out_when_it_is_due(shop: Shop, engine: Engine) -> None:
    now = datetime.now(UTC)
    waits = [0.0, 300.0, HORIZON + 60, -60.0, 600.0]
    rows = [
        {"payload": f"due {number}", "next_attempt_at": now + timedelta(seconds=wait)}
        for number, wait in enumerate(waits)
    ]

    done = shop.work.enqueue_many(rows)

    names = {row["id"]: row["payload"] for row in stored(engine, "due %")}
    etas = [message["headers"]["eta"] for message in shop.messages()]
    sent = {names[job]: eta for job, eta in zip(shop.sent(), etas, strict=True)}
    assert (done.created, done.dispatched) == (5, 4)
    assert {name: eta is not None for name, eta in sent.items()} == {
        "due 0": False,
        "due 1": True,
        "due 3": False,
        "due 4": True,
    }


def test_a_broker_that_goes_away_between_two_batches_leaves_rows_for_maintenance(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    server = EmbeddedRedis(tmp_path / "redis", persistent=False)
    shop = open_shop(database_url, server.start())

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(6):
            if number == 4:
                server.stop()
            yield {"payload": f"cut {number}"}

    done = shop.work.enqueue_many(rows(), batch_size=3)

    shop.close()
    marked = [row["dispatched_at"] is not None for row in stored(engine, "cut %")]
    assert (done.created, done.dispatched) == (6, 3)
    assert marked == [True, True, True, False, False, False]
