"""Operations on many rows: they count exactly, whoever dies when, and can be stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from tasktrail import Status
from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation, OperationState
from tasktrail.fingerprints import group_of
from tasktrail.web import conductor as conducting
from tasktrail.web.conductor import Conductor
from tests.desk import Desk
from tests.support import SCHEMA
from tests.waiting import until
from tests.web.conftest import Browser
from tests.web.test_access import form_token, log_in
from tests.web.test_pages import page


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "BATCH", 7)


@pytest.fixture
def conductor(shop: Desk) -> Iterator[Conductor]:
    """One that works when it is told to, and not on a thread."""
    made = Conductor(shop.trail)
    yield made
    made.close()


def add_failed(shop: Desk, count: int, error: str = "ValueError: no") -> None:
    statement = (
        "INSERT INTO tracking.job_tracking (status, error_message, attempts, completed_at, updated_at) "
        "SELECT 'FAILED', :error, 3, now(), now() - interval '1 s' FROM generate_series(1, :count)"
    )
    with shop.engine.begin() as db:
        db.execute(text(statement), {"error": error, "count": count})


def begin(shop: Desk, action: Action = Action.RETRY, rate: int = 0, **chosen: list[str]) -> int:
    with Session(shop.engine) as db, db.begin():
        return operations.begin(
            db, SCHEMA, domain="job", action=action, chosen=chosen, reason="enough", rate=rate, who="otto",
            expected=0,
        )  # fmt: skip


def read(shop: Desk, number: int) -> Operation:
    with shop.engine.connect() as db:
        found = operations.read(db, SCHEMA, number)
    assert found is not None
    return found


def states(shop: Desk) -> dict[str, int]:
    with shop.engine.connect() as db:
        query = text("SELECT status, count(*) FROM tracking.job_tracking GROUP BY 1")
        return {row[0]: row[1] for row in db.execute(query)}


def expire(shop: Desk) -> None:
    with shop.engine.begin() as db:
        later = operations.LEASE + timedelta(seconds=1)
        statement = text(
            "UPDATE tracking.tasktrail_operations SET heartbeat_at = now() - CAST(:later AS interval)"
        )
        db.execute(statement, {"later": later})


def test_all_rows_of_a_filter_are_started_again_and_counted(shop: Desk, conductor: Conductor) -> None:
    add_failed(shop, 30)
    shop.job.enqueue()
    number = begin(shop, status=["FAILED"])
    conductor.work()
    done = read(shop, number)

    assert (done.state, done.done) == (OperationState.COMPLETED, 30)
    assert states(shop) == {"PENDING": 31}
    assert len(shop.sent_ids()) == 31


def test_only_the_rows_of_a_group_are_started_again(shop: Desk, conductor: Conductor) -> None:
    add_failed(shop, 10, "KeyError: 17")
    add_failed(shop, 5, "ValueError: no")
    number = begin(shop, group=[group_of("KeyError: 99")])
    conductor.work()

    assert read(shop, number).done == 10
    assert states(shop) == {"PENDING": 10, "FAILED": 5}


def test_active_rows_are_cancelled_with_the_reason(shop: Desk, conductor: Conductor) -> None:
    shop.job.enqueue_many([{"payload": "x"}] * 20)
    add_failed(shop, 3)
    number = begin(shop, Action.CANCEL)
    conductor.work()

    assert read(shop, number).done == 20
    assert states(shop) == {"CANCELLED": 20, "FAILED": 3}
    with shop.engine.connect() as db:
        query = text("SELECT count(*) FROM tracking.job_tracking WHERE error_message = 'enough'")
        assert db.scalar(query) == 20


def test_rows_that_fail_after_it_began_are_left_alone(shop: Desk, conductor: Conductor) -> None:
    number = begin(shop)
    with shop.engine.begin() as db:
        db.execute(
            text(
                "INSERT INTO tracking.job_tracking (status, completed_at, updated_at) "
                "VALUES ('FAILED', now(), clock_timestamp())"
            )
        )
    conductor.work()

    assert (read(shop, number).done, states(shop)) == (0, {"FAILED": 1})


class Died(BaseException):
    """The process was killed."""


def test_another_process_goes_on_where_one_was_killed_and_the_count_is_exact(
    shop: Desk, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failed(shop, 30)
    number = begin(shop)
    killed = Conductor(shop.trail)
    batches = 0
    advance = operations.advance

    def die_in_the_third_batch(*args: object, **more: object) -> bool:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise Died
        return advance(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(operations, "advance", die_in_the_third_batch)
    with pytest.raises(Died):
        killed.work()
    monkeypatch.undo()
    half = read(shop, number)
    too_early = conductor.work()
    expire(shop)
    conductor.work()
    done = read(shop, number)

    assert (half.state, half.done, states(shop)) == (OperationState.RUNNING, 14, {"PENDING": 30})
    assert too_early is None
    assert (done.state, done.done) == (OperationState.COMPLETED, 30)


def test_whoever_lost_the_lease_writes_nothing_more(shop: Desk, conductor: Conductor) -> None:
    add_failed(shop, 30)
    number = begin(shop)
    with shop.trail.engines.pooled() as db:
        taken = operations.claim(db, SCHEMA, conductor._me)
    assert taken is not None
    expire(shop)
    with shop.trail.engines.pooled() as db:
        operations.claim(db, SCHEMA, uuid4())
    conductor._work_on(taken)

    assert (read(shop, number).done, states(shop)) == (0, {"FAILED": 30})


def test_a_stopped_operation_keeps_what_it_wrote_and_says_how_much(
    shop: Desk, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failed(shop, 30)
    number = begin(shop)
    advance = operations.advance

    def stop_before_the_third(db: Session, schema: str, *args: object, **more: object) -> bool:
        if read(shop, number).done == 14:
            with Session(shop.engine) as other, other.begin():
                operations.stop(other, SCHEMA, number, who="vera")
        return advance(db, schema, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(operations, "advance", stop_before_the_third)
    conductor.work()
    stopped = read(shop, number)
    with shop.engine.connect() as db:
        query = text("SELECT who, what, count FROM tracking.tasktrail_audit ORDER BY id DESC LIMIT 1")
        entry = tuple(db.execute(query).one())

    assert (stopped.state, stopped.done) == (OperationState.STOPPED, 14)
    assert states(shop) == {"PENDING": 14, "FAILED": 16}
    assert entry == ("vera", "retry many: stopped", 14)


def test_a_filter_that_fits_no_more_fails_the_operation_and_says_why(
    shop: Desk, conductor: Conductor
) -> None:
    number = begin(shop, **{"field.gone": ["x"]})
    conductor.work()
    failed = read(shop, number)

    assert failed.state is OperationState.FAILED
    assert "gone" in (failed.error or "")


def test_rows_that_somebody_holds_are_left_to_them_in_the_end(
    shop: Desk, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failed(shop, 10)
    monkeypatch.setattr(conducting, "PATIENCE", 0.1)
    number = begin(shop)
    with shop.engine.begin() as db:
        db.execute(text("SELECT FROM tracking.job_tracking WHERE id = 3 FOR UPDATE"))
        conductor.work()

    assert read(shop, number).done == 9
    assert states(shop) == {"PENDING": 9, "FAILED": 1}


def test_the_pages_preview_begin_and_show_an_operation(browse: Browser, shop: Desk, operator: str) -> None:

    add_failed(shop, 30)
    log_in(browse, operator)
    asked = page(browse, "/jobs/job/confirm?do=retry-all&status=FAILED")
    answer = browse(
        "POST",
        "/jobs/job/operations?status=FAILED",
        data={"csrf_token": form_token(asked), "action": "retry", "rate": "0"},
    )
    place = answer.headers["location"]
    until(lambda: "30</b> of 30" in page(browse, place) and "completed" in page(browse, place))

    assert "Yes, retry 30 jobs" in asked
    assert shop.trail.registry.get("job") is not None
    assert states(shop) == {Status.PENDING.value: 30}


def test_what_comes_after_the_count_that_was_confirmed_is_left_alone(
    browse: Browser, shop: Desk, operator: str
) -> None:
    for _ in range(3):
        shop.job.enqueue()
    log_in(browse, operator)
    asked = page(browse, "/jobs/job/confirm?do=cancel-all&status=PENDING")
    (as_of,) = re.findall(r'name="as_of" value="([^"]+)"', asked)
    later = [shop.job.enqueue() for _ in range(2)]
    form = {"csrf_token": form_token(asked), "action": "cancel", "as_of": as_of}
    answer = browse("POST", "/jobs/job/operations?status=PENDING", data=form)
    place = answer.headers["location"]
    until(lambda: "3</b> of 3" in page(browse, place) and "completed" in page(browse, place))

    assert "Yes, cancel 3 jobs" in asked
    assert [shop.status(row) for row in later] == [Status.PENDING] * 2


def test_a_count_of_the_future_is_one_of_now(browse: Browser, shop: Desk, operator: str) -> None:
    shop.job.enqueue()
    log_in(browse, operator)
    asked = page(browse, "/jobs/job/confirm?do=cancel-all&status=PENDING")
    form = {"csrf_token": form_token(asked), "action": "cancel", "as_of": "2999-01-01T00:00:00Z"}
    browse("POST", "/jobs/job/operations?status=PENDING", data=form)
    with shop.engine.connect() as db:
        is_now = db.scalar(text("SELECT as_of = created_at FROM tracking.tasktrail_operations"))

    assert is_now
