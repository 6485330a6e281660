"""The table of the exchange-rate updates, as PostgreSQL has it after the migrations."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from apps.portfolio.tests.catalog import catalog, part
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

TRACKING = "tracking.exchange_rate_update_tracking"


def test_the_tracking_table_has_the_columns_of_the_plan(engine: Engine) -> None:
    columns = part(catalog(engine), TRACKING, "column")

    group = columns.pop("failure_group")
    assert group.startswith("uuid GENERATED"), group
    assert columns == {
        "id": "bigint NOT NULL IDENTITY",
        "update_date": "date NOT NULL",
        "base_currency": "character varying(3) NOT NULL",
        "target_currencies": "character varying(3)[] NOT NULL",
        "success_count": "integer NOT NULL DEFAULT 0",
        "total_count": "integer NOT NULL DEFAULT 0",
        "source": "character varying(50) NOT NULL",
        "status": "character varying(20) NOT NULL DEFAULT 'PENDING'::character varying",
        "created_at": "timestamp with time zone NOT NULL DEFAULT now()",
        "updated_at": "timestamp with time zone NOT NULL DEFAULT now()",
        "started_at": "timestamp with time zone",
        "completed_at": "timestamp with time zone",
        "error_message": "text",
        "attempts": "integer NOT NULL DEFAULT 0",
        "max_attempts": "integer NOT NULL DEFAULT 3",
        "celery_task_id": "character varying(255)",
        "next_attempt_at": "timestamp with time zone DEFAULT now()",
        "heartbeat_at": "timestamp with time zone",
        "worker": "character varying(255)",
        "dispatched_at": "timestamp with time zone",
        "attempt_log": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    }


def test_the_tracking_table_has_the_constraints_and_indexes_of_the_plan_under_their_names(
    engine: Engine,
) -> None:
    found = catalog(engine)
    constraints = part(found, TRACKING, "constraint")
    indexes = {
        name: text.partition(f" ON {TRACKING} ")[2] for name, text in part(found, TRACKING, "index").items()
    }

    assert constraints.pop("uq_exchange_rate_update") == "UNIQUE (update_date, base_currency)"
    assert constraints.pop("exchange_rate_update_tracking_pkey") == "PRIMARY KEY (id)"
    assert {name for name in constraints if not name.endswith("_not_null")} == {
        "ck_exchange_rate_status",
        "ck_exchange_rate_attempts",
    }
    assert indexes == {
        "exchange_rate_update_tracking_pkey": "USING btree (id)",
        "uq_exchange_rate_update": "USING btree (update_date, base_currency)",
        "idx_exchange_rate_status": "USING btree (status)",
        "idx_exchange_rate_dates": "USING btree (created_at, completed_at)",
        "idx_exchange_rate_due": ("USING btree (next_attempt_at) WHERE ((status)::text = 'PENDING'::text)"),
        "idx_exchange_rate_leased": (
            "USING btree (heartbeat_at) WHERE ((status)::text = 'PROCESSING'::text)"
        ),
        "idx_exchange_rate_ended": "USING btree (completed_at) WHERE (completed_at IS NOT NULL)",
        "idx_exchange_rate_failed": (
            "USING btree (completed_at, failure_group, id) WHERE ((status)::text = 'FAILED'::text)"
        ),
        "idx_exchange_rate_failure_group": (
            "USING btree (failure_group, id) WHERE ((status)::text = 'FAILED'::text)"
        ),
        "idx_exchange_rate_stopped": (
            "USING btree (status, id) WHERE ((status)::text = ANY ((ARRAY['FAILED'::character varying, "
            "'CANCELLED'::character varying])::text[]))"
        ),
    }


GOOD = {
    "update_date": "'2026-10-30'",
    "base_currency": "'EUR'",
    "target_currencies": "'{USD,CHF}'",
    "source": "'by hand'",
}


def insert(engine: Engine, values: dict[str, str]) -> Any:
    with engine.begin() as db:
        return db.exec_driver_sql(
            f"INSERT INTO {TRACKING} ({', '.join(values)}) VALUES ({', '.join(values.values())}) RETURNING *"
        ).one()


def test_a_row_inserted_by_plain_sql_gets_its_defaults_from_the_database(engine: Engine) -> None:
    row = insert(engine, GOOD)

    assert (row.id, row.status, row.attempts, row.max_attempts) == (1, "PENDING", 0, 3)
    assert (row.success_count, row.total_count, row.attempt_log) == (0, 0, [])
    assert (row.update_date, row.target_currencies) == (date(2026, 10, 30), ["USD", "CHF"])
    assert row.created_at == row.updated_at == row.next_attempt_at
    assert abs(datetime.now(UTC) - row.created_at) < timedelta(minutes=1)
    assert (row.started_at, row.completed_at, row.error_message, row.celery_task_id) == (None,) * 4


@pytest.mark.parametrize("column", GOOD)
def test_a_row_without_one_of_its_inputs_is_refused(engine: Engine, column: str) -> None:
    with pytest.raises(IntegrityError, match=f'null value in column "{column}"'):
        insert(engine, {**GOOD, column: "NULL"})


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"status": "'WAITING'"}, IntegrityError, "ck_exchange_rate_status"),
        ({"attempts": "-1"}, IntegrityError, "ck_exchange_rate_attempts"),
        ({"max_attempts": "0"}, IntegrityError, "ck_exchange_rate_attempts"),
        ({"success_count": "NULL"}, IntegrityError, "null value"),
        ({"base_currency": "'EURO'"}, DataError, r"too long for type character varying\(3\)"),
        ({"target_currencies": "'{USD,EURO}'"}, DataError, r"too long for type character varying\(3\)"),
        ({"source": f"'{'x' * 51}'"}, DataError, r"too long for type character varying\(50\)"),
    ],
)
def test_the_database_itself_refuses_bad_values(
    engine: Engine, values: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        insert(engine, {**GOOD, **values})


def test_the_database_itself_refuses_a_second_row_for_a_day_and_base_currency(engine: Engine) -> None:
    insert(engine, GOOD)

    with pytest.raises(IntegrityError, match="uq_exchange_rate_update"):
        insert(engine, {**GOOD, "source": "'another'"})
