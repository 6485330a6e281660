"""The timeline of a job: every wait and every attempt, in order, without gaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasktrail.monitoring.queries import Attempt, Details, Row
from tasktrail.states import Status
from tasktrail.web.pages.timeline import timeline

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def job(status: Status, *log: tuple[float | None, float, str], **columns: Any) -> Details:
    row = Row(
        domain="job", id=1, status=status, created_at=NOON, updated_at=NOON, attempts=len(log),
        max_attempts=3, error=None, celery_task_id=None, dispatched_at=None, heartbeat_at=None, due_at=NOON,
        fields={}, **{"started_at": None, "completed_at": None, "worker": "w1", **columns},
    )  # fmt: skip
    attempts = tuple(
        Attempt(number, None if start is None else at(start), at(end), outcome, "ValueError: no", "w1")
        for number, (start, end, outcome) in enumerate(log, start=1)
    )
    return Details(row, attempts, (), (), None)


def spans(details: Details, now: float = 100) -> list[tuple[str, int, float, str | None]]:
    return [(step.kind, step.attempt, step.seconds, step.outcome) for step in timeline(details, at(now))]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (job(Status.PENDING), [("waiting", 1, 100, None)]),
        (
            job(Status.PROCESSING, started_at=at(10)),
            [("waiting", 1, 10, None), ("running", 1, 90, None)],
        ),
        (
            job(Status.COMPLETED, started_at=at(10), completed_at=at(30)),
            [("waiting", 1, 10, None), ("running", 1, 20, "completed")],
        ),
        (
            job(Status.FAILED, (5, 10, "error"), (20, 40, "lost"), started_at=at(20), completed_at=at(40)),
            [
                ("waiting", 1, 5, None),
                ("running", 1, 5, "error"),
                ("waiting", 2, 10, None),
                ("running", 2, 20, "lost"),
            ],
        ),
        (
            job(Status.PENDING, (5, 10, "error")),
            [("waiting", 1, 5, None), ("running", 1, 5, "error"), ("waiting", 2, 90, None)],
        ),
        (job(Status.CANCELLED, completed_at=at(7)), [("waiting", 1, 7, "cancelled")]),
        (
            job(Status.COMPLETED, (None, 10, "superseded"), started_at=at(10), completed_at=at(30)),
            [("running", 1, 10, "superseded"), ("running", 2, 20, "completed")],
        ),
    ],
    ids=["waits", "runs", "done", "failed", "retries", "never ran", "migrated"],
)
def test_a_job_waits_and_runs_in_turn(details: Details, expected: list[tuple[str, int, float, str]]) -> None:
    assert spans(details) == expected


def test_the_steps_fill_the_whole_line_one_after_the_other() -> None:
    steps = timeline(job(Status.COMPLETED, (5, 10, "error"), started_at=at(20), completed_at=at(40)), at(99))
    ends = [round(step.left + step.width, 1) for step in steps]

    assert [round(step.left, 1) for step in steps] == [0, *ends[:-1]]
    assert ends[-1] == 1000


def test_a_clock_that_ran_backwards_leaves_no_negative_span() -> None:
    assert all(step.seconds >= 0 for step in timeline(job(Status.PROCESSING, started_at=at(-5)), at(-9)))
