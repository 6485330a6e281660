"""The public face of the read model; web, command line and metrics read through it, so they agree.

Each function reads on a sync session or connection; async callers reach them through ``run_sync``. Begin the
transaction with ``reading`` or ``bounded``, and all figures are of the same moment.
"""

from __future__ import annotations

from tasktrail.monitoring.counts import StateCounts, counts
from tasktrail.monitoring.failures import (
    FailureGroup,
    FailureGroups,
    failures,
    fingerprint,
    group_of,
    in_group,
)
from tasktrail.monitoring.history import Bar, History, Percentiles, Retries, history
from tasktrail.monitoring.late import LateRows, OldestPending, oldest_pending, overdue, stuck
from tasktrail.monitoring.listing import Page, page
from tasktrail.monitoring.overviews import Overview, overview
from tasktrail.monitoring.reading import CappedCount, bounded, count_at_most, reading
from tasktrail.monitoring.rows import Attempt, Details, Row, details
from tasktrail.monitoring.windows import Period, Source, Window, server_time
from tasktrail.monitoring.workers import WorkerActivity, workers

__all__ = [
    "Attempt",
    "Bar",
    "CappedCount",
    "Details",
    "FailureGroup",
    "FailureGroups",
    "History",
    "LateRows",
    "OldestPending",
    "Overview",
    "Page",
    "Percentiles",
    "Period",
    "Retries",
    "Row",
    "Source",
    "StateCounts",
    "Window",
    "WorkerActivity",
    "bounded",
    "count_at_most",
    "counts",
    "details",
    "failures",
    "fingerprint",
    "group_of",
    "history",
    "in_group",
    "oldest_pending",
    "overdue",
    "overview",
    "page",
    "reading",
    "server_time",
    "stuck",
    "workers",
]
