"""A durable, typed row in PostgreSQL for every Celery job.

The public names; anything not listed in ``__all__`` may change without notice.
"""

from tasktrail.celery import Enqueued, EnqueuedMany, Run, TrackedTask, Trail
from tasktrail.errors import (
    AttemptLost,
    BrokerUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    DuplicateTracking,
    EmbeddedError,
    FencedOut,
    GiveUp,
    InvalidField,
    LeaseExpired,
    NotDue,
    RetryIn,
    SchemaOutdated,
    TasktrailError,
    TimeLimit,
    TrackingError,
    TrackingNotFound,
    Unavailable,
    UnknownDomain,
    WaitFor,
    WorkerLost,
    WrongState,
)
from tasktrail.filters import Filter
from tasktrail.models import AttemptEntry, BaseTaskTracking, NaturalKey, Progress, TrackingOptions
from tasktrail.prerequisites import Prerequisite, TrackingRef
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
    "AttemptLost",
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
    "Filter",
    "GiveUp",
    "InvalidField",
    "LeaseExpired",
    "NaturalKey",
    "NotDue",
    "Prerequisite",
    "Progress",
    "RetryIn",
    "RetryPolicy",
    "Run",
    "SchemaOutdated",
    "Settings",
    "Status",
    "TasktrailError",
    "TimeLimit",
    "TrackedTask",
    "TrackingError",
    "TrackingNotFound",
    "TrackingOptions",
    "TrackingRef",
    "Trail",
    "Unavailable",
    "UnknownDomain",
    "WaitFor",
    "WorkerLost",
    "WrongState",
    "handle_task_error",
    "retry_with_backoff",
    "update_task_status",
]
