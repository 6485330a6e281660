"""The Celery integration: tracked tasks, transactional enqueue, and what runs in a worker."""

from tasktrail.celery.enqueued import Enqueued, EnqueuedMany, Revived
from tasktrail.celery.run import Run
from tasktrail.celery.task import TrackedTask
from tasktrail.celery.trail import Trail

__all__ = ["Enqueued", "EnqueuedMany", "Revived", "Run", "TrackedTask", "Trail"]
