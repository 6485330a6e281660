"""``tasktrail retry`` and ``tasktrail cancel``: rows by their ids, and rows by a filter."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import Engine, text

from tasktrail import Status
from tasktrail.access.audit import whoever
from tasktrail.cli.app import app
from tests.commands import Outcome, run_here
from tests.rows import add_job, add_job_in, claim, columns

LAUNDRY = """
from celery import Celery
from tasktrail import RetryPolicy, Settings, Trail
from tests.support import SCHEMA, JobTrackingService

trail = Trail(Celery("laundry"), Settings.load(), schema=SCHEMA)
trail.app.conf.update(
    task_default_queue="queue of the laundry",
    broker_transport_options={"max_retries": 1, "interval_start": 0, "interval_step": 0},
)
trail.task(JobTrackingService, name="laundry.job", retry=RetryPolicy(max_attempts=4))(lambda run: None)
"""


@pytest.fixture(autouse=True)
def laundry(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, redis_url: str
) -> Iterator[None]:
    """An application in the working directory, on the fresh database and an empty queue."""
    (project_folder / "laundry.py").write_text(LAUNDRY, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    monkeypatch.setenv("TASKTRAIL_APP", "laundry:trail")
    with Connection(redis_url) as broker, broker.SimpleQueue("queue of the laundry") as queue:
        queue.clear()
    yield
    sys.modules.pop("laundry", None)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the operator answer the question of a command."""

    def give(line: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))

    return give


def sent(redis_url: str) -> list[tuple[int, str]]:
    """Return id and Celery id of every message that waits, in order of the ids."""
    found = []
    name = "queue of the laundry"
    with Connection(redis_url) as broker, broker.SimpleQueue(name) as queue, suppress(Empty):
        while message := queue.get(block=False):
            found.append((message.payload[0][0], message.headers["id"]))
            message.ack()
    return sorted(found)


def states(engine: Engine) -> list[tuple[int, str]]:
    """Return id and state of every row."""
    with engine.connect() as db:
        query = text("SELECT id, status FROM tracking.job_tracking ORDER BY id")
        return [(row.id, row.status) for row in db.execute(query)]


def everything(engine: Engine) -> list[Any]:
    """Return all there is in all rows."""
    with engine.connect() as db:
        return list(db.execute(text("SELECT * FROM tracking.job_tracking ORDER BY id")))


def test_retry_starts_failed_and_cancelled_rows_again_by_their_ids(engine: Engine, redis_url: str) -> None:
    failed, cancelled = add_job_in(engine, Status.FAILED), add_job_in(engine, Status.CANCELLED)
    before = columns(engine, failed)

    outcome = run_here(app, "retry", "job", str(failed), str(cancelled))

    assert outcome == Outcome(0, f"job {failed}: PENDING\njob {cancelled}: PENDING\n", "")
    after = columns(engine, failed)
    assert (after["status"], after["attempts"], after["max_attempts"]) == ("PENDING", 1, 5)  # 4 more
    assert after["attempt_log"] == before["attempt_log"]
    assert after["dispatched_at"] is not None
    assert sent(redis_url) == [(job, columns(engine, job)["celery_task_id"]) for job in (failed, cancelled)]


def test_cancel_ends_waiting_and_running_rows_by_their_ids_and_keeps_the_reason(engine: Engine) -> None:
    waiting, running = add_job(engine), claim(engine, add_job(engine)).fence.tracking_id

    outcome = run_here(app, "cancel", "job", str(waiting), str(running), "--reason", "the customer left")

    assert outcome == Outcome(0, f"job {waiting}: CANCELLED\njob {running}: CANCELLED\n", "")
    for job in (waiting, running):
        row = columns(engine, job)
        assert (row["status"], row["error_message"]) == ("CANCELLED", "the customer left")
    (entry,) = columns(engine, running)["attempt_log"]
    assert (entry["outcome"], columns(engine, running)["attempts"]) == ("cancelled", 0)


def test_a_cancellation_without_a_reason_says_who_it_was(engine: Engine) -> None:
    job = add_job(engine)

    run_here(app, "cancel", "job", str(job))

    assert columns(engine, job)["error_message"] == "cancelled by an operator"


@pytest.mark.parametrize(
    ("command", "status", "allowed"),
    [
        ("retry", Status.PENDING, "CANCELLED or FAILED"),
        ("retry", Status.PROCESSING, "CANCELLED or FAILED"),
        ("retry", Status.COMPLETED, "CANCELLED or FAILED"),
        ("cancel", Status.COMPLETED, "PENDING or PROCESSING"),
        ("cancel", Status.FAILED, "PENDING or PROCESSING"),
        ("cancel", Status.CANCELLED, "PENDING or PROCESSING"),
    ],
)
def test_a_row_in_the_wrong_state_is_one_line_that_names_its_state(
    engine: Engine, redis_url: str, command: str, status: Status, allowed: str
) -> None:
    job = add_job_in(engine, status)
    before = everything(engine)

    outcome = run_here(app, command, "job", str(job))

    assert outcome.complains(
        f"job {job}: cannot {command}: the row is {status}, it would have to be {allowed}"
    )
    assert outcome.out == ""
    assert (everything(engine), sent(redis_url)) == (before, [])


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_a_row_that_is_not_there_is_one_line(command: str) -> None:
    assert run_here(app, command, "job", "4711").complains("job 4711: there is no such tracking row")


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_a_domain_that_is_not_there_is_one_line_with_those_there_are(command: str) -> None:
    assert run_here(app, command, "jobs", "1").complains("no domain is called 'jobs'; registered: job")


def test_retry_by_filter_starts_the_rows_that_match_and_no_others(engine: Engine, redis_url: str) -> None:
    failed = [add_job_in(engine, Status.FAILED) for _ in range(3)]
    others = {status: add_job_in(engine, status) for status in Status if status is not Status.FAILED}

    outcome = run_here(app, "retry", "job", "--status", "FAILED", "--yes")

    assert outcome == Outcome(0, "3 rows started again\n", "")
    expected = [(job, "PENDING") for job in failed] + [(job, status) for status, job in others.items()]
    assert states(engine) == sorted(expected)
    assert [job for job, _ in sent(redis_url)] == failed


def test_cancel_by_filter_ends_the_rows_that_match_and_no_others(engine: Engine) -> None:
    jobs = {status: add_job_in(engine, status) for status in Status}

    outcome = run_here(app, "cancel", "job", "--all", "--yes", "--reason", "spring cleaning")

    assert outcome == Outcome(0, "2 rows cancelled\n", "")
    ended = {
        job: "CANCELLED" if status in ("PENDING", "PROCESSING") else status for status, job in jobs.items()
    }
    assert states(engine) == sorted(ended.items())
    assert columns(engine, jobs[Status.FAILED])["error_message"] == "ValueError: no"


def audited(engine: Engine) -> list[tuple[Any, ...]]:
    """Return the lines of the audit, the oldest first."""
    with engine.connect() as db:
        query = text(
            "SELECT who, what, domain, tracking_id, filter, count FROM tracking.tasktrail_audit ORDER BY id"
        )
        return [tuple(row) for row in db.execute(query)]


def test_who_wrote_to_which_rows_is_in_the_audit(engine: Engine) -> None:
    failed, waiting = add_job_in(engine, Status.FAILED), add_job(engine)

    run_here(app, "retry", "job", str(failed))
    run_here(app, "cancel", "job", str(waiting))

    assert audited(engine) == [
        (whoever(), "retry", "job", failed, None, None),
        (whoever(), "cancel", "job", waiting, None, None),
    ]


@pytest.mark.parametrize(("command", "status"), [("retry", Status.FAILED), ("cancel", Status.PENDING)])
def test_many_rows_have_a_line_before_and_one_after_with_filter_and_number(
    engine: Engine, command: str, status: Status
) -> None:
    for _ in range(3):
        add_job_in(engine, status)

    run_here(app, command, "job", "--status", status, "--before", "2100-01-01", "--yes")

    meant = {"status": [status], "created_before": ["2100-01-01T00:00:00+00:00"]}
    assert audited(engine) == [
        (whoever(), f"{command} many", "job", None, meant, 3),
        (whoever(), f"{command} many: completed", "job", None, meant, 3),
    ]


def test_neither_a_reason_is_missing_in_the_audit_nor_is_a_secret_in_it(engine: Engine) -> None:
    job = add_job(engine)
    with engine.begin() as db:
        update = text("UPDATE tracking.job_tracking SET error_message = 'password=hunter2' WHERE id = :id")
        db.execute(update, {"id": job})

    run_here(app, "cancel", "job", "--error", "password=hunter2", "--yes", "--reason", "it leaks")

    with engine.connect() as db:
        query = text("SELECT filter, details FROM tracking.tasktrail_audit ORDER BY id LIMIT 1")
        line = db.execute(query).one()
    assert line.details == {"reason": "it leaks"}
    assert line.filter == {"error": ["password=[masked]"]}


@pytest.mark.parametrize("arguments", [["4711"], ["--error", "no such error"]])
@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_what_was_not_done_is_not_in_the_audit(engine: Engine, command: str, arguments: list[str]) -> None:
    run_here(app, command, "job", *arguments)

    assert audited(engine) == []


@pytest.mark.parametrize(
    ("options", "matches"),
    [
        (["--status", "FAILED"], {"old", "timeout", "other"}),
        (["--status", "CANCELLED"], {"cancelled"}),
        (["--status", "FAILED", "--status", "CANCELLED"], {"old", "timeout", "other", "cancelled"}),
        (["--error", "timed OUT"], {"old", "timeout"}),
        (["--error", "100%"], {"other"}),
        (["--error", "timed out", "--since", "2026-10-01"], {"timeout"}),
        (["--before", "2026-10-01"], {"old"}),
        (["--since", "2026-10-05 12:00:00", "--before", "2026-10-05T12:00:01"], {"timeout"}),
        (["--all"], {"old", "timeout", "other", "cancelled"}),
    ],
)
def test_all_conditions_of_a_filter_must_hold(engine: Engine, options: list[str], matches: set[str]) -> None:
    rows = {
        "old": (Status.FAILED, "2026-09-30 23:59:59+00", "Timeout: timed out"),
        "timeout": (Status.FAILED, "2026-10-05 12:00:00+00", "Timeout: timed out"),
        "other": (Status.FAILED, "2026-10-06 00:00:00+00", "Full: the disk is at 100%"),
        "cancelled": (Status.CANCELLED, "2026-10-07 00:00:00+00", "nobody wants 1000 of it"),
        "done": (Status.COMPLETED, "2026-10-05 12:00:00+00", None),
    }
    for name, (status, created_at, error) in rows.items():
        job = add_job_in(engine, status, payload=name)
        with engine.begin() as db:
            db.execute(
                text(
                    "UPDATE tracking.job_tracking SET created_at = :created_at, error_message = :error"
                    " WHERE id = :job"
                ),
                {"created_at": created_at, "error": error, "job": job},
            )

    outcome = run_here(app, "retry", "job", *options, "--yes")

    assert (outcome.code, outcome.out) == (0, f"{len(matches)} rows started again\n")
    assert {row.payload for row in everything(engine) if row.status == "PENDING"} == matches


@pytest.mark.parametrize("command", ["retry", "cancel"])
@pytest.mark.parametrize("options", [["--error", "no such error"], ["--before", "2000-01-01"]])
def test_a_filter_that_matches_nothing_says_so_and_changes_nothing(
    engine: Engine, redis_url: str, command: str, options: list[str]
) -> None:
    for status in Status:
        add_job_in(engine, status)
    before = everything(engine)

    outcome = run_here(app, command, "job", *options)  # without --yes: there is nothing to ask about

    assert outcome == Outcome(0, "no row matches\n", "")
    assert (everything(engine), sent(redis_url)) == (before, [])


@pytest.mark.parametrize(
    ("command", "status", "after"),
    [("retry", Status.FAILED, "2 rows started again"), ("cancel", Status.PENDING, "2 rows cancelled")],
)
def test_the_operator_is_asked_with_the_number_of_rows(
    engine: Engine, answer: Any, command: str, status: Status, after: str
) -> None:
    jobs = [add_job_in(engine, status) for _ in range(2)]

    answer("n\n")
    refused = run_here(app, command, "job", "--all")
    in_between = states(engine)
    answer("y\n")
    agreed = run_here(app, command, "job", "--all")

    assert (refused.code, agreed.code) == (1, 0)
    assert "2 rows of job, go on? [y/N]" in refused.out
    assert in_between == [(job, status) for job in jobs]
    assert after in agreed.out


@pytest.mark.parametrize(
    ("command", "status", "after"),
    [("retry", Status.FAILED, Status.PENDING), ("cancel", Status.PENDING, Status.CANCELLED)],
)
def test_what_was_done_is_told_as_json(
    engine: Engine, answer: Any, command: str, status: Status, after: Status
) -> None:
    first, second, third = (add_job_in(engine, status) for _ in range(3))

    by_ids = run_here(app, command, "job", str(first), "--json")
    answer("y\n")
    by_filter = run_here(app, command, "job", "--status", status, "--json")
    nothing = run_here(app, command, "job", "--status", status, "--json")

    done = {"domain": "job", "count": 1, "rows": [{"id": first, "status": after}]}
    assert json.loads(by_ids.out) == done
    assert json.loads(by_filter.out) == {"domain": "job", "count": 2, "rows": []}
    assert "2 rows of job, go on? [y/N]" in by_filter.err
    assert json.loads(nothing.out) == {"domain": "job", "count": 0, "rows": []}
    assert states(engine) == [(job, after) for job in (first, second, third)]


@pytest.mark.parametrize(("command", "status"), [("retry", Status.FAILED), ("cancel", Status.PENDING)])
def test_json_tells_what_was_done_before_a_row_was_refused(
    engine: Engine, command: str, status: Status
) -> None:
    job = add_job_in(engine, status)

    outcome = run_here(app, command, "job", str(job), "404404", "--json")

    told = json.loads(outcome.out)
    assert (told["count"], [row["id"] for row in told["rows"]]) == (1, [job])
    assert outcome.code != 0
    assert "404404" in outcome.err


def test_without_anybody_to_ask_nothing_is_done(engine: Engine, answer: Any) -> None:
    job = add_job_in(engine, Status.FAILED)
    answer("")

    assert run_here(app, "retry", "job", "--all").code == 1
    assert states(engine) == [(job, "FAILED")]


@pytest.mark.parametrize("command", ["retry", "cancel"])
@pytest.mark.parametrize("words", [[], ["--yes"], ["1", "--all"], ["1", "--status", "FAILED", "--yes"]])
def test_rows_are_named_either_by_ids_or_by_options(engine: Engine, command: str, words: list[str]) -> None:
    add_job_in(engine, Status.FAILED)
    add_job_in(engine, Status.PENDING)
    before = everything(engine)

    assert run_here(app, command, "job", *words).complains("name rows either by their ids, or by --status")
    assert everything(engine) == before


@pytest.mark.parametrize("words", [["x"], ["--status", "GONE"], ["--since", "yesterday"], []])
def test_what_cannot_be_understood_is_a_usage_error(words: list[str]) -> None:
    outcome = run_here(app, "retry", *(["job", *words] if words else []))

    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: " in outcome.err


def test_a_retry_without_a_broker_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = add_job_in(engine, Status.FAILED)
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", "redis://127.0.0.1:1/0")

    assert run_here(app, "retry", "job", str(job)).complains("127.0.0.1:1", "TASKTRAIL_BROKER_URL")
    assert states(engine) == [(job, "FAILED")]
