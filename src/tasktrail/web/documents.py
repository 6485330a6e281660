"""The JSON documents that come in and go out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from tasktrail.masking import mask_fields, mask_text
from tasktrail.models import BaseTaskTracking
from tasktrail.monitoring.queries import Details, Page, Row
from tasktrail.states import Status
from tasktrail.web.choosing import LARGEST_ID

RowId = Annotated[int, Field(ge=1, le=LARGEST_ID)]


class Incoming(BaseModel):
    """A body; a member that is not known is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ColumnDocument(BaseModel):
    """A domain column."""

    name: str
    type: str
    is_required: bool
    is_sensitive: bool


class DomainDocument(BaseModel):
    """A domain."""

    name: str
    has_task: bool
    columns: list[ColumnDocument]


EXAMPLE: dict[str, Any] = {
    "domain": "report",
    "id": 17,
    "status": "FAILED",
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:03:10Z",
    "started_at": "2026-01-31T12:03:02Z",
    "completed_at": "2026-01-31T12:03:10Z",
    "due_at": "2026-01-31T12:03:00Z",
    "dispatched_at": "2026-01-31T12:03:00Z",
    "heartbeat_at": None,
    "attempts": 3,
    "max_attempts": 3,
    "worker": "celery@host-1",
    "error": "OperationalError: postgresql://app:[masked]@db/shop refused",
    "celery_task_id": "0c7f2f0e-6b0f-4c53-9f0a-5f4a51a1a001",
    "fields": {"customer_id": 7},
}


class JobDocument(BaseModel):
    """A tracking row; secrets in its error and its fields are masked."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    domain: str
    id: int
    status: Status
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    due_at: datetime | None
    dispatched_at: datetime | None
    heartbeat_at: datetime | None
    attempts: int
    max_attempts: int
    worker: str | None
    error: str | None
    celery_task_id: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, row: Row, model: type[BaseTaskTracking]) -> Self:
        """Make the document of a row."""
        plain = {name: getattr(row, name) for name in cls.model_fields}
        plain["error"] = None if row.error is None else mask_text(row.error)
        plain["fields"] = mask_fields(row.fields, model.__tracking__.sensitive)
        return cls(**plain)


class CountDocument(BaseModel):
    """A number of rows; ``is_more`` when counting ended there."""

    model_config = ConfigDict(from_attributes=True)

    count: int
    is_more: bool


class JobsDocument(BaseModel):
    """A page of rows, the newest first."""

    jobs: list[JobDocument]
    next: str | None
    count: CountDocument

    @classmethod
    def of(cls, page: Page, model: type[BaseTaskTracking]) -> Self:
        """Make the document of a page."""
        count = CountDocument(count=page.count.count, is_more=page.count.is_more)
        return cls(jobs=[JobDocument.of(row, model) for row in page.rows], next=page.next, count=count)


class AttemptDocument(BaseModel):
    """An attempt that did not complete."""

    number: int
    start: datetime | None
    end: datetime
    outcome: str
    error: str
    worker: str | None


class ReferenceDocument(Incoming):
    """Names a row."""

    domain: str
    id: RowId


class PrerequisiteDocument(BaseModel):
    """A row that another waits for."""

    domain: str
    id: int
    is_met: bool
    if_unmet: str


class JobDetailsDocument(BaseModel):
    """A row with its attempts, and what it waits for and what waits for it."""

    job: JobDocument
    log: list[AttemptDocument]
    prerequisites: list[PrerequisiteDocument]
    dependents: list[ReferenceDocument]

    @classmethod
    def of(cls, details: Details, model: type[BaseTaskTracking]) -> Self:
        """Make the document of all that is known of a row."""
        return cls(
            job=JobDocument.of(details.row, model),
            log=[
                AttemptDocument(
                    number=one.number, start=one.start, end=one.end, outcome=one.outcome,
                    error=mask_text(one.error), worker=one.worker,
                )
                for one in details.log
            ],
            prerequisites=[
                PrerequisiteDocument(
                    domain=one.ref.domain, id=one.ref.id, is_met=one.is_met, if_unmet=one.if_unmet
                )
                for one in details.prerequisites
            ],
            dependents=[ReferenceDocument(domain=one.domain, id=one.id) for one in details.dependents],
        )  # fmt: skip


class NewJob(Incoming):
    """A row to be added."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"fields": {"customer_id": 7}, "on_duplicate": "return"}]}
    )

    fields: dict[str, Any] = Field(default_factory=dict, description="The domain's columns.")
    on_duplicate: Literal["return", "restart", "error"] = "return"
    after: list[ReferenceDocument] = Field(default_factory=list, max_length=100)
    if_unmet: Literal["cancel", "wait", "proceed"] = "cancel"
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None


class StateDocument(BaseModel):
    """What a write came to."""

    domain: str
    id: int
    status: Status
    outcome: str


class Cancellation(Incoming):
    """Why a row is cancelled."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the customer is gone"}]})

    reason: Annotated[str, Field(min_length=1, max_length=500)] = "cancelled by an operator"


class EntryDocument(BaseModel):
    """A line of the audit."""

    id: int
    happened_at: datetime
    who: str
    what: str
    domain: str | None
    tracking_id: int | None
    filter: dict[str, Any] | None
    count: int | None
    details: dict[str, Any]
