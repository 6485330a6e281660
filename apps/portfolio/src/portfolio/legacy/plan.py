"""The migration plan of the three legacy tables: ``docs/reference/legacy-mapping.md``, in SQL.

The same rules stand a second time in ``portfolio.legacy.twins``, written from that page and not from here.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from portfolio.legacy.twins import (
    ETF_EXISTS,
    daily_update_twin,
    etf_creation_twin,
    etf_update_twin,
    exchange_rate_twin,
    is_creation,
    is_exchange_rates,
    task_status_twin,
)
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.difference import Difference
from tasktrail.migration.expressions import json_of, mapped, trimmed, utc, word
from tasktrail.migration.plan import (
    KnownDifference,
    MigrationPlan,
    Refusal,
    Reverse,
    Route,
    TableMigration,
)

STATUSES: Final = {
    "pending": "PENDING",
    "retrying": "PENDING",
    "processing": "PROCESSING",
    "running": "PROCESSING",
    "started": "PROCESSING",
    "completed": "COMPLETED",
    "success": "COMPLETED",
    "done": "COMPLETED",
    "completed_with_errors": "COMPLETED",
    "failed": "FAILED",
    "error": "FAILED",
    "cancelled": "CANCELLED",
    "canceled": "CANCELLED",
    "revoked": "CANCELLED",
}

FALLBACK_CURRENCIES: Final = "ARRAY['USD','GBP','CHF','JPY','SEK','NOK','DKK','CAD','AUD','PLN']::varchar[]"

ENDED: Final = "new_status IN ('COMPLETED', 'FAILED', 'CANCELLED')"

TEXT: Final = ("character varying", "text")
TIMESTAMP: Final = ("timestamp without time zone",)
INTEGER: Final = ("integer", "bigint")

SAME_DAY: Final = timedelta(days=1)
"""How far apart both systems may end the same work: each has a schedule of its own, once a day."""


def _time_out_of_range(column: str) -> str:
    return f"s.{column} < '1990-01-01' OR s.{column} >= '2100-01-01'"


def _day_out_of_range(column: str) -> str:
    return f"s.{column} NOT BETWEEN '1990-01-01' AND '2099-12-31'"


STATUS_STEP: Final = {"old_word": word("s.status")}
NEW_STATUS_STEP: Final = {"new_status": mapped("old_word", STATUSES)}

TASK_METADATA_STEPS: Final = (
    {"json_text": "s.task_metadata::text"},
    {"brackets": "length(json_text) - length(translate(json_text, '[{', ''))"},
    {"metadata": f"CASE WHEN brackets <= 500 THEN {json_of('s.task_metadata', TRACKING_SCHEMA)} END"},
    {"shape": "coalesce(jsonb_typeof(metadata), 'null')"},
)
"""JSON is only parsed when its brackets cannot nest too deep; NULL and JSON null are both absent."""

TASK_REFUSALS: Final = (
    Refusal("unknown_status", "new_status IS NULL"),
    Refusal("created_at_out_of_range", _time_out_of_range("created_at")),
    Refusal("updated_at_out_of_range", _time_out_of_range("updated_at")),
    Refusal("metadata_too_complex", "brackets > 500"),
    Refusal("metadata_not_json", "s.task_metadata IS NOT NULL AND metadata IS NULL"),
)

TASK_ATTEMPTS: Final = "CASE WHEN new_status = 'FAILED' OR old_word = 'retrying' THEN 1 ELSE 0 END"


def _standard(attempts: str) -> dict[str, str]:
    return {
        "status": "new_status",
        "error_message": f"CASE WHEN {trimmed('s.error')} <> '' THEN s.error END",
        "attempts": attempts,
        "max_attempts": f"greatest(3, ({attempts}) + CASE WHEN {ENDED} THEN 0 ELSE 1 END)",
    }


def _task_times(created: str) -> dict[str, str]:
    updated = f"coalesce({utc('s.updated_at')}, {created})"
    return {
        "created_at": created,
        "updated_at": updated,
        "completed_at": f"CASE WHEN {ENDED} THEN {updated} END",
        "started_at": f"CASE WHEN new_status = 'PROCESSING' THEN {updated} END",
    }


OLD_STATUS: Final = (
    "CASE t.status WHEN 'PENDING' THEN CASE WHEN t.attempts > 0 THEN 'retrying' ELSE 'pending' END "
    "WHEN 'PROCESSING' THEN 'processing' WHEN 'FAILED' THEN 'failed' WHEN 'CANCELLED' THEN 'cancelled' "
    "ELSE CASE WHEN t.error_message IS NULL THEN 'completed' ELSE 'completed_with_errors' END END"
)
"""The word that old code knows for a state."""


def _naive(column: str) -> str:
    return f"t.{column} AT TIME ZONE 'UTC'"


TASK_BACK: Final = {
    "status": OLD_STATUS,
    "error": "t.error_message",
    "created_at": _naive("created_at"),
    "updated_at": _naive("updated_at"),
}
TASK_CHANGED: Final = ("status", "error", "updated_at")

TASK_TIMES_INFERRED: Final = {
    "created_at": "s.created_at IS NULL",
    "updated_at": "s.updated_at IS NULL",
    "completed_at": f"{ENDED} AND s.updated_at IS NULL",
    "started_at": "new_status = 'PROCESSING'",
}

RATES_CREATED: Final = (
    f"coalesce({utc('s.created_at')}, {utc('s.updated_at')}, {utc('named_day::timestamp')})"
)

PLAIN_CODES: Final = r"""listed::text ~ '^\["[A-Z]{3}"(, "[A-Z]{3}")*\]$'"""
"""Nearly all lists of currencies are like this, and need no sub-select to be taken apart or judged.

Whether a code is in it twice shows by the lexemes, each of which a ``tsvector`` has once.
"""

EXCHANGE_RATES: Final = Route(
    name="exchange_rates",
    condition=f"{word('s.task_type')} = 'exchange_rate_update'",
    selects=is_exchange_rates,
    target=f"{TRACKING_SCHEMA}.exchange_rate_update_tracking",
    domain="exchange_rate",
    key=("update_date", "base_currency"),
    steps=(
        STATUS_STEP,
        NEW_STATUS_STEP,
        *TASK_METADATA_STEPS,
        {
            name: f"CASE WHEN shape = 'object' THEN nullif(metadata -> '{key}', 'null') END"
            for name, key in (("base", "base_currency"), ("day", "date"), ("listed", "currencies"))
        },
        {
            "base_text": "CASE WHEN jsonb_typeof(base) = 'string' THEN "
            f'upper({trimmed("(base #>> array[]::text[])")} COLLATE "C") END',
            "day_text": "CASE WHEN jsonb_typeof(day) = 'string' THEN "
            f"{trimmed('(day #>> array[]::text[])')} END",
            "is_plain": PLAIN_CODES,
        },
        {
            "codes": "CASE WHEN is_plain THEN string_to_array(translate(listed::text, '[]\" ', ''), ',') "
            "WHEN jsonb_typeof(listed) = 'array' THEN ARRAY("
            "SELECT CASE WHEN jsonb_typeof(one) = 'string' THEN "
            f"upper({trimmed('(one #>> array[]::text[])')} COLLATE \"C\") ELSE '' END "
            "FROM jsonb_array_elements(listed) WITH ORDINALITY AS e (one, place) ORDER BY place) END",
        },
        {
            "is_iso": "day_text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'",
            "currencies": "CASE WHEN is_plain AND length(array_to_tsvector(codes)) = cardinality(codes) "
            "THEN array_remove(codes, 'EUR') WHEN codes IS NOT NULL THEN ARRAY("
            "SELECT code FROM unnest(codes) WITH ORDINALITY AS c (code, place) WHERE code <> 'EUR' "
            "GROUP BY code ORDER BY min(place)) END",
        },
        {"is_good_year": "CASE WHEN is_iso THEN left(day_text, 4) BETWEEN '1990' AND '2099' END"},
        {
            "named_day": "CASE WHEN is_good_year AND substr(day_text, 6, 2) BETWEEN '01' AND '12' "
            "THEN CASE WHEN substr(day_text, 9, 2) BETWEEN '01' AND to_char((left(day_text, 8) || "
            "'01')::date "
            "+ interval '1 month - 1 day', 'DD') "
            "THEN make_date(left(day_text, 4)::int, substr(day_text, 6, 2)::int, substr(day_text, "
            "9, 2)::int) "
            "END END"
        },
    ),
    refusals=(
        *TASK_REFUSALS,
        Refusal("base_currency_not_eur", "base IS NOT NULL AND base_text IS DISTINCT FROM 'EUR'"),
        Refusal("date_malformed", "day IS NOT NULL AND is_iso IS NOT TRUE"),
        Refusal("date_out_of_range", "day IS NOT NULL AND NOT is_good_year"),
        Refusal("date_malformed", "day IS NOT NULL AND named_day IS NULL"),
        Refusal("created_at_missing", "s.created_at IS NULL AND s.updated_at IS NULL AND named_day IS NULL"),
        Refusal("currencies_not_a_list", "listed IS NOT NULL AND codes IS NULL"),
        Refusal(
            "currency_malformed",
            "is_plain IS NOT TRUE AND EXISTS (SELECT FROM unnest(codes) AS c (code) "
            "WHERE code !~ '^[A-Z]{3}$')",
        ),
        Refusal("currencies_empty", "currencies = '{}'"),
    ),
    columns={
        "update_date": "coalesce(named_day, s.created_at::date, s.updated_at::date)",
        "base_currency": "'EUR'::varchar",
        "target_currencies": f"coalesce(currencies::varchar[], {FALLBACK_CURRENCIES})",
        "total_count": "coalesce(cardinality(currencies), 10)",
        "success_count": "CASE WHEN new_status = 'COMPLETED' AND old_word <> 'completed_with_errors' "
        "THEN coalesce(cardinality(currencies), 10) ELSE 0 END",
        "source": "'legacy'::varchar",
        **_standard(TASK_ATTEMPTS),
        **_task_times(RATES_CREATED),
    },
    inferred={
        "update_date": "named_day IS NULL",
        "target_currencies": "currencies IS NULL",
        "total_count": "currencies IS NULL",
        "success_count": "old_word = 'completed_with_errors' "
        "OR new_status = 'COMPLETED' AND currencies IS NULL",
        **TASK_TIMES_INFERRED,
    },
    statuses=STATUSES,
    twin=exchange_rate_twin,
    reverse=Reverse(
        columns={
            "task_type": "'exchange_rate_update'",
            # Old code finds the task of a day by it.
            "resource_id": "to_char(t.update_date, 'YYYYMMDD')",
            "task_metadata": "jsonb_build_object('date', t.update_date, 'currencies', "
            "to_jsonb(t.target_currencies))",
            **TASK_BACK,
        },
        changed=TASK_CHANGED,
    ),
    # Attempts cannot be compared: the old system wrote a new row for each, so its newest row has 0 or 1. Nor
    # can success_count, which is made up from the status there.
    compared={"status": None, "target_currencies": None, "completed_at": SAME_DAY},
)

CREATION_CREATED: Final = f"coalesce({utc('s.created_at')}, {utc('s.updated_at')})"

ETF_CREATION: Final = Route(
    name="etf_creation",
    condition=f"{word('s.task_type')} IN ('etf_creation', 'etf_pension_processing')",
    selects=is_creation,
    target=f"{TRACKING_SCHEMA}.etf_creation_tracking",
    domain="etf_creation",
    key=("etf_id",),
    steps=(
        STATUS_STEP,
        NEW_STATUS_STEP,
        *TASK_METADATA_STEPS,
        {"named": "CASE WHEN shape = 'object' THEN nullif(metadata -> 'etf_id', 'null') END"},
        {
            "named_etf": "CASE WHEN jsonb_typeof(named) = 'string' THEN "
            f"{trimmed('(named #>> array[]::text[])')} END"
        },
    ),
    refusals=(
        *TASK_REFUSALS,
        Refusal("metadata_not_an_object", "shape NOT IN ('null', 'object')"),
        Refusal(
            "etf_id_malformed",
            "named IS NOT NULL AND (coalesce(named_etf, '') = '' OR named_etf ~ '[\\x01-\\x1f\\x7f]')",
        ),
        Refusal("etf_id_too_long", "char_length(named_etf) > 255"),
        Refusal(
            "resource_id_out_of_range",
            "s.resource_id IS NULL OR s.resource_id::bigint NOT BETWEEN -2147483648 AND 2147483647",
        ),
        Refusal("created_at_missing", "s.created_at IS NULL AND s.updated_at IS NULL"),
    ),
    columns={
        "etf_id": "coalesce(named_etf, s.resource_id::text)",
        "resource_id": "s.resource_id",
        "task_metadata": "CASE WHEN shape = 'object' THEN metadata END",
        **_standard(TASK_ATTEMPTS),
        **_task_times(CREATION_CREATED),
    },
    inferred={"etf_id": "named_etf IS NULL", **TASK_TIMES_INFERRED},
    statuses=STATUSES,
    twin=etf_creation_twin,
    reverse=Reverse(
        columns={
            "task_type": "'etf_creation'",
            # The new side needs none; the ETF is in the metadata.
            "resource_id": "coalesce(t.resource_id, 0)",
            "task_metadata": "coalesce(t.task_metadata, '{}') || jsonb_build_object('etf_id', t.etf_id)",
            **TASK_BACK,
        },
        changed=TASK_CHANGED,
    ),
    # Attempts cannot be compared, as with the rates; metadata are what somebody asked for, not an outcome.
    compared={"status": None, "completed_at": SAME_DAY},
)

TASK_STATUS: Final = TableMigration(
    name="task_status",
    source="public.task_status",
    key=("id",),
    source_columns={
        "id": INTEGER,
        "task_type": TEXT,
        "status": TEXT,
        "resource_id": INTEGER,
        "error": TEXT,
        "task_metadata": ("jsonb", "json", "text"),
        "created_at": TIMESTAMP,
        "updated_at": TIMESTAMP,
    },
    kind=word("s.task_type"),
    archived={
        "portfolio_recalculation": "archived_portfolio_recalculation",
        "cache_warmup": "archived_cache_warmup",
        "csv_import": "archived_csv_import",
    },
    otherwise=task_status_twin,
    routes=(EXCHANGE_RATES, ETF_CREATION),
)

UPDATE_CREATED: Final = (
    f"coalesce({utc('s.created_at')}, {utc('s.completed_at')}, {utc('s.end_date::timestamp')})"
)
UPDATE_ATTEMPTS: Final = "CASE WHEN old_word = 'retrying' AND s.retry_count = 0 THEN 1 ELSE s.retry_count END"

ETF_UPDATES: Final = TableMigration(
    name="etf_updates",
    source="public.etf_updates",
    key=("id",),
    source_columns={
        "id": INTEGER,
        "etf_id": TEXT,
        "update_type": TEXT,
        "start_date": ("date",),
        "end_date": ("date",),
        "status": TEXT,
        "created_at": TIMESTAMP,
        "completed_at": TIMESTAMP,
        "error": TEXT,
        "missing_dates": ("date[]",),
        "retry_count": INTEGER,
        "notes": TEXT,
    },
    kind=word("s.update_type"),
    context={ETF_EXISTS: "EXISTS (SELECT FROM public.etfs e WHERE e.id = s.etf_id)"},
    routes=(
        Route(
            name="etf_updates",
            target=f"{TRACKING_SCHEMA}.etf_updates",
            domain="etf_update",
            key=("id",),
            steps=(
                {**STATUS_STEP, "old_type": word("s.update_type")},
                NEW_STATUS_STEP,
            ),
            refusals=(
                Refusal("unknown_status", "new_status IS NULL"),
                Refusal(
                    "unknown_update_type",
                    "coalesce(old_type, '') NOT IN ('full', 'prices_only', 'info_only', 'manual')",
                ),
                Refusal(
                    "etf_unknown", "s.etf_id IS NULL OR NOT (s.etf_id IN (SELECT e.id FROM public.etfs e))"
                ),
                Refusal("date_missing", "s.start_date IS NULL OR s.end_date IS NULL"),
                Refusal(
                    "date_out_of_range",
                    f"{_day_out_of_range('start_date')} OR {_day_out_of_range('end_date')}",
                ),
                Refusal("dates_reversed", "s.start_date > s.end_date"),
                Refusal("created_at_out_of_range", _time_out_of_range("created_at")),
                Refusal("completed_at_out_of_range", _time_out_of_range("completed_at")),
                Refusal(
                    "retry_count_out_of_range",
                    "s.retry_count IS NULL OR s.retry_count NOT BETWEEN 0 AND 1000",
                ),
                Refusal(
                    "missing_dates_malformed",
                    "array_ndims(s.missing_dates) > 1 OR EXISTS (SELECT FROM "
                    "unnest(s.missing_dates) AS d (day) "
                    "WHERE day IS NULL OR day NOT BETWEEN '1990-01-01' AND '2099-12-31')",
                ),
            ),
            columns={
                "id": "s.id::bigint",
                "etf_id": "s.etf_id",
                "update_type": "old_type::varchar",
                "start_date": "s.start_date",
                "end_date": "s.end_date",
                "missing_dates": "s.missing_dates",
                "notes": "s.notes",
                **_standard(UPDATE_ATTEMPTS),
                "created_at": UPDATE_CREATED,
                "completed_at": f"CASE WHEN {ENDED} THEN "
                f"coalesce({utc('s.completed_at')}, {UPDATE_CREATED}) END",
                "updated_at": f"coalesce({utc('s.completed_at')}, {UPDATE_CREATED})",
                "started_at": f"CASE WHEN new_status = 'PROCESSING' THEN {UPDATE_CREATED} END",
            },
            inferred={
                "attempts": "old_word = 'retrying' AND s.retry_count = 0",
                "created_at": "s.created_at IS NULL",
                "completed_at": f"{ENDED} AND s.completed_at IS NULL",
                "updated_at": "TRUE",
                "started_at": "new_status = 'PROCESSING'",
            },
            statuses=STATUSES,
            twin=etf_update_twin,
            reverse=Reverse(
                columns={
                    "id": "t.id",
                    "etf_id": "t.etf_id",
                    "update_type": "t.update_type",
                    "start_date": "t.start_date",
                    "end_date": "t.end_date",
                    "status": OLD_STATUS,
                    "created_at": _naive("created_at"),
                    "completed_at": _naive("completed_at"),
                    "error": "t.error_message",
                    "missing_dates": "t.missing_dates",
                    "retry_count": "t.attempts",
                    "notes": "t.notes",
                },
                changed=("status", "completed_at", "error", "missing_dates", "retry_count", "notes"),
            ),
            # New rows have ids of their own: the work is known by what was asked for. Retries are counted in
            # the row on both sides. Notes and missing dates are about the source's answer, which the new
            # system examines and the old one did not.
            paired_by=("etf_id", "update_type", "start_date", "end_date"),
            compared={"status": None, "attempts": None, "completed_at": SAME_DAY},
        ),
    ),
)

NO_DATA: Final = "'attempted before the migration, no data found'"
MIDNIGHT: Final = utc("s.date::timestamp")

DAILY_UPDATES: Final = TableMigration(
    name="daily_update_tracking",
    source="public.daily_update_tracking",
    key=("date", "update_type"),
    source_columns={
        "date": ("date",),
        "update_type": ("character varying(50)", "character varying", "text"),
        "attempted": ("boolean",),
        "data_found": ("boolean",),
        "notes": TEXT,
    },
    kind="CASE WHEN s.update_type LIKE 'etf\\_prices\\_%' THEN 'etf_prices_*' ELSE s.update_type END",
    routes=(
        Route(
            name="daily_updates",
            target=f"{TRACKING_SCHEMA}.daily_update_tracking",
            domain="daily_update",
            key=("update_date", "update_type"),
            steps=(
                {
                    "new_status": "CASE WHEN s.data_found THEN 'COMPLETED' WHEN s.attempted THEN 'FAILED' "
                    "ELSE 'PENDING' END"
                },
            ),
            refusals=(
                Refusal("date_missing", "s.date IS NULL"),
                Refusal("date_out_of_range", _day_out_of_range("date")),
                Refusal("update_type_too_long", "char_length(s.update_type) > 50"),
                Refusal(
                    "unknown_update_type",
                    "s.update_type IS NULL OR s.update_type NOT IN ('exchange_rates', 'etf_prices') "
                    "AND NOT (starts_with(s.update_type, 'etf_prices_') AND char_length(s.update_type) > 11)",
                ),
            ),
            columns={
                "update_date": "s.date",
                "update_type": "s.update_type",
                "data_found": "CASE new_status WHEN 'COMPLETED' THEN TRUE WHEN 'FAILED' THEN FALSE END",
                "notes": "s.notes",
                "status": "new_status",
                "error_message": f"CASE WHEN new_status = 'FAILED' THEN {NO_DATA} END",
                "attempts": "CASE WHEN new_status = 'FAILED' THEN 1 ELSE 0 END",
                "max_attempts": "3",
                "created_at": MIDNIGHT,
                "updated_at": MIDNIGHT,
                "completed_at": f"CASE WHEN new_status <> 'PENDING' THEN {MIDNIGHT} END",
                "started_at": "NULL::timestamptz",
            },
            inferred={
                "data_found": "new_status = 'FAILED' AND s.data_found IS NULL",
                "created_at": "TRUE",
                "updated_at": "TRUE",
                "completed_at": "new_status <> 'PENDING'",
            },
            twin=daily_update_twin,
            # Two booleans know no "being worked on", "cancelled" or "nothing was to be found".
            reverse=Reverse(
                columns={
                    "date": "t.update_date",
                    "update_type": "t.update_type",
                    "attempted": "t.status IN ('COMPLETED', 'FAILED', 'CANCELLED')",
                    "data_found": "t.status = 'COMPLETED' AND t.data_found IS NOT FALSE",
                    "notes": "t.notes",
                },
                changed=("attempted", "data_found", "notes"),
            ),
            # The old table has no times at all, and of attempts only whether there was one.
            compared={"status": None, "data_found": None},
        ),
    ),
)


def _is_day_without_data(difference: Difference) -> bool:
    return (difference.way, difference.table, difference.column, difference.expected, difference.found) == (
        "pair",
        "daily_update_tracking",
        "status",
        "FAILED",
        "COMPLETED",
    )


def _is_retry_of_one_side(difference: Difference) -> bool:
    return (difference.way, difference.table, difference.column) == ("pair", "etf_updates", "attempts")


KNOWN: Final = (
    KnownDifference(
        name="day_without_data",
        reason="on a day on which nothing is published the new system has nothing to do and completes; the "
        "old one only knew that it tried and found nothing. Whether data were found is compared by itself",
        expires=date(2027, 6, 30),
        applies=_is_day_without_data,
    ),
    KnownDifference(
        name="retry_of_one_side",
        reason="both ask the source by themselves, so one may meet an outage that the other does not; how it "
        "ended is compared by itself",
        expires=date(2027, 6, 30),
        applies=_is_retry_of_one_side,
    ),
)
"""What both systems do differently, and why that does no harm."""

PLAN: Final = MigrationPlan(name="portfolio", tables=(TASK_STATUS, ETF_UPDATES, DAILY_UPDATES), known=KNOWN)
"""What ``tasktrail --app portfolio.worker migrate`` works with."""
