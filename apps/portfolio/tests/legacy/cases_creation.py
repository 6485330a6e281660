"""Cases of ``task_status``, ETF creation and all other task types."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from apps.portfolio.tests.legacy.case import (
    LATER_UTC,
    NOON_UTC,
    Row,
    archived,
    creation,
    migrated,
    quarantined,
    task,
)

LINE = "task_status, ETF creation"
OTHER = "task_status, any other type"
METADATA = "metadata missing, JSON null, a scalar, an array"
BAD_JSON = "bad JSON, NaN, lone surrogate, \\u0000 inside"
OVER_LONG = "over-long text for the new column"
BEYOND = "id beyond INT"


def about(value: Any, **columns: Any) -> Row:
    return creation(task_metadata=json.dumps(value), **columns)


CREATION_CASES: Final = (
    migrated(
        LINE,
        about({"etf_id": "EUNL.DE", "realize_historical_contributions": True}),
        "",
        is_whole=True,
        etf_id="EUNL.DE",
        resource_id=12,
        task_metadata={"etf_id": "EUNL.DE", "realize_historical_contributions": True},
        status="COMPLETED",
        created_at=NOON_UTC,
        updated_at=LATER_UTC,
        started_at=None,
        completed_at=LATER_UTC,
        error_message=None,
        attempts=0,
        max_attempts=3,
    ),
    migrated(
        LINE,
        about({"realize_historical_contributions": True}, task_type="etf_pension_processing"),
        "etf_id",
        etf_id="12",
        resource_id=12,
        task_metadata={"realize_historical_contributions": True},
    ),
    migrated(LINE, creation(task_type=" ETF_Creation"), "", etf_id="EUNL.DE"),
    migrated(LINE, about({"etf_id": " No Such ETF\t", "n": 1.5}), "", etf_id="No Such ETF",
             task_metadata={"etf_id": " No Such ETF\t", "n": 1.5}),
    migrated(LINE, about({"etf_id": None}), "etf_id", etf_id="12", task_metadata={"etf_id": None}),
    migrated(LINE, about({"etf_id": "\u00a0\u00e9\u0085"}), "", etf_id="\u00a0\u00e9\u0085"),
    migrated(LINE, creation(resource_id=-5, task_metadata=None), "etf_id", etf_id="-5", resource_id=-5),
    migrated(LINE, creation(task_metadata='{"n": [1e2, 1.50, -0, 12345678901234567890, 1e-3]}'), "etf_id",
             task_metadata={"n": [100, 1.5, 0, 12345678901234567890, 0.001]}),
    migrated(LINE, creation(task_metadata='{"a": 1, "a": {"b": [], "c": {}}, "": "\\ud83d\\ude00"}'),
             "etf_id", task_metadata={"a": {"b": [], "c": {}}, "": "\U0001f600"}),
    migrated("status map", creation(status="retrying", error="Timeout"), "", status="PENDING", attempts=1,
             error_message="Timeout", completed_at=None),
    migrated("status map", creation(status="Running"), "started_at", status="PROCESSING",
             started_at=LATER_UTC),
    migrated("status map", creation(status="error"), "", status="FAILED", attempts=1, max_attempts=3),
    migrated("NULL created_at", creation(created_at=None), "created_at", created_at=LATER_UTC),
    migrated("a terminal row may have no end time", creation(updated_at=None), "updated_at completed_at",
             completed_at=NOON_UTC),
    quarantined("NULL created_at", creation(created_at=None, updated_at=None), "created_at_missing"),
    quarantined("unknown status", creation(status="gone"), "unknown_status"),
    quarantined("times", creation(created_at=datetime(1970, 1, 1)), "created_at_out_of_range"),
    quarantined("times", creation(updated_at="infinity"), "updated_at_out_of_range"),
    # The metadata
    migrated(METADATA, creation(task_metadata=None), "etf_id", etf_id="12", task_metadata=None),
    migrated(METADATA, creation(task_metadata="null"), "etf_id", etf_id="12", task_metadata=None),
    migrated(METADATA, creation(task_metadata="{}"), "etf_id", etf_id="12", task_metadata={}),
    *(
        quarantined(METADATA, creation(task_metadata=text), "metadata_not_an_object")
        for text in ("1", "true", '"EUNL.DE"', "[]", '[{"etf_id": "EUNL.DE"}]')
    ),
    *(
        quarantined(BAD_JSON, creation(task_metadata=text), "metadata_not_json")
        for text in ("", "{", '{"a": NaN}', '{"a": "\\ud800"}', '{"a": "\\u0000"}', '{"a": 1e131072}')
    ),
    quarantined(METADATA, creation(task_metadata='{"a": "' + "{" * 500 + '"}'), "metadata_too_complex"),
    # The id of the ETF
    *(
        quarantined("etf id or resource id", about({"etf_id": value}), "etf_id_malformed")
        for value in ("", " \t", 12, True, False, 0, ["EUNL.DE"], {}, "EUNL\nDE", "a\x01", "\x7f", "a\tb")
    ),
    migrated(OVER_LONG, about({"etf_id": "\U0001f600" * 255}), "", etf_id="\U0001f600" * 255),
    migrated(OVER_LONG, about({"etf_id": " " + "x" * 255 + " "}), "", etf_id="x" * 255),
    quarantined(OVER_LONG, about({"etf_id": "x" * 256}), "etf_id_too_long"),
    quarantined("the first reason counts", about({"etf_id": "x" * 256 + "\x01"}), "etf_id_malformed"),
    # The resource
    migrated(BEYOND, creation(resource_id=2147483647), "", resource_id=2147483647),
    migrated(BEYOND, creation(resource_id=-2147483648), "", resource_id=-2147483648),
    quarantined(BEYOND, creation(resource_id=2147483648), "resource_id_out_of_range"),
    quarantined(BEYOND, creation(resource_id=-2147483649), "resource_id_out_of_range"),
    quarantined(BEYOND, creation(resource_id=None), "resource_id_out_of_range"),
    quarantined("the first reason counts", creation(resource_id=None, created_at=None, updated_at=None),
                "resource_id_out_of_range"),
    # All other types
    archived(OTHER, task(task_type="portfolio_recalculation"), "archived_portfolio_recalculation"),
    archived(OTHER, task(task_type=" Cache_Warmup "), "archived_cache_warmup"),
    archived(OTHER, task(task_type="csv_import", status="?", task_metadata="{", created_at="infinity"),
             "archived_csv_import"),
    *(
        quarantined(OTHER, task(task_type=kind), "unknown_type")
        for kind in ("", " ", "exchange_rate", "exchange_rate_updates", "etf_creation2", "one_off", None,
                     "exchange_rate_update\u00a0", "exchange rate update", "etf\u2010creation")
    ),
)  # fmt: skip
