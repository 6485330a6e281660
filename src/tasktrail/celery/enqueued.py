"""What an ``enqueue`` or a retry of many rows came to."""

from __future__ import annotations

from dataclasses import dataclass

from tasktrail.states import Status
from tasktrail.tracker import Added, AddedRow


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The row that an ``enqueue`` came to.

    Attributes:
        domain: its domain.
        id: its id.
        outcome: whether it was created, was there already, or was restarted.
        status: its state at that moment.
        celery_task_id: the id its message goes out under.
    """

    domain: str
    id: int
    outcome: Added
    status: Status
    celery_task_id: str | None


@dataclass(frozen=True, slots=True)
class EnqueuedMany:
    """What an ``enqueue_many`` came to.

    Attributes:
        created: how many rows are new.
        existing: how many had a natural key that was taken.
        dispatched: how many messages went out; the rest is sent by maintenance.
    """

    created: int
    existing: int
    dispatched: int


@dataclass(frozen=True, slots=True)
class Revived:
    """A batch of rows that were started again.

    Attributes:
        ids: all of them.
        due: those of them that wait for no other row, so that their messages can go out.
    """

    ids: tuple[int, ...]
    due: tuple[AddedRow, ...]
