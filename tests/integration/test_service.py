"""The service and the utilities of the seed API, with a real database and a real Celery application."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Retry
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tasktrail import (
    BaseTaskTrackingService,
    ConfigurationError,
    DuplicateTracking,
    FencedOut,
    GiveUp,
    InvalidField,
    RetryIn,
    RetryPolicy,
    Status,
    TrackingNotFound,
    WrongState,
    handle_task_error,
    retry_with_backoff,
    tracker,
    update_task_status,
)
from tests.rows import columns, count_rows
from tests.support import (
    JobTracking,
    JobTrackingService,
    OrderTracking,
    OrderTrackingService,
    ParcelTrackingService,
)

_days = count(date(2000, 1, 1).toordinal())
_queues = count(1)


@pytest.fixture(scope="module")
def database_url(make_database: Callable[..., str], library_template: str) -> str:
    """One database for the file; each test has rows of its own."""
    return make_database(library_template)


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """Looks at rows from outside the service's session."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture(params=[OrderTrackingService, ParcelTrackingService], ids=["in one piece", "in partitions"])
async def orders(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, async_engine: AsyncEngine
) -> AsyncIterator[BaseTaskTrackingService[Any]]:
    """The service of the orders; their table may be a partitioned one."""
    monkeypatch.setattr(sys.modules[__name__], "OrderTracking", request.param.model)
    async with AsyncSession(async_engine) as db:
        yield request.param(db)


@pytest.fixture
async def jobs(async_engine: AsyncEngine) -> AsyncIterator[JobTrackingService]:
    async with AsyncSession(async_engine) as db:
        yield JobTrackingService(db)


@pytest.fixture
def order() -> dict[str, Any]:
    """The fields of an order that no other test has."""
    return {"day": date.fromordinal(next(_days)), "currency": "EUR"}


# The names of the seed API


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (BaseTaskTrackingService.__init__, ["self", "db", "model"]),
        (BaseTaskTrackingService.update_status, ["self", "tracking_id", "status", "error_message"]),
        (BaseTaskTrackingService.get_tracking, ["self", "tracking_id"]),
        (update_task_status, ["tracking_id", "status", "service", "error_message"]),
        (handle_task_error, ["task", "tracking_id", "error", "service"]),
    ],
)
def test_the_seed_api_is_called_by_position_as_the_plan_writes_it(
    function: Callable[..., Any], parameters: list[str]
) -> None:
    found = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]

    assert parameters == found


async def test_a_service_works_on_the_model_it_is_given(async_engine: AsyncEngine, engine: Engine) -> None:
    async with AsyncSession(async_engine) as db:
        job = await BaseTaskTrackingService(db, JobTracking).create_tracking(payload="p")

    assert columns(engine, job)["payload"] == "p"


async def test_a_service_without_a_model_says_so(async_engine: AsyncEngine) -> None:
    async with AsyncSession(async_engine) as db:
        with pytest.raises(ConfigurationError, match="BaseTaskTrackingService has no model"):
            BaseTaskTrackingService(db)


# create_tracking


async def test_a_new_row_is_committed_and_its_id_returned(
    orders: OrderTrackingService, engine: Engine, order: dict[str, Any]
) -> None:
    there = await orders.create_tracking(**order, max_attempts=5)

    row = columns(engine, there, OrderTracking)
    assert order == {name: row[name] for name in order}
    assert (row["status"], row["max_attempts"]) == (Status.PENDING, 5)


NAIVE = datetime(2024, 3, 1, 12, 0)  # noqa: DTZ001  # what the test is about


@pytest.mark.parametrize(
    ("fields", "named", "reason"),
    [
        ({"colour": "red"}, "colour", "is no field of "),
        ({"currency": "EURO"}, "currency", "is 4 characters long, 3 fit"),
        ({"currency": "eu1"}, "currency", "must have the form"),
        ({"currency": None}, "currency", "may not be empty"),
        ({"day": "2024-03-01"}, "day", "must be a date"),
        ({"max_attempts": 0}, "max_attempts", "must be at least 1"),
        ({"max_attempts": -1}, "max_attempts", "must be at least 1"),
        ({"max_attempts": "3"}, "max_attempts", "must be a whole number"),
        ({"seen_at": NAIVE}, "seen_at", "has no time zone"),
        ({"next_attempt_at": NAIVE}, "next_attempt_at", "has no time zone"),
        ({"status": "COMPLETED"}, "status", "is kept by tasktrail"),
        ({"amount": 10**9}, "amount", ""),
        ({"tags": ["a", "b\x00"]}, "tags[1]", "holds a NUL"),
    ],
)
async def test_a_bad_field_is_named_and_leaves_no_row(
    orders: OrderTrackingService,
    engine: Engine,
    order: dict[str, Any],
    fields: dict[str, Any],
    named: str,
    reason: str,
) -> None:
    before = count_rows(engine, OrderTracking)

    with pytest.raises(InvalidField) as caught:
        await orders.create_tracking(**{**order, **fields})

    assert named == caught.value.field
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)
    assert before == count_rows(engine, OrderTracking)


async def test_a_missing_field_is_named_and_leaves_no_row(
    orders: OrderTrackingService, engine: Engine
) -> None:
    before = count_rows(engine, OrderTracking)

    with pytest.raises(InvalidField, match=r"^day: is required"):
        await orders.create_tracking(currency="EUR")

    assert before == count_rows(engine, OrderTracking)


async def test_after_a_refusal_the_service_goes_on(
    orders: OrderTrackingService, engine: Engine, order: dict[str, Any]
) -> None:
    with pytest.raises(InvalidField):
        await orders.create_tracking(**{**order, "currency": "EURO"})

    assert columns(engine, await orders.create_tracking(**order), OrderTracking)


async def test_a_unit_of_work_that_is_tracked_already_is_an_error_unless_said_otherwise(
    orders: OrderTrackingService, order: dict[str, Any]
) -> None:
    there = await orders.create_tracking(**order)

    with pytest.raises(DuplicateTracking) as caught:
        await orders.create_tracking(**order)

    assert there == caught.value.tracking_id
    assert there == await orders.create_tracking(on_duplicate="return", **order)


async def test_a_constraint_of_the_database_is_told_as_a_field(
    orders: OrderTrackingService, engine: Engine, order: dict[str, Any]
) -> None:
    with engine.begin() as db:
        db.execute(
            text(
                f"ALTER TABLE {OrderTracking.__table__.fullname}"
                " ADD CONSTRAINT ck_order_amount CHECK (amount <> 777)"
            )
        )

    with pytest.raises(InvalidField, match=r"^ck_order_amount: .*violates check constraint"):
        await orders.create_tracking(**order, amount=777)

    assert await orders.create_tracking(**order, amount=778)


# update_status


async def test_a_row_is_taken_through_its_life(jobs: JobTrackingService, engine: Engine) -> None:
    job = await jobs.create_tracking()
    seen = []
    for status in (Status.PROCESSING, Status.FAILED, Status.PENDING, Status.PROCESSING, Status.COMPLETED):
        await jobs.update_status(job, status, "ValueError: no" if status is Status.FAILED else None)
        row = columns(engine, job)
        seen.append((row["status"], row["attempts"], row["completed_at"] is not None))

    assert seen == [
        ("PROCESSING", 0, False),
        ("FAILED", 1, True),
        ("PENDING", 1, False),
        ("PROCESSING", 1, False),
        ("COMPLETED", 1, True),
    ]


@pytest.mark.parametrize("name", ["CANCELLED", "cancelled", "Cancelled", Status.CANCELLED])
async def test_the_name_of_a_state_is_read_without_regard_to_case(
    jobs: JobTrackingService, engine: Engine, name: str
) -> None:
    job = await jobs.create_tracking()

    await jobs.update_status(job, name, "nobody wants it")

    row = columns(engine, job)
    assert (row["status"], row["error_message"]) == (Status.CANCELLED, "nobody wants it")


@pytest.mark.parametrize("name", ["retrying", "DONE", "", "PENDING ", None, 5])
async def test_an_unknown_state_is_refused_with_those_there_are(
    jobs: JobTrackingService, engine: Engine, name: Any
) -> None:
    job = await jobs.create_tracking()
    before = columns(engine, job)

    with pytest.raises(InvalidField, match=r"^status: is none of PENDING, PROCESSING, COMPLETED") as caught:
        await jobs.update_status(job, name)
    with pytest.raises(InvalidField):
        await jobs.get_by_status(name)

    assert name == caught.value.value
    assert before == columns(engine, job)


async def test_a_way_that_does_not_exist_is_refused(jobs: JobTrackingService, engine: Engine) -> None:
    job = await jobs.create_tracking()
    before = columns(engine, job)

    with pytest.raises(WrongState, match="cannot move to COMPLETED: the row is PENDING"):
        await jobs.update_status(job, "COMPLETED")

    assert before == columns(engine, job)


async def test_a_row_that_is_not_there_is_not_found_by_any_operation(jobs: JobTrackingService) -> None:
    for operation in (
        jobs.get_tracking(404),
        jobs.update_status(404, "FAILED"),
        jobs.fail_attempt(404, ValueError("no")),
        update_task_status(404, "FAILED", jobs),
    ):
        with pytest.raises(TrackingNotFound, match="job 404"):
            await operation


async def test_update_task_status_is_the_same_as_a_function(jobs: JobTrackingService, engine: Engine) -> None:
    job = await jobs.create_tracking()

    await update_task_status(job, "processing", jobs)
    await update_task_status(job, "failed", jobs, "ValueError: no")

    row = columns(engine, job)
    assert (row["status"], row["error_message"]) == (Status.FAILED, "ValueError: no")


# Reading


async def test_a_snapshot_shows_the_row_as_it_was(jobs: JobTrackingService, engine: Engine) -> None:
    job = await jobs.create_tracking(payload="p")
    snapshot = await jobs.get_tracking(job)
    await jobs.update_status(job, "PROCESSING")

    assert (snapshot.id, snapshot.payload, snapshot.status) == (job, "p", Status.PENDING)
    assert (await jobs.get_tracking(job)).status == Status.PROCESSING


async def test_a_change_from_elsewhere_is_seen_at_the_next_look(
    jobs: JobTrackingService, engine: Engine
) -> None:
    job = await jobs.create_tracking()
    await jobs.get_tracking(job)
    with engine.begin() as db:
        tracker.cancel(db, JobTracking, job, "nobody wants it")

    assert (await jobs.get_tracking(job)).status == Status.CANCELLED


async def test_rows_are_listed_by_state_and_by_whether_they_are_finished(
    make_database: Callable[..., str], library_template: str
) -> None:
    engine = create_async_engine(make_database(library_template))
    async with AsyncSession(engine) as db:
        jobs = JobTrackingService(db)
        ids = [await jobs.create_tracking() for _ in range(6)]
        for job, *states in (
            (ids[1], "PROCESSING"),
            (ids[2], "PROCESSING", "COMPLETED"),
            (ids[3], "PROCESSING", "FAILED"),
            (ids[4], "CANCELLED"),
        ):
            for status in states:
                await jobs.update_status(job, status)

        listed = {status: [row.id for row in await jobs.get_by_status(status)] for status in Status}
        active = [row.id for row in await jobs.get_active_tasks()]
        limited = [row.id for row in await jobs.get_active_tasks(limit=2)]
        lower = [row.id for row in await jobs.get_by_status("pending", limit=1)]
    await engine.dispose()

    assert listed == {
        Status.PENDING: [ids[0], ids[5]],
        Status.PROCESSING: [ids[1]],
        Status.COMPLETED: [ids[2]],
        Status.FAILED: [ids[3]],
        Status.CANCELLED: [ids[4]],
    }
    assert active == [ids[0], ids[1], ids[5]]
    assert (limited, lower) == ([ids[0], ids[1]], [ids[0]])


async def test_a_failed_write_leaves_nothing_of_the_callers_session_behind(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    async with AsyncSession(async_engine) as db:
        await db.execute(text("INSERT INTO effects (job_id) VALUES (1)"))
        with pytest.raises(TrackingNotFound):
            await JobTrackingService(db).update_status(404, "FAILED")
        await db.commit()

    with engine.connect() as db:
        assert db.scalar(text("SELECT count(*) FROM effects")) == 0


# fail_attempt


async def test_a_failed_attempt_waits_as_the_policy_says(jobs: JobTrackingService, engine: Engine) -> None:
    job = await jobs.create_tracking()
    await jobs.update_status(job, "PROCESSING")

    seconds = await jobs.fail_attempt(job, OSError("no"), policy=RetryPolicy(base=7))

    row = columns(engine, job)
    assert (seconds, row["status"], row["attempts"]) == (7.0, Status.PENDING, 1)
    assert (row["next_attempt_at"] - row["updated_at"]).total_seconds() == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RetryIn(5), 5.0), (GiveUp("no such customer"), None), (ValueError("no"), 60.0)],
    ids=["RetryIn", "GiveUp", "ValueError"],
)
async def test_an_error_says_whether_it_is_worth_another_attempt(
    jobs: JobTrackingService, engine: Engine, error: Exception, expected: float | None
) -> None:
    job = await jobs.create_tracking()
    await jobs.update_status(job, "PROCESSING")

    assert expected == await jobs.fail_attempt(job, error)
    row = columns(engine, job)
    assert row["status"] == (Status.FAILED if expected is None else Status.PENDING)
    assert row["error_message"].startswith(f"{type(error).__name__}: ")


@pytest.mark.parametrize("status", ["PENDING", "CANCELLED"])
async def test_a_row_that_does_not_run_cannot_fail(
    jobs: JobTrackingService, engine: Engine, status: str
) -> None:
    job = await jobs.create_tracking()
    if status == "CANCELLED":
        await jobs.update_status(job, status)
    before = columns(engine, job)

    with pytest.raises(WrongState, match=f"cannot fail: the row is {status}"):
        await jobs.fail_attempt(job, ValueError("no"))

    assert before == columns(engine, job)


async def test_an_attempt_that_is_taken_over_between_look_and_write_is_fenced_out(
    jobs: JobTrackingService, engine: Engine
) -> None:
    job = await jobs.create_tracking()
    await jobs.update_status(job, "PROCESSING")

    class Rival(RetryPolicy):
        def decide(self, *args: Any, **options: Any) -> Any:
            with engine.begin() as db:
                tracker.move(db, JobTracking, job, Status.PENDING)
                tracker.move(db, JobTracking, job, Status.PROCESSING)
            return super().decide(*args, **options)

    with pytest.raises(FencedOut):
        await jobs.fail_attempt(job, ValueError("no"), policy=Rival())

    assert columns(engine, job)["attempts"] == 0


# handle_task_error and retry_with_backoff, through Celery


@dataclass
class Broker:
    """A Celery application with a broker in memory, and a look into its queue."""

    app: Celery
    queue: str

    def task(self, **options: Any) -> Task[Any, Any]:
        def work(task: Task[Any, Any], tracking_id: int) -> None:
            """Do nothing; the tests call what a real body would."""

        return self.app.task(name="shop.work", bind=True, **options)(work)

    def sent(self) -> list[dict[str, Any]]:
        """Take the messages that were published: their headers, the countdown and the arguments."""
        found = []
        with self.app.connection_for_read() as connection:
            queue = connection.default_channel.queue_declare(self.queue)
            for _ in range(queue.message_count):
                message = connection.default_channel.basic_get(self.queue, no_ack=True)
                eta = datetime.fromisoformat(message.headers["eta"])
                countdown = (eta - datetime.now(UTC)).total_seconds()
                args, kwargs, _ = message.decode()
                found.append(
                    {**message.headers, "countdown": countdown, "sent_args": args, "sent_kwargs": kwargs}
                )
        return found


@pytest.fixture
def broker() -> Iterator[Broker]:
    queue = f"service {next(_queues)}"
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(task_default_queue=queue, enable_utc=True)
    yield Broker(app, queue)
    app.close()


def running(task: Task[Any, Any], tracking_id: int, *, retries: int = 0, task_id: str = "task 1") -> None:
    """Make a task believe that a worker runs it."""
    task.push_request(
        id=task_id,
        args=[tracking_id],
        kwargs={},
        retries=retries,
        called_directly=False,
        is_eager=False,
        delivery_info={},
        hostname="w1",
    )


async def attempt(
    task: Task[Any, Any],
    job: int,
    jobs: JobTrackingService,
    error: Exception,
    retries: int,
) -> BaseException:
    """Run one attempt of a task that fails; return what it raised to Celery."""
    await jobs.update_status(job, "PROCESSING")
    running(task, job, retries=retries)
    try:
        await handle_task_error(task, job, error, jobs)
    except Exception as raised:
        return raised
    finally:
        task.pop_request()


async def test_of_three_attempts_two_are_repeated_after_60_and_120_seconds_and_the_third_is_failed(
    jobs: JobTrackingService, engine: Engine, broker: Broker
) -> None:
    task = broker.task()
    job = await jobs.create_tracking()
    error = ValueError("no rate for XXX")

    raised = [await attempt(task, job, jobs, error, retries) for retries in range(3)]

    first, second, third = raised
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert (first.when, second.when) == (60.0, 120.0)
    assert third is error
    messages = broker.sent()
    assert [message["countdown"] for message in messages] == [
        pytest.approx(60, abs=10),
        pytest.approx(120, abs=10),
    ]
    assert [message["retries"] for message in messages] == [1, 2]
    assert {(message["id"], message["task"], *message["sent_args"]) for message in messages} == {
        ("task 1", "shop.work", job)
    }
    row = columns(engine, job)
    assert (row["status"], row["attempts"], row["error_message"]) == (
        Status.FAILED,
        3,
        "ValueError: no rate for XXX",
    )
    assert [entry["error"] for entry in row["attempt_log"]] == ["ValueError: no rate for XXX"] * 3


async def test_each_failure_is_recorded_before_the_next_attempt_is_asked_for(
    jobs: JobTrackingService, engine: Engine, broker: Broker
) -> None:
    job = await jobs.create_tracking()

    await attempt(broker.task(), job, jobs, KeyError("EUR"), 0)

    row = columns(engine, job)
    assert (row["status"], row["attempts"], row["error_message"]) == (Status.PENDING, 1, "KeyError: 'EUR'")
    assert row["next_attempt_at"] - row["updated_at"] == pytest.approx(
        timedelta(seconds=60), abs=timedelta(seconds=1)
    )


@pytest.mark.parametrize("options", [{}, {"max_retries": 1}, {"max_retries": None}], ids=str)
async def test_how_often_is_retried_the_row_says_and_not_celery(
    jobs: JobTrackingService, engine: Engine, broker: Broker, options: dict[str, Any]
) -> None:
    task = broker.task(**options)
    job = await jobs.create_tracking(max_attempts=6)

    raised = [await attempt(task, job, jobs, ValueError("no"), retries) for retries in range(6)]

    assert [type(error) for error in raised] == [*[Retry] * 5, ValueError]
    assert [error.when for error in raised[:5]] == [60.0, 120.0, 240.0, 480.0, 960.0]
    assert len(broker.sent()) == 5
    assert columns(engine, job)["status"] == Status.FAILED


async def test_one_attempt_means_no_retry(jobs: JobTrackingService, engine: Engine, broker: Broker) -> None:
    job = await jobs.create_tracking(max_attempts=1)
    error = ValueError("no")

    assert error is await attempt(broker.task(), job, jobs, error, 0)
    assert broker.sent() == []
    assert columns(engine, job)["status"] == Status.FAILED


async def test_an_error_not_worth_a_retry_ends_the_row_at_once(
    jobs: JobTrackingService, engine: Engine, broker: Broker
) -> None:
    job = await jobs.create_tracking()
    error = GiveUp("no such customer")

    assert error is await attempt(broker.task(), job, jobs, error, 0)
    assert broker.sent() == []
    row = columns(engine, job)
    assert (row["status"], row["attempts"]) == (Status.FAILED, 1)


async def test_an_error_of_a_row_that_was_cancelled_meanwhile_is_not_retried(
    jobs: JobTrackingService, engine: Engine, broker: Broker
) -> None:
    task = broker.task()
    job = await jobs.create_tracking()
    await jobs.update_status(job, "CANCELLED")
    running(task, job)

    with pytest.raises(WrongState):
        await handle_task_error(task, job, ValueError("no"), jobs)

    task.pop_request()
    assert broker.sent() == []
    assert columns(engine, job)["status"] == Status.CANCELLED


@pytest.mark.parametrize(
    ("retries", "options", "expected"),
    [
        (0, {}, 60.0),
        (1, {}, 120.0),
        (2, {}, 240.0),
        (30, {}, 86_400.0),
        (0, {"policy": RetryPolicy(base=5)}, 5.0),
        (3, {"policy": RetryPolicy(base=5, factor=3)}, 135.0),
        (2, {"seconds": 7.5}, 7.5),
        (0, {"seconds": 0.5}, 0.5),
    ],
)
def test_a_task_is_repeated_after_an_exponential_delay(
    broker: Broker, retries: int, options: dict[str, Any], expected: float
) -> None:
    task = broker.task()
    running(task, 7, retries=retries)
    error = ValueError("no")

    with pytest.raises(Retry) as caught:
        retry_with_backoff(task, error, **options)

    task.pop_request()
    [message] = broker.sent()
    assert (caught.value.when, caught.value.exc) == (expected, error)
    assert message["countdown"] == pytest.approx(expected, abs=10)
    assert (message["retries"], message["sent_args"]) == (retries + 1, [7])


def test_an_error_that_is_no_exception_is_retried_as_one(broker: Broker) -> None:
    task = broker.task()
    running(task, 7)

    with pytest.raises(Retry) as caught:
        retry_with_backoff(task, KeyboardInterrupt("stop"), seconds=1)

    task.pop_request()
    assert str(caught.value.exc) == "KeyboardInterrupt: stop"
