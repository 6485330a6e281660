"""What a worker's main process learns about its children is written to their rows, each under its fence."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from tasktrail import Enqueued, FencedOut, RetryPolicy, Status, tracker
from tasktrail.celery.losses import Loss, LossRecorder, What
from tasktrail.errors import TimeLimit, WorkerLost
from tests.desk import Desk, Sent, desk
from tests.support import JobTracking
from tests.upkeep import disconnect
from tests.waiting import until

FAILURES = [("lost", "lost", "WorkerLost"), ("timeout", "timeout", "TimeLimit")]


@pytest.fixture
def office(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """Tracked tasks whose retries are due after a minute."""
    with desk(database_url, redis_url, request.node.name) as found:
        yield found


def running(office: Desk, **fields: object) -> Enqueued:
    """Enqueue a job and claim it, as worker ``w1`` would."""
    job = office.job.enqueue(**fields)
    office.sent()
    office.claim(job)
    return job


def loss(office: Desk, job: Enqueued, what: What, **other: object) -> Loss:
    fields = {
        "domain": office.job.domain,
        "task": office.job.celery_task,
        "tracking_id": job.id,
        "celery_task_id": str(job.celery_task_id),
        "worker": "w1",
        "what": what,
        "reason": "signal 9",
    }
    return Loss(**{**fields, **other})


@pytest.mark.parametrize(("what", "outcome", "error"), FAILURES)
def test_a_lost_attempt_is_counted_logged_and_sent_again(
    office: Desk, what: What, outcome: str, error: str
) -> None:
    job = running(office)

    office.trail.losses.record(loss(office, job, what))

    row = office.row(job)
    [entry] = row["attempt_log"]
    assert (row["status"], row["attempts"], row["heartbeat_at"]) == (Status.PENDING, 1, None)
    assert (entry["number"], entry["outcome"], entry["error"]) == (1, outcome, f"{error}: signal 9")
    assert 59 < (row["next_attempt_at"] - row["updated_at"]).total_seconds() < 61
    assert office.sent() == [Sent("job", job.id, str(job.celery_task_id), has_eta=True)]


@pytest.mark.parametrize(("what", "outcome", "error"), FAILURES)
def test_a_lost_last_attempt_leaves_the_row_failed(
    office: Desk, what: What, outcome: str, error: str
) -> None:
    job = running(office, max_attempts=1)

    office.trail.losses.record(loss(office, job, what))

    row = office.row(job)
    assert (row["status"], row["attempts"]) == (Status.FAILED, 1)
    assert row["error_message"] == f"{error}: signal 9"
    assert office.sent() == []


@pytest.mark.parametrize(("what", "given_up"), [("lost", WorkerLost), ("timeout", TimeLimit)])
def test_a_policy_may_give_up_on_a_kind_of_loss(
    database_url: str,
    redis_url: str,
    request: pytest.FixtureRequest,
    what: What,
    given_up: type[Exception],
) -> None:
    policy = RetryPolicy(max_attempts=9, give_up_on=(given_up,))
    with desk(database_url, redis_url, request.node.name, policy) as office:
        job = running(office)
        office.trail.losses.record(loss(office, job, what))

        assert office.status(job) is Status.FAILED


def test_a_retry_beyond_the_horizon_is_left_to_maintenance(
    database_url: str, redis_url: str, request: pytest.FixtureRequest
) -> None:
    with desk(database_url, redis_url, request.node.name, RetryPolicy(base=3600)) as office:
        job = running(office)
        office.trail.losses.record(loss(office, job, "lost"))

        assert office.row(job)["dispatched_at"] is None
        assert office.sent() == []


def test_a_row_that_is_given_back_costs_no_attempt_and_is_sent_at_once(office: Desk) -> None:
    job = running(office)

    office.trail.losses.record(loss(office, job, "released"))

    row = office.row(job)
    assert (row["status"], row["attempts"], row["attempt_log"]) == (Status.PENDING, 0, [])
    assert office.sent() == [Sent("job", job.id, str(job.celery_task_id), has_eta=False)]


@pytest.mark.parametrize("is_running", [True, False])
def test_a_revoked_row_is_cancelled_with_the_reason(office: Desk, is_running: bool) -> None:
    job = running(office) if is_running else office.job.enqueue()

    office.trail.losses.record(loss(office, job, "cancelled", reason="revoked through Celery"))

    row = office.row(job)
    assert (row["status"], row["error_message"]) == (Status.CANCELLED, "revoked through Celery")
    assert [entry["outcome"] for entry in row["attempt_log"]] == (["cancelled"] if is_running else [])


# Stale news


@pytest.mark.parametrize("what", ["lost", "timeout", "released"])
@pytest.mark.parametrize("other", [{"worker": "w2"}, {"celery_task_id": "task 2"}])
def test_a_loss_of_an_attempt_that_lost_the_row_long_ago_changes_nothing(
    office: Desk, what: What, other: dict[str, str]
) -> None:
    job = running(office)
    before = office.row(job)

    office.trail.losses.record(loss(office, job, what, **other))

    assert office.row(job) == before
    assert office.sent() == []


@pytest.mark.parametrize("what", ["lost", "timeout", "released", "cancelled"])
def test_a_loss_after_the_end_changes_nothing(office: Desk, what: What) -> None:
    job = office.job.enqueue()
    office.complete(job)
    before = office.row(job)

    office.trail.losses.record(loss(office, job, what))

    assert office.row(job) == before


def test_a_loss_of_a_row_that_is_gone_is_no_error(office: Desk) -> None:
    job = running(office)
    with office.engine.begin() as db:
        db.execute(text("DELETE FROM tracking.job_tracking"))

    for what in ("lost", "timeout", "released", "cancelled"):
        office.trail.losses.record(loss(office, job, what))


def test_a_loss_is_recorded_once_however_often_it_is_told(office: Desk) -> None:
    """Celery tells of a hard time limit twice, and then of the child that it has killed."""
    job = running(office)

    for what in ("timeout", "timeout", "lost"):
        office.trail.losses.record(loss(office, job, what))

    assert [entry["outcome"] for entry in office.row(job)["attempt_log"]] == ["timeout"]


def test_an_old_message_of_a_revoked_row_does_not_cancel_it_after_an_operator_started_it_again(
    office: Desk,
) -> None:
    """Workers remember what was revoked by its Celery id, for hours."""
    job = office.job.enqueue()
    office.trail.losses.record(loss(office, job, "cancelled"))

    again = office.job.retry(job.id)
    office.trail.losses.record(loss(office, job, "cancelled"))

    assert again.celery_task_id != job.celery_task_id
    assert office.status(job) is Status.PENDING
    assert [message.celery_task_id for message in office.sent()][1:] == [again.celery_task_id]


# The thread


def test_losses_are_recorded_by_a_thread_in_the_order_they_happened(office: Desk) -> None:
    jobs = [running(office) for _ in range(5)]
    for job in jobs:
        office.trail.losses.submit(loss(office, job, "timeout"))
        office.trail.losses.submit(loss(office, job, "lost"))

    office.trail.losses.close(10)

    logs = [office.row(job)["attempt_log"] for job in jobs]
    assert [[entry["outcome"] for entry in log] for log in logs] == [["timeout"]] * 5


def test_losses_are_still_recorded_after_the_recorder_was_closed(office: Desk) -> None:
    job = running(office)
    office.trail.losses.close(10)

    office.trail.losses.submit(loss(office, job, "lost"))
    office.trail.losses.close(10)

    assert office.row(job)["attempts"] == 1


def test_closing_a_recorder_that_recorded_nothing_is_no_error(office: Desk) -> None:
    office.trail.losses.close(10)


def admit(postgres_url: str, database: str, *, allowed: bool) -> None:
    """Let nobody connect to a database, or everybody again."""
    engine = create_engine(make_url(postgres_url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS {allowed}"))
    engine.dispose()


def test_a_loss_waits_for_a_database_that_is_away(
    office: Desk, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = running(office)
    database = make_url(database_url).database or ""
    tried = threading.Event()

    class Trying(LossRecorder):
        def record(self, loss: Loss) -> None:
            try:
                super().record(loss)
            except Exception:
                tried.set()
                raise

    recorder = Trying(office.trail.engines, office.trail.publisher, eta_horizon=900, patience=60)
    admit(database_url, database, allowed=False)
    disconnect(office.engine, "tasktrail")
    recorder.submit(loss(office, job, "lost"))
    assert tried.wait(20)
    admit(database_url, database, allowed=True)

    until(lambda: office.row(job)["attempts"] == 1)
    recorder.close(10)


def test_a_loss_is_left_to_the_lease_when_the_database_stays_away(
    office: Desk, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job, other = running(office), running(office)
    database = make_url(database_url).database or ""
    recorder = LossRecorder(office.trail.engines, office.trail.publisher, eta_horizon=900, patience=0.01)
    admit(database_url, database, allowed=False)
    disconnect(office.engine, "tasktrail")

    recorder.submit(loss(office, job, "lost"))
    until(lambda: "a loss is left to the lease" in caplog.text)
    admit(database_url, database, allowed=True)
    recorder.submit(loss(office, other, "lost"))
    recorder.close(10)

    assert office.status(job) is Status.PROCESSING
    assert office.row(other)["attempts"] == 1


def test_the_recorder_outlives_an_error_that_nobody_expected(
    office: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, other = running(office), running(office)
    with monkeypatch.context() as broken:
        broken.setattr(tracker, "fence", lambda *_, **__: 1 / 0)
        office.trail.losses.submit(loss(office, job, "lost"))
        until(lambda: "ZeroDivisionError" in caplog.text)

    office.trail.losses.submit(loss(office, other, "lost"))
    office.trail.losses.close(10)

    assert office.row(other)["attempts"] == 1


def test_of_a_loss_and_a_completion_at_once_one_counts(engine: Engine, office: Desk) -> None:
    for _ in range(10):
        job = office.job.enqueue()
        fence = office.claim(job)
        threads = [
            threading.Thread(target=office.trail.losses.record, args=(loss(office, job, "lost"),)),
            threading.Thread(target=complete, args=(engine, fence)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        row = office.row(job)
        assert (row["status"], row["attempts"]) in [(Status.COMPLETED, 0), (Status.PENDING, 1)]


def complete(engine: Engine, fence: tracker.Fence) -> None:
    with engine.begin() as db:
        try:
            tracker.complete(db, JobTracking, fence)
        except FencedOut:
            db.rollback()
