"""Random sequences of operations, on a model made of TRANSITIONS and on PostgreSQL: they never disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, Row, create_engine, text
from sqlalchemy.orm import Session

from tasktrail import (
    TRANSITIONS,
    DuplicateTracking,
    FencedOut,
    NotDue,
    Status,
    TrackingNotFound,
    WrongState,
    tracker,
)
from tasktrail.direct import Direct
from tasktrail.engines import Engines
from tasktrail.models import ATTEMPT_LOG_LIMIT
from tasktrail.retry import NoRetry, Retry
from tasktrail.states import ENDED, REVIVABLE
from tasktrail.tracker import Added, Claim
from tests.support import OrderTracking

COUNTED = {"error", "lost", "timeout"}
TASKS = st.sampled_from(["task 1", "task 1", "task 2", None])
TEXTS = st.sampled_from(["ValueError: no", "", "a\x00b"])
_days = count(date(2000, 1, 1).toordinal())


@pytest.fixture(scope="module")
def engine(make_database: Callable[..., str], library_template: str) -> Iterator[Engine]:
    """One database for all examples; each has rows of its own."""
    engine = create_engine(make_database(library_template))
    yield engine
    engine.dispose()


@dataclass(eq=False)
class Expected:
    """What a row must be, told without SQL."""

    key: dict[str, Any]
    max_attempts: int
    due: bool | None
    status: Status = Status.PENDING
    attempts: int = 0
    task: str | None = None
    error: str | None = None
    leased: bool = False
    started: bool = False
    claims: int = 0
    done: int = 0
    dispatched: bool = False
    log: list[tuple[int, str, str]] = field(default_factory=list)

    def may_reach(self, target: Status) -> bool:
        return (self.status, target) in TRANSITIONS

    def reach(self, target: Status) -> None:
        assert self.may_reach(target)
        self.status = target
        self.leased = False

    def wait_again(self, *, due: bool) -> None:
        self.reach(Status.PENDING)
        self.due, self.dispatched = due, False

    def log_attempt(self, outcome: str, error: str | None) -> None:
        entry = (self.attempts + 1, outcome, "no reason given" if error is None else error)
        self.log = [*self.log, entry][-ATTEMPT_LOG_LIMIT:]

    def fail_attempt(self, outcome: str, error: str | None) -> None:
        self.log_attempt(outcome, error)
        self.attempts += 1
        self.error = error


@dataclass(frozen=True, eq=False)
class Attempt:
    """A claim that was made once, and how many the row had seen by then."""

    expected: Expected
    claim: Claim
    number: int

    @property
    def owns_its_row(self) -> bool:
        return self.expected.status is Status.PROCESSING and self.expected.claims == self.number


def stored(text: str | None) -> str | None:
    return None if text is None else text.replace("\x00", "�")


class Lifecycle(RuleBasedStateMachine):
    """Workers, operators and callers of the seed API who know nothing of each other."""

    rows: Bundle[int] = Bundle("rows")
    attempts: Bundle[Attempt] = Bundle("attempts")

    def __init__(self, engine: Engine, db: tracker.Database) -> None:
        super().__init__()
        self.db = db
        self.caller = Session(engine)
        self.look = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.expected: dict[int, Expected] = {}

    def teardown(self) -> None:
        for db in (self.look, self.caller, self.db):
            if not isinstance(db, Direct):
                db.close()

    def end(self, how: str) -> None:
        for db in (self.caller, self.db):
            if isinstance(db, Session):
                getattr(db, how)()

    def outcome(self, operation: Callable[[], object]) -> object:
        """Run an operation in a transaction of its own; return what it returned or raised."""
        try:
            result = operation()
        except (FencedOut, WrongState, NotDue, TrackingNotFound, DuplicateTracking) as error:
            self.end("rollback")
            return error
        self.end("commit")
        return result

    def write(self, attempt: Attempt, operation: Callable[[], object]) -> bool:
        """Write as an attempt; return whether the fence let it through, which the model knows as well."""
        owns = attempt.owns_its_row
        outcome = self.outcome(operation)

        assert owns != isinstance(outcome, FencedOut)
        if isinstance(outcome, FencedOut):
            assert attempt.expected.status == outcome.status
        return owns

    @initialize(
        target=rows,
        max_attempts=st.integers(1, 4),
        due=st.sampled_from([True, True, True, False, None]),
    )
    def create(self, max_attempts: int, due: bool | None) -> int:
        return self.create_another(max_attempts, due)

    @precondition(lambda self: len(self.expected) < 3)
    @rule(target=rows, max_attempts=st.integers(1, 4), due=st.sampled_from([True, False, None]))
    def create_another(self, max_attempts: int, due: bool | None) -> int:
        key = {"day": date.fromordinal(next(_days)), "currency": "EUR"}
        now = self.look.scalar(text("SELECT clock_timestamp()"))
        when = {True: now, False: now + timedelta(hours=1), None: None}[due]
        fields = {**key, "max_attempts": max_attempts, "next_attempt_at": when}
        added = tracker.create(self.caller, OrderTracking, fields)
        self.end("commit")
        self.expected[added.id] = Expected(key, max_attempts, due, task=added.celery_task_id)
        return added.id

    @rule(row=rows, on_duplicate=st.sampled_from(["return", "restart", "error"]))
    def create_again(self, row: int, on_duplicate: tracker.OnDuplicate) -> None:
        expected = self.expected[row]

        outcome = self.outcome(
            lambda: tracker.create(self.caller, OrderTracking, expected.key, on_duplicate=on_duplicate)
        )

        if on_duplicate == "error":
            assert isinstance(outcome, DuplicateTracking)
            assert (row, expected.status) == (outcome.tracking_id, outcome.status)
            return
        assert isinstance(outcome, tracker.AddedRow)
        restarts = on_duplicate == "restart" and expected.status in REVIVABLE
        if restarts:
            self.expect_revival(expected, 1, outcome)
        assert outcome.outcome is (Added.RESTARTED if restarts else Added.EXISTING)
        assert (row, expected.task, expected.status) == (outcome.id, outcome.celery_task_id, outcome.status)

    @rule(row=rows)
    def dispatch(self, row: int) -> None:
        tracker.mark_dispatched(self.db, OrderTracking, [row])
        self.end("commit")
        expected = self.expected[row]
        if expected.status is Status.PENDING and expected.due is not None:
            expected.dispatched = True

    @rule(target=attempts, row=rows, task=TASKS)
    def claim(self, row: int, task: str | None) -> Any:
        expected = self.expected[row]

        outcome = self.outcome(
            lambda: tracker.claim(self.db, OrderTracking, row, celery_task_id=task, worker="w")
        )

        if not expected.may_reach(Status.PROCESSING):
            assert isinstance(outcome, WrongState)
            assert expected.status == outcome.status
        elif not expected.due:
            assert isinstance(outcome, NotDue)
            assert (expected.due is None) == (outcome.due is None)
        else:
            assert isinstance(outcome, Claim)
            assert expected.attempts == outcome.fence.attempts
            expected.reach(Status.PROCESSING)
            expected.task, expected.leased, expected.started = task, True, True
            expected.claims += 1
            return Attempt(expected, outcome, expected.claims)
        return multiple()

    @rule(attempt=attempts)
    def heartbeat(self, attempt: Attempt) -> None:
        if self.write(attempt, lambda: tracker.heartbeat(self.db, OrderTracking, attempt.claim.fence)):
            attempt.expected.leased = True

    @rule(several=st.lists(attempts, min_size=1, max_size=3, unique=True))
    def renew_leases(self, several: list[Attempt]) -> None:
        renewed = tracker.renew(self.db, OrderTracking, [attempt.claim.fence for attempt in several])
        self.end("commit")
        owned = {attempt.claim.fence.tracking_id for attempt in several if attempt.owns_its_row}
        assert owned == renewed

    @rule(attempt=attempts, done=st.integers(0, 9))
    def progress(self, attempt: Attempt, done: int) -> None:
        if self.write(
            attempt, lambda: tracker.progress(self.db, OrderTracking, attempt.claim.fence, done=done)
        ):
            attempt.expected.done = done
            attempt.expected.leased = True

    @rule(attempt=attempts, done=st.integers(0, 9))
    def record(self, attempt: Attempt, done: int) -> None:
        if self.write(
            attempt, lambda: tracker.record(self.db, OrderTracking, attempt.claim.fence, {"done": done})
        ):
            attempt.expected.done = done
            attempt.expected.leased = True

    @rule(attempt=attempts, note=st.none() | TEXTS)
    def complete(self, attempt: Attempt, note: str | None) -> None:
        if self.write(
            attempt, lambda: tracker.complete(self.db, OrderTracking, attempt.claim.fence, note=note)
        ):
            attempt.expected.reach(Status.COMPLETED)
            attempt.expected.error = stored(note)

    @rule(
        attempt=attempts,
        seconds=st.sampled_from([None, 0.0, 0.0, 3600.0]),
        error=TEXTS,
        outcome=st.sampled_from(sorted(COUNTED)),
    )
    def fail(self, attempt: Attempt, seconds: float | None, error: str, outcome: tracker.Outcome) -> None:
        decision = NoRetry("no") if seconds is None else Retry(seconds)
        fence = attempt.claim.fence
        if self.write(
            attempt,
            lambda: tracker.fail(self.db, OrderTracking, fence, decision, error=error, outcome=outcome),
        ):
            expected = attempt.expected
            expected.fail_attempt(outcome, stored(error))
            if seconds is None:
                expected.reach(Status.FAILED)
            else:
                expected.wait_again(due=seconds == 0)

    @rule(attempt=attempts)
    def fail_until_the_log_is_full(self, attempt: Attempt) -> None:
        """Fail and claim again, as often as the log has entries."""
        if not attempt.owns_its_row:
            return
        fence, expected = attempt.claim.fence, attempt.expected
        for _ in range(ATTEMPT_LOG_LIMIT):
            tracker.fail(self.db, OrderTracking, fence, Retry(0), error="again")
            claim = tracker.claim(
                self.db, OrderTracking, fence.tracking_id, celery_task_id="task 1", worker="w"
            )
            fence = claim.fence
            expected.fail_attempt("error", "again")
            expected.claims += 1
        self.end("commit")
        expected.task, expected.leased, expected.due, expected.dispatched = "task 1", True, True, False

    @rule(attempt=attempts)
    def release(self, attempt: Attempt) -> None:
        if self.write(attempt, lambda: tracker.release(self.db, OrderTracking, attempt.claim.fence)):
            attempt.expected.wait_again(due=True)

    @rule(target=attempts, attempt=attempts)
    def be_redelivered(self, attempt: Attempt) -> Any:
        """Shut down gracefully; the same message claims the row again, for the same attempt."""
        if not attempt.owns_its_row:
            return multiple()
        self.release(attempt)
        return self.claim(attempt.claim.fence.tracking_id, attempt.claim.fence.celery_task_id)

    @rule(row=rows, reason=TEXTS)
    def cancel(self, row: int, reason: str) -> None:
        expected = self.expected[row]

        outcome = self.outcome(lambda: tracker.cancel(self.db, OrderTracking, row, reason))

        self.expect_cancellation(expected, outcome, reason)

    def expect_cancellation(self, expected: Expected, outcome: object, reason: str | None) -> None:
        assert expected.may_reach(Status.CANCELLED) != isinstance(outcome, WrongState)
        if isinstance(outcome, WrongState):
            return
        if expected.status is Status.PROCESSING:
            expected.log_attempt("cancelled", stored(reason))
        expected.reach(Status.CANCELLED)
        expected.error = stored(reason)

    @rule(row=rows, grant=st.integers(1, 3))
    def revive(self, row: int, grant: int) -> None:
        expected = self.expected[row]

        outcome = self.outcome(lambda: tracker.revive(self.db, OrderTracking, row, grant=grant))

        revivable = expected.status in ENDED and expected.may_reach(Status.PENDING)
        assert revivable != isinstance(outcome, WrongState)
        if revivable:
            self.expect_revival(expected, grant, outcome)

    def expect_revival(self, expected: Expected, grant: int, revived: Any) -> None:
        assert revived.celery_task_id != expected.task
        expected.task = revived.celery_task_id
        expected.max_attempts = max(expected.max_attempts, expected.attempts + grant)
        expected.wait_again(due=True)

    @rule(row=rows, to=st.sampled_from(Status), error=st.none() | TEXTS)
    def move(self, row: int, to: Status, error: str | None) -> None:
        expected = self.expected[row]

        outcome = self.outcome(lambda: tracker.move(self.db, OrderTracking, row, to, error))

        if to is Status.CANCELLED:
            self.expect_cancellation(expected, outcome, error)
            return
        assert expected.may_reach(to) != isinstance(outcome, WrongState)
        if isinstance(outcome, WrongState):
            assert expected.status == outcome.status
            return
        if to is Status.FAILED:
            expected.fail_attempt("error", stored(error))
        if to is Status.PENDING:
            if expected.status in REVIVABLE:
                self.expect_revival(expected, 1, tracker.get(self.db, OrderTracking, row))
            else:
                expected.wait_again(due=True)
            expected.dispatched = False
            return
        expected.reach(to)
        if to is Status.PROCESSING:
            expected.started = True
            expected.claims += 1
        elif to is Status.COMPLETED:
            expected.error = stored(error)

    @invariant()
    def the_model_and_the_database_agree(self) -> None:
        table = OrderTracking.__table__
        rows = self.look.execute(table.select().where(table.c.id.in_(self.expected))).all()
        now = self.look.scalar(text("SELECT clock_timestamp()"))
        assert len(rows) == len(self.expected)
        for row in rows:
            self.check_model(self.expected[row.id], row)
            self.check_log(row)
            self.check_times(row, now)

    def check_model(self, expected: Expected, actual: Row[Any]) -> None:
        log = [(entry["number"], entry["outcome"], entry["error"]) for entry in actual.attempt_log]
        assert (
            expected.status,
            expected.attempts,
            expected.max_attempts,
            expected.task,
            expected.error,
            expected.done,
            expected.log,
        ) == (
            actual.status,
            actual.attempts,
            actual.max_attempts,
            actual.celery_task_id,
            actual.error_message,
            actual.done,
            log,
        )
        assert expected.leased == (actual.heartbeat_at is not None)
        assert expected.started == (actual.started_at is not None)
        assert expected.dispatched == (actual.dispatched_at is not None)
        assert (expected.due is None) == (actual.next_attempt_at is None)

    def check_log(self, actual: Row[Any]) -> None:
        counted = [entry for entry in actual.attempt_log if entry["outcome"] in COUNTED]
        numbers = [entry["number"] for entry in actual.attempt_log]
        assert numbers == sorted(numbers)
        assert len(numbers) <= ATTEMPT_LOG_LIMIT
        assert actual.attempts == len(counted) or len(numbers) == ATTEMPT_LOG_LIMIT
        assert not counted or counted[-1]["number"] == actual.attempts
        for entry in actual.attempt_log:
            start = entry["start"]
            assert start is None or datetime.fromisoformat(start) <= datetime.fromisoformat(entry["end"])

    def check_times(self, actual: Row[Any], now: datetime) -> None:
        assert (actual.completed_at is not None) == (actual.status in ENDED)
        assert actual.heartbeat_at is None or actual.status == Status.PROCESSING
        assert actual.started_at is not None or actual.status != Status.PROCESSING
        past = [actual.started_at, actual.completed_at, actual.heartbeat_at, actual.updated_at]
        assert all(moment <= now for moment in past if moment is not None)


@pytest.fixture(params=["session", "connection of a worker"])
def machine(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Callable[[], Lifecycle]]:
    """Make a life, over each kind of connection that the tracker takes."""
    if request.param == "session":
        yield lambda: Lifecycle(engine, Session(engine))
        return
    engines = Engines(engine.url.render_as_string(hide_password=False))
    with engines.kept() as db:
        yield lambda: Lifecycle(engine, db)
    engines.dispose()


def test_no_sequence_of_operations_makes_the_database_disagree_with_the_table_of_transitions(
    machine: Callable[[], Lifecycle],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes on a database
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_full_log_in_a_random_life_is_trimmed(machine: Callable[[], Lifecycle]) -> None:
    """The one path that random sequences reach too rarely."""
    life = machine()
    row = life.create_another(1, due=True)
    attempt = life.claim(row, "task 1")
    life.fail_until_the_log_is_full(attempt)
    life.cancel(row, "enough")
    life.revive(row, 1)

    life.the_model_and_the_database_agree()
    life.teardown()
    numbers = [number for number, _, _ in life.expected[row].log]
    assert numbers == [*range(2, ATTEMPT_LOG_LIMIT + 1), ATTEMPT_LOG_LIMIT + 1]
