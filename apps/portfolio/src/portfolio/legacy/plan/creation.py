"""The route of ETF creation, from ``task_status``."""

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
    etf_creation_twin,
    is_creation,
)
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.expressions import trimmed, utc, word
from tasktrail.migration.plan import (
    Refusal,
    Reverse,
    Route,
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
        **standard_columns(TASK_ATTEMPTS),
        **task_times(CREATION_CREATED),
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
