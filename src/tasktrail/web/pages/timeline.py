"""The timeline of a job: when it waited, and when which attempt of it ran."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from tasktrail.monitoring.queries import Details
from tasktrail.states import Status


class Kind(StrEnum):
    """What a job did in a span of time."""

    WAITING = "waiting"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Step:
    """A span of a job's time.

    Attributes:
        kind: whether it waited or ran.
        attempt: which attempt it belongs to, from 1.
        start: its begin.
        end: its end; ``None`` while it goes on.
        seconds: its length, up to now while it goes on.
        outcome: how a run ended; ``None`` for waiting, and while it goes on.
        error: what the run's end says.
        worker: who ran it.
        left: where it begins on the whole of the timeline, from 0 to 1,000.
        width: how much of that it takes.
    """

    kind: Kind
    attempt: int
    start: datetime
    end: datetime | None
    seconds: float
    outcome: str | None
    error: str | None
    worker: str | None
    left: float = 0.0
    width: float = 0.0


Span: TypeAlias = tuple[Kind, int, datetime, datetime | None, str | None, str | None, str | None]


def timeline(details: Details, now: datetime) -> list[Step]:
    """Return what a job did since it was added, in order.

    Args:
        details: all that is known of the job.
        now: by the server's clock.
    """
    row = details.row
    spans: list[Span] = []
    since = row.created_at
    for one in details.log:
        if one.start is not None:
            spans.append((Kind.WAITING, one.number, since, one.start, None, None, None))
        begin = one.start or since
        spans.append((Kind.RUNNING, one.number, begin, one.end, one.outcome, one.error, one.worker))
        since = one.end
    attempt = (details.log[-1].number if details.log else 0) + 1
    if row.status is Status.PENDING:
        spans.append((Kind.WAITING, attempt, since, None, None, None, None))
    elif row.started_at is not None and (row.status is Status.PROCESSING or row.started_at >= since):
        if row.started_at > since:
            spans.append((Kind.WAITING, attempt, since, row.started_at, None, None, None))
        outcome = None if row.status is Status.PROCESSING else row.status.value.lower()
        spans.append(
            (Kind.RUNNING, attempt, row.started_at, row.completed_at, outcome, None, row.worker)
        )  # fmt: skip
    elif row.completed_at is not None and not details.log:
        spans.append((Kind.WAITING, attempt, since, row.completed_at, row.status.value.lower(), None, None))
    return _placed(spans, row.created_at, now)


def _placed(
    spans: list[Span],
    begin: datetime,
    now: datetime,
) -> list[Step]:
    last = max((end or now for _, _, _, end, _, _, _ in spans), default=now)
    whole = max((last - begin).total_seconds(), 0.001)
    steps = []
    for kind, attempt, start, end, outcome, error, worker in spans:
        length = max(0.0, ((end or now) - start).total_seconds())
        left = 1000 * max(0.0, (start - begin).total_seconds()) / whole
        width = 1000 * length / whole
        steps.append(
            Step(kind, attempt, start, end, length, outcome, error, worker, round(left, 2), round(width, 2))
        )
    return steps
