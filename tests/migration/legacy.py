"""A small legacy system for the tests of the migration: two tables, their plan, and its twins."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine

from tasktrail.migration.expressions import day_of, json_of, mapped, utc, word
from tasktrail.migration.plan import Mapped, MigrationPlan, Refusal, Refused, Reverse, Route, TableMigration
from tests.support import SCHEMA

DDL = """
CREATE TABLE old_orders (
    id serial PRIMARY KEY, kind varchar, state varchar, day text, currency varchar, tags text,
    details json, note varchar, made timestamp, touched timestamp
);
CREATE TABLE old_jobs (id bigserial PRIMARY KEY, payload text, state varchar, made timestamp NOT NULL);
"""

STATES = {
    "new": "PENDING",
    "busy": "PROCESSING",
    "ok": "COMPLETED",
    "broken": "FAILED",
    "dropped": "CANCELLED",
}
OLD_STATE = mapped("t.status", {new: old for old, new in STATES.items()})
ENDED = "new_status IN ('COMPLETED', 'FAILED', 'CANCELLED')"


def _moment(value: Any) -> datetime | None:
    return None if value is None else value.replace(tzinfo=UTC)


def order_twin(row: Mapping[str, Any]) -> Mapped | Refused:  # noqa: PLR0911  # one for each reason
    status = STATES.get((row["state"] or "").strip().lower())
    if status is None:
        return Refused("quarantined", "unknown_state")
    try:
        details = None if row["details"] is None else json.loads(row["details"])
    except ValueError:
        return Refused("quarantined", "bad_details")
    if "\\u0000" in (row["details"] or ""):
        return Refused("quarantined", "bad_details")
    made = _moment(row["made"]) or _moment(row["touched"])
    if made is None:
        return Refused("quarantined", "no_time")
    day, inferred = made.date(), {"day"}
    if row["day"] is not None:
        try:
            day = date.fromisoformat(row["day"]) if re.fullmatch(r"\d{4}-\d\d-\d\d", row["day"]) else None
        except ValueError:
            day = None
        if day is None:
            return Refused("quarantined", "bad_day")
        inferred = set()
    if not re.fullmatch("[A-Z]{3}", row["currency"] or ""):
        return Refused("quarantined", "bad_currency")
    touched = _moment(row["touched"]) or made
    if row["made"] is None:
        inferred.add("created_at")
    is_ended = status in {"COMPLETED", "FAILED", "CANCELLED"}
    return Mapped(
        {
            "day": day,
            "currency": row["currency"],
            "tags": None if row["tags"] is None else row["tags"].split(","),
            "details": details,
            "status": status,
            "error_message": row["note"],
            "attempts": int(status == "FAILED"),
            "created_at": made,
            "updated_at": touched,
            "completed_at": touched if is_ended else None,
            "started_at": touched if status == "PROCESSING" else None,
        },
        frozenset(inferred),
    )


ORDERS = Route(
    name="orders",
    condition="s.kind = 'order'",
    selects=lambda row: row["kind"] == "order",
    target=f"{SCHEMA}.order_tracking",
    domain="order",
    key=("day", "currency"),
    steps=(
        {
            "new_status": mapped(word("s.state"), STATES),
            "parsed": json_of("s.details", SCHEMA),
            "named_day": day_of("s.day"),
            "first": utc("coalesce(s.made, s.touched)"),
            "last": utc("coalesce(s.touched, s.made)"),
        },
    ),
    refusals=(
        Refusal("unknown_state", "new_status IS NULL"),
        Refusal("bad_details", "s.details IS NOT NULL AND parsed IS NULL"),
        Refusal("no_time", "first IS NULL"),
        Refusal("bad_day", "s.day IS NOT NULL AND named_day IS NULL"),
        Refusal("bad_currency", "coalesce(s.currency, '') !~ '^[A-Z]{3}$'"),
    ),
    columns={
        "day": "coalesce(named_day, first::date)",
        "currency": "s.currency",
        "tags": "string_to_array(s.tags, ',')::varchar[]",
        "details": "parsed",
        "status": "new_status",
        "error_message": "s.note",
        "attempts": "CASE WHEN new_status = 'FAILED' THEN 1 ELSE 0 END",
        "created_at": "first",
        "updated_at": "last",
        "completed_at": f"CASE WHEN {ENDED} THEN last END",
        "started_at": "CASE WHEN new_status = 'PROCESSING' THEN last END",
    },
    inferred={"day": "s.day IS NULL", "created_at": "s.made IS NULL"},
    statuses=STATES,
    twin=order_twin,
    reverse=Reverse(
        columns={
            "kind": "'order'",
            "state": OLD_STATE,
            "day": "t.day::text",
            "currency": "t.currency",
            "tags": "array_to_string(t.tags, ',')",
            "details": "t.details",
            "note": "t.error_message",
            "made": "t.created_at AT TIME ZONE 'UTC'",
            "touched": "t.updated_at AT TIME ZONE 'UTC'",
        },
        changed=("state", "note", "touched"),
    ),
)


def others_twin(row: Mapping[str, Any]) -> Refused:
    return (
        Refused("archived", "not_a_job") if row["kind"] == "ping" else Refused("quarantined", "unknown_type")
    )


def job_twin(row: Mapping[str, Any]) -> Mapped | Refused:
    status = STATES.get((row["state"] or "").strip().lower())
    if status is None:
        return Refused("quarantined", "unknown_state")
    made = _moment(row["made"])
    values = {"id": row["id"], "payload": row["payload"], "status": status}
    return Mapped({**values, "created_at": made, "updated_at": made})


TEXT = ("text", "character varying")
TIMESTAMP = ("timestamp without time zone",)

ORDER_TABLE = TableMigration(
    name="old_orders",
    source="public.old_orders",
    key=("id",),
    source_columns={
        "id": ("integer",),
        **dict.fromkeys(("kind", "state", "day", "currency", "tags", "note"), TEXT),
        "details": ("json", "jsonb"),
        "made": TIMESTAMP,
        "touched": TIMESTAMP,
    },
    kind="s.kind",
    archived={"ping": "not_a_job"},
    otherwise=others_twin,
    routes=(ORDERS,),
    chunk_size=100,
)
JOB_TABLE = TableMigration(
    name="old_jobs",
    source="public.old_jobs",
    key=("id",),
    source_columns={"id": ("bigint",), "payload": TEXT, "state": TEXT, "made": TIMESTAMP},
    routes=(
        Route(
            name="jobs",
            target=f"{SCHEMA}.job_tracking",
            domain="job",
            key=("id",),
            steps=({"new_status": mapped(word("s.state"), STATES)},),
            refusals=(Refusal("unknown_state", "new_status IS NULL"),),
            columns={
                "id": "s.id",
                "payload": "s.payload",
                "status": "new_status",
                "created_at": utc("s.made"),
                "updated_at": utc("s.made"),
            },
            statuses=STATES,
            twin=job_twin,
            reverse=Reverse(
                columns={
                    "id": "t.id",
                    "payload": "t.payload",
                    "state": OLD_STATE,
                    "made": "t.created_at AT TIME ZONE 'UTC'",
                },
                changed=("state",),
            ),
        ),
    ),
    chunk_size=100,
)
PLAN = MigrationPlan(name="shop", tables=(ORDER_TABLE, JOB_TABLE))

ROWS = """
INSERT INTO old_orders (kind, state, day, currency, tags, details, note, made, touched) VALUES
    ('order', 'ok', '2024-03-01', 'EUR', 'a,b', '{"n": 1}', NULL, '2024-03-01 10:00', '2024-03-01 10:05'),
    ('order', ' Broken', '2024-03-01', 'EUR', NULL, NULL, 'boom', '2024-03-01 09:00', '2024-03-01 09:05'),
    ('order', 'dropped', '2024-03-01', 'EUR', NULL, NULL, NULL, '2024-03-01 08:00', '2024-03-01 10:05'),
    ('order', 'new', NULL, 'USD', NULL, '[1, 2]', NULL, '2024-03-02 10:00', NULL),
    ('order', 'BUSY', '2024-03-03', 'USD', 'x', NULL, NULL, NULL, '2024-03-03 10:00:00.25'),
    ('order', 'odd', '2024-03-04', 'USD', NULL, NULL, NULL, '2024-03-04 10:00', NULL),
    ('order', 'ok', '2024-02-30', 'USD', NULL, NULL, NULL, '2024-03-04 10:00', NULL),
    ('order', 'ok', '01/02/2024', 'USD', NULL, NULL, NULL, '2024-03-04 10:00', NULL),
    ('order', 'ok', '2024-03-05', 'eur', NULL, NULL, NULL, '2024-03-04 10:00', NULL),
    ('order', 'ok', '2024-03-06', 'GBP', NULL, '{"a": "\\u0000"}', NULL, '2024-03-04 10:00', NULL),
    ('order', 'ok', '2024-03-07', 'GBP', NULL, NULL, NULL, NULL, NULL),
    ('ping', 'ok', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('letter', 'ok', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (NULL, 'ok', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO old_jobs (payload, state, made)
    SELECT 'job ' || n, (ARRAY['ok', 'new', 'broken', 'odd'])[1 + n % 4],
        timestamp '2024-01-01' + n * interval '1 hour'
    FROM generate_series(1, 12) n;
"""


def create_legacy(engine: Engine, rows: str = ROWS) -> None:
    """Make the legacy tables and fill them."""
    run_sql(engine, DDL)
    run_sql(engine, rows)


def run_sql(engine: Engine, sql: str) -> None:
    """Run statements and commit."""
    with engine.begin() as db:
        db.connection.driver_connection.execute(sql)  # type: ignore[union-attr]
