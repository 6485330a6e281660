"""The route of exchange-rate updates, from ``task_status``."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.standard import NEW_STATUS_STEP, SAME_DAY, STATUS_STEP, STATUSES, standard_columns
from portfolio.legacy.plan.task import (
    TASK_ATTEMPTS,
    TASK_BACK,
    TASK_CHANGED,
    TASK_METADATA_STEPS,
    TASK_REFUSALS,
    TASK_TIMES_INFERRED,
    task_times,
)
from portfolio.legacy.twins import (
    exchange_rate_twin,
    is_exchange_rates,
)
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.expressions import trimmed, utc, word
from tasktrail.migration.plan import (
    Refusal,
    Reverse,
    Route,
)

FALLBACK_CURRENCIES: Final = "ARRAY['USD','GBP','CHF','JPY','SEK','NOK','DKK','CAD','AUD','PLN']::varchar[]"

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
        **standard_columns(TASK_ATTEMPTS),
        **task_times(RATES_CREATED),
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
