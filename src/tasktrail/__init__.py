"""A durable, typed row in PostgreSQL for every Celery job.

The public names; anything not listed in ``__all__`` may change without notice.
"""

from tasktrail.celery import Enqueued, EnqueuedMany, Run, TrackedTask, Trail
from tasktrail.errors import (
    BrokerUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    DuplicateTracking,
    EmbeddedError,
    FencedOut,
    GiveUp,
    InvalidField,
    NotDue,
    RetryIn,
    SchemaOutdated,
    TasktrailError,
    TrackingError,
    TrackingNotFound,
    Unavailable,
    UnknownDomain,
    WrongState,
)
from tasktrail.models import AttemptEntry, BaseTaskTracking, NaturalKey, Progress, TrackingOptions
from tasktrail.retry import RetryPolicy
from tasktrail.service import (
    BaseTaskTrackingService,
    handle_task_error,
    retry_with_backoff,
    update_task_status,
)
from tasktrail.settings import Settings
from tasktrail.states import TRANSITIONS, Status

__all__ = [
    "TRANSITIONS",
    "AttemptEntry",
    "BaseTaskTracking",
    "BaseTaskTrackingService",
    "BrokerUnavailable",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DuplicateTracking",
    "EmbeddedError",
    "Enqueued",
    "EnqueuedMany",
    "FencedOut",
    "GiveUp",
    "InvalidField",
    "NaturalKey",
    "NotDue",
    "Progress",
    "RetryIn",
    "RetryPolicy",
    "Run",
    "SchemaOutdated",
    "Settings",
    "Status",
    "TasktrailError",
    "TrackedTask",
    "TrackingError",
    "TrackingNotFound",
    "TrackingOptions",
    "Trail",
    "Unavailable",
    "UnknownDomain",
    "WrongState",
    "handle_task_error",
    "retry_with_backoff",
    "update_task_status",
]
