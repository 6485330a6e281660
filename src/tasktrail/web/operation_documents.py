"""The JSON documents of operations on many rows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tasktrail.access.operations import Action, OperationState
from tasktrail.web.bulk import LARGEST_RATE
from tasktrail.web.documents import Incoming

LARGEST_COUNT = 2**53
"""What JSON carries exactly."""


class NewOperation(Incoming):
    """An operation to be begun."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "retry", "rate": 10, "at_most": 1234}]}
    )

    action: Annotated[Action, Field(strict=False)]
    reason: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    rate: int = Field(0, ge=0, le=LARGEST_RATE, description="Rows a second; 0 for as many as go.")
    at_most: int | None = Field(
        None, ge=0, le=LARGEST_COUNT, description="Refuse when more rows are meant, e.g. than were counted."
    )


class OperationDocument(BaseModel):
    """An operation on many rows."""

    id: int
    domain: str
    action: Action
    filter: dict[str, list[str]]
    reason: str | None
    rate: int
    who: str
    state: OperationState
    expected: int
    done: int
    created_at: datetime
    finished_at: datetime | None
    error: str | None
