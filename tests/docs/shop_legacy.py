"""The legacy table of the shop in the documentation, and the plan of its migration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from tasktrail.migration.expressions import mapped, utc, word
from tasktrail.migration.plan import Mapped, MigrationPlan, Refusal, Refused, Reverse, Route, TableMigration

STATUSES = {"open": "PENDING", "done": "COMPLETED", "failed": "FAILED"}
OLD_STATES = {
    "PENDING": "open",
    "PROCESSING": "open",
    "COMPLETED": "done",
    "FAILED": "failed",
    "CANCELLED": "failed",
}


def old_report_twin(row: Mapping[str, Any]) -> Mapped | Refused:
    """What an old report becomes, in plain Python."""
    status = STATUSES.get((row["state"] or "").strip(" ").lower())
    if status is None:
        return Refused("quarantined", "unknown_state")
    moment = row["written_at"].replace(tzinfo=UTC)
    values = {"customer_id": row["customer"], "status": status, "created_at": moment, "updated_at": moment}
    return Mapped({**values, "completed_at": None if status == "PENDING" else moment})


PLAN = MigrationPlan(
    name="shop",
    tables=(
        TableMigration(
            name="old_reports",
            source="old_reports",
            key=("id",),
            source_columns={
                "id": ("integer",),
                "customer": ("integer",),
                "state": ("text",),
                "written_at": ("timestamp without time zone",),
            },
            routes=(
                Route(
                    name="reports",
                    target="report_tracking",
                    domain="report",
                    key=("customer_id",),
                    steps=({"new_status": mapped(word("s.state"), STATUSES)},),
                    refusals=(Refusal("unknown_state", "new_status IS NULL"),),
                    columns={
                        "customer_id": "s.customer",
                        "status": "new_status",
                        "created_at": utc("s.written_at"),
                        "updated_at": utc("s.written_at"),
                        "completed_at": f"CASE WHEN new_status <> 'PENDING' THEN {utc('s.written_at')} END",
                    },
                    statuses=STATUSES,
                    twin=old_report_twin,
                    reverse=Reverse(
                        columns={
                            "customer": "t.customer_id",
                            "state": mapped("t.status", OLD_STATES),
                            "written_at": "t.updated_at AT TIME ZONE 'UTC'",
                        },
                        changed=("state", "written_at"),
                    ),
                ),
            ),
        ),
    ),
)
