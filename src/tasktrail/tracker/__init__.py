"""The operations on tracking rows, over a sync ``Session`` or ``Connection``; none of them commits.

Async callers reach the same functions through ``AsyncSession.run_sync``. Each write is one guarded statement
of ``tasktrail.statements``. When it matches nothing, a read finds out why and a typed error says so.
"""

from tasktrail.tracker.attempt import (
    claim,
    claimed_within,
    complete,
    completion,
    fail,
    fence,
    heartbeat,
    progress,
    record,
    release,
    renew,
)
from tasktrail.tracker.creating import create, create_many, mark_dispatched
from tasktrail.tracker.operating import cancel, move, revive
from tasktrail.tracker.reading import (
    active,
    by_status,
    find,
    get,
    natural_key_of,
    was_completed_by,
    was_failed_by,
)
from tasktrail.tracker.values import (
    IMMEDIATELY,
    Added,
    AddedRow,
    Claim,
    Database,
    Fence,
    OnDuplicate,
    Outcome,
)

__all__ = [
    "IMMEDIATELY",
    "Added",
    "AddedRow",
    "Claim",
    "Database",
    "Fence",
    "OnDuplicate",
    "Outcome",
    "active",
    "by_status",
    "cancel",
    "claim",
    "claimed_within",
    "complete",
    "completion",
    "create",
    "create_many",
    "fail",
    "fence",
    "find",
    "get",
    "heartbeat",
    "mark_dispatched",
    "move",
    "natural_key_of",
    "progress",
    "record",
    "release",
    "renew",
    "revive",
    "was_completed_by",
    "was_failed_by",
]
