"""The JSON documents of figures: statistics, failures, workers, findings."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from tasktrail.doctor import Severity
from tasktrail.monitoring.queries import Overview, Period
from tasktrail.web.documents import CountDocument


class Figure(BaseModel):
    """A document that is read off a figure of the read model, its properties included."""

    model_config = ConfigDict(from_attributes=True)


class StateCountsDocument(Figure):
    """The rows of a domain by state, exact."""

    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    held: int
    due: int
    total: int


class OldestPendingDocument(Figure):
    """The row that is due for longest."""

    id: int
    due_at: datetime
    seconds: float


class BarDocument(Figure):
    """What happened in a part of a window."""

    start: datetime
    seconds: float
    created: int
    completed: int
    failed: int
    cancelled: int


class PercentilesDocument(Figure):
    """Lengths of time in seconds; a percentile is off by 9 % at most, null when there are none."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class RetriesDocument(Figure):
    """How often work was repeated."""

    ended: int
    retried: int
    mean_attempts: float | None


class HistoryDocument(Figure):
    """What happened in a window."""

    created: int
    completed: int
    failed: int
    cancelled: int
    ended: int
    per_minute: float
    success_rate: float | None
    completion_rate: float | None
    running: PercentilesDocument
    waiting: PercentilesDocument
    retries: RetriesDocument
    bars: list[BarDocument]


class FiguresDocument(BaseModel):
    """How a domain does."""

    domain: str
    counts: StateCountsDocument
    oldest_pending: OldestPendingDocument | None
    stuck: CountDocument
    overdue: CountDocument
    history: HistoryDocument

    @classmethod
    def of(cls, found: Overview) -> Self:
        """Make the document of a domain's figures."""
        oldest = None if found.oldest is None else OldestPendingDocument.model_validate(found.oldest)
        return cls(
            domain=found.domain,
            counts=StateCountsDocument.model_validate(found.counts),
            oldest_pending=oldest,
            stuck=CountDocument.model_validate(found.stuck),
            overdue=CountDocument.model_validate(found.overdue),
            history=HistoryDocument.model_validate(found.history),
        )


class StatisticsDocument(BaseModel):
    """How all domains do, at one moment."""

    at: datetime
    period: Period
    domains: list[FiguresDocument]


class GroupDocument(Figure):
    """Rows that failed alike; ``group`` chooses them in a list or an operation."""

    group: str
    fingerprint: str
    rows: int
    first_at: datetime
    last_at: datetime
    example_id: int
    bars: list[int]


class FailuresDocument(BaseModel):
    """What failed in a domain, in a window; the bars of its groups begin at ``start``."""

    domain: str
    start: datetime
    bar_seconds: float
    rows: int
    more_groups: int
    groups: list[GroupDocument]


class WorkerDocument(Figure):
    """What a worker does, and did lately."""

    worker: str
    processing: int
    completed: int
    failed: int
    domains: list[str]
    seen_at: datetime


class FindingDocument(BaseModel):
    """One thing that is wrong."""

    check: str
    severity: Severity
    subject: str
    message: str
