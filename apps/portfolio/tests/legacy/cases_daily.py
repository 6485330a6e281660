"""Cases of ``daily_update_tracking``."""

from __future__ import annotations

from datetime import date
from typing import Final

from apps.portfolio.tests.legacy.case import DAY, MIDNIGHT_UTC, daily, migrated, quarantined

LINE = "daily_update_tracking"
BOOLEANS = "data found, attempted, or neither"
OVER_LONG = "over-long text for the new column"
NO_DATA = "attempted before the migration, no data found"

DAILY_CASES: Final = (
    migrated(
        LINE,
        daily(notes="a weekend, no data expected"),
        "created_at updated_at completed_at",
        is_whole=True,
        update_date=DAY,
        update_type="exchange_rates",
        data_found=True,
        notes="a weekend, no data expected",
        status="COMPLETED",
        created_at=MIDNIGHT_UTC,
        updated_at=MIDNIGHT_UTC,
        started_at=None,
        completed_at=MIDNIGHT_UTC,
        error_message=None,
        attempts=0,
        max_attempts=3,
    ),
    *(
        migrated(BOOLEANS, daily(attempted=attempted, data_found=True), None, status="COMPLETED",
                 data_found=True, attempts=0, error_message=None)
        for attempted in (True, False, None)
    ),
    migrated(BOOLEANS, daily(attempted=True, data_found=False), "created_at updated_at completed_at",
             status="FAILED", data_found=False, attempts=1, error_message=NO_DATA, completed_at=MIDNIGHT_UTC),
    migrated(BOOLEANS, daily(attempted=True, data_found=None),
             "created_at updated_at completed_at data_found",
             status="FAILED", data_found=False, attempts=1, error_message=NO_DATA),
    *(
        migrated(BOOLEANS, daily(attempted=attempted, data_found=found), "created_at updated_at",
                 status="PENDING", data_found=None, attempts=0, error_message=None, completed_at=None)
        for attempted in (False, None)
        for found in (False, None)
    ),
    *(
        migrated(LINE, daily(update_type=kind), None, update_type=kind)
        for kind in ("etf_prices", "etf_prices_EUNL.DE", "etf_prices_ ", "etf_prices__",
                     "etf_prices_" + "x" * 39)
    ),
    *(
        quarantined("unknown update type", daily(update_type=kind), "unknown_update_type")
        for kind in ("", "etf_prices_", "etf_price", "etf_pricesX", "etf-prices-1", "Exchange_Rates",
                     " exchange_rates", "exchange_rates ", None)
    ),
    quarantined(OVER_LONG, daily(update_type="etf_prices_" + "x" * 40), "update_type_too_long"),
    quarantined("the first reason counts", daily(update_type="?" * 51), "update_type_too_long"),
    migrated(OVER_LONG, daily(notes="n" * 200_000), None, notes="n" * 200_000),
    migrated(LINE, daily(notes=""), None, notes=""),
    migrated(LINE, daily(date=date(1990, 1, 1)), None, update_date=date(1990, 1, 1)),
    migrated(LINE, daily(date=date(2099, 12, 31)), None, update_date=date(2099, 12, 31)),
    quarantined("malformed or ambiguous date", daily(date=None, update_type="?"), "date_missing"),
    *(
        quarantined("malformed or ambiguous date", daily(date=day, update_type="?"), "date_out_of_range")
        for day in (date(1989, 12, 31), date(2100, 1, 1), "infinity", "-infinity", "0044-03-15 BC")
    ),
)  # fmt: skip
