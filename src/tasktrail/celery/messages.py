"""The Celery message of a row: a hint, which carries only the row's id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Task

from tasktrail.models import BaseTaskTracking


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent for one row.

    Attributes:
        model: the row's model.
        task: the Celery task that runs it.
        tracking_id: the row.
        celery_task_id: the id the message goes out under.
        countdown: seconds until a worker may start it.
        retries: how many times Celery has retried it.
    """

    model: type[BaseTaskTracking]
    task: Task[Any, Any]
    tracking_id: int
    celery_task_id: str | None
    countdown: float = 0.0
    retries: int = 0

    def options(self) -> dict[str, Any]:
        """Return Celery's options for the message."""
        options: dict[str, Any] = {
            "task_id": self.celery_task_id,
            "retries": self.retries,
            "argsrepr": f"({self.tracking_id},)",  # what Celery would make of it, at a tenth of the price
            "kwargsrepr": "{}",
        }
        return {**options, "countdown": self.countdown} if self.countdown > 0 else options
