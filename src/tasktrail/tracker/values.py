"""What the operations take and return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from tasktrail.direct import Direct
from tasktrail.models import BaseTaskTracking
from tasktrail.states import Status

Database: TypeAlias = Session | Connection | Direct
OnDuplicate: TypeAlias = Literal["return", "restart", "error"]
Outcome: TypeAlias = Literal["error", "lost", "timeout"]
ModelT = TypeVar("ModelT", bound=BaseTaskTracking)

IMMEDIATELY: Final = datetime.min.replace(tzinfo=UTC)
"""A due time that is always past."""


class Added(StrEnum):
    """What adding a row came to."""

    CREATED = "created"
    EXISTING = "existing"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class AddedRow:
    """The row that now tracks a unit of work.

    Attributes:
        id: its id.
        celery_task_id: id of the Celery message that will carry it.
        outcome: whether it is new, was there already, or was restarted.
        status: its state.
    """

    id: int
    celery_task_id: str | None
    outcome: Added
    status: Status


@dataclass(frozen=True, slots=True)
class Fence:
    """What an attempt must still find in its row for its writes to count.

    Attributes:
        tracking_id: the row.
        attempts: failed attempts at the time of the claim.
        celery_task_id: the Celery task that claimed it.
        started_at: the server's stamp of the claim.
    """

    tracking_id: int
    attempts: int
    celery_task_id: str | None
    started_at: datetime

    def parameters(self) -> dict[str, Any]:
        """Return the values the guard compares with."""
        return {
            "_row_id": self.tracking_id,
            "_fence_attempts": self.attempts,
            "_fence_celery_task_id": self.celery_task_id,
            "_fence_started_at": self.started_at,
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """A row taken by one worker for one attempt.

    Attributes:
        fence: proves ownership in every later write.
        max_attempts: how many attempts may fail before the row ends.
        created_at: when the row was made.
        inputs: the domain columns.
    """

    fence: Fence
    max_attempts: int
    created_at: datetime
    inputs: Mapping[str, Any]
