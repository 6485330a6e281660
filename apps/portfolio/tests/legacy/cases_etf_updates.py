"""Cases of ``etf_updates``."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from apps.portfolio.tests.legacy.case import (
    LATER,
    LATER_UTC,
    NOON,
    NOON_UTC,
    etf_update,
    migrated,
    quarantined,
)
from apps.portfolio.tests.legacy.cases_rates import ENDED, WORDS

LINE = "etf_updates"
STATUS = "status map"
OVER_LONG = "over-long text for the new column"
ATTEMPTS = "retry_count -> attempts"
ORDER = [date(2024, 2, 9), date(2024, 2, 5), date(2024, 2, 9)]

ETF_UPDATE_CASES: Final = (
    migrated(
        LINE,
        etf_update(),
        "updated_at",
        is_whole=True,
        id=7,
        etf_id="EUNL.DE",
        update_type="prices_only",
        start_date=date(2024, 2, 1),
        end_date=date(2024, 2, 29),
        missing_dates=None,
        notes=None,
        status="COMPLETED",
        created_at=NOON_UTC,
        updated_at=LATER_UTC,
        started_at=None,
        completed_at=LATER_UTC,
        error_message=None,
        attempts=0,
        max_attempts=3,
    ),
    *(
        migrated(
            STATUS,
            etf_update(status=f" {word.upper()}\n", retry_count=2, error="no answer"),
            "updated_at started_at" if status == "PROCESSING" else "updated_at",
            status=status,
            attempts=2,
            error_message="no answer",
            completed_at=LATER_UTC if status in ENDED else None,
            started_at=NOON_UTC if status == "PROCESSING" else None,
        )
        for word, status in WORDS.items()
    ),
    *(
        quarantined("unknown status", etf_update(status=word), "unknown_status")
        for word in ("", "paused", "completed\u00a0", None)
    ),
    # What is kept as it is
    migrated("id beyond INT", etf_update(id=2147483648), "updated_at", id=2147483648),
    migrated("id beyond INT", etf_update(id=9223372036854775807), "updated_at", id=9223372036854775807),
    migrated(LINE, etf_update(missing_dates=ORDER), "updated_at", missing_dates=ORDER),
    migrated(LINE, etf_update(missing_dates=[]), "updated_at", missing_dates=[]),
    migrated(LINE, etf_update(notes=" \n"), "updated_at", notes=" \n"),
    migrated(LINE, etf_update(etf_id=" padded "), "updated_at", etf_id=" padded "),
    migrated(OVER_LONG, etf_update(notes="n" * 200_000, error="e" * 200_000), "updated_at",
             notes="n" * 200_000, error_message="e" * 200_000),
    migrated(LINE, etf_update(error="\t \r\n"), "updated_at", error_message=None),
    # The type of the update
    *(
        migrated(LINE, etf_update(update_type=word), "updated_at", update_type=word.strip().lower())
        for word in ("full", "prices_only", "info_only", "manual", " Full", "MANUAL\t")
    ),
    *(
        quarantined(LINE, etf_update(update_type=word), "unknown_update_type")
        for word in ("", "prices", "prices only", "manual\u00a0", None)
    ),
    # The ETF
    *(
        quarantined("etf_id without its ETF", etf_update(etf_id=etf_id), "etf_unknown")
        for etf_id in ("GONE", "", "eunl.de", "EUNL.DE ", "padded", None)
    ),
    # The range
    migrated(LINE, etf_update(start_date=date(1990, 1, 1), end_date=date(2099, 12, 31)), "updated_at",
             start_date=date(1990, 1, 1), end_date=date(2099, 12, 31)),
    migrated(LINE, etf_update(start_date=date(2024, 2, 29)), "updated_at", start_date=date(2024, 2, 29)),
    quarantined("malformed or ambiguous date", etf_update(start_date=date(2024, 3, 1)), "dates_reversed"),
    quarantined("malformed or ambiguous date", etf_update(start_date=None), "date_missing"),
    quarantined("malformed or ambiguous date", etf_update(end_date=None), "date_missing"),
    quarantined("the first reason counts", etf_update(start_date="infinity", end_date=None), "date_missing"),
    *(
        quarantined("malformed or ambiguous date", etf_update(**{column: day}), "date_out_of_range")
        for column, day in (
            ("start_date", date(1989, 12, 31)), ("end_date", date(2100, 1, 1)), ("start_date", "-infinity"),
            ("end_date", "infinity"), ("start_date", "0044-03-15 BC"), ("end_date", "20240-01-01"),
        )
    ),
    # The times
    migrated("NULL created_at", etf_update(created_at=None), "created_at updated_at", created_at=LATER_UTC),
    migrated(
        "NULL created_at",
        etf_update(created_at=None, completed_at=None),
        "created_at updated_at completed_at",
        created_at=datetime.fromisoformat("2024-02-29T00:00Z"),
        updated_at=datetime.fromisoformat("2024-02-29T00:00Z"),
        completed_at=datetime.fromisoformat("2024-02-29T00:00Z"),
    ),
    migrated("a terminal row may have no end time", etf_update(completed_at=None), "updated_at completed_at",
             completed_at=NOON_UTC, updated_at=NOON_UTC),
    migrated("a terminal row may have no end time", etf_update(status="failed", completed_at=None),
             "updated_at completed_at", completed_at=NOON_UTC, attempts=0),
    migrated("times", etf_update(status="pending", completed_at=LATER), "updated_at", completed_at=None,
             updated_at=LATER_UTC),
    migrated("times", etf_update(status="pending", completed_at=None), "updated_at", updated_at=NOON_UTC),
    migrated("times", etf_update(created_at=LATER, completed_at=NOON), "updated_at", completed_at=NOON_UTC),
    *(
        quarantined("times", etf_update(**{column: moment}), f"{column}_out_of_range")
        for column in ("created_at", "completed_at")
        for moment in (datetime(1970, 1, 1), datetime(2100, 1, 1), "infinity", "-infinity")
    ),
    # The attempts
    migrated(ATTEMPTS, etf_update(status="retrying", retry_count=0), "updated_at attempts", attempts=1,
             max_attempts=3, status="PENDING"),
    migrated(ATTEMPTS, etf_update(status="retrying", retry_count=1), "updated_at", attempts=1),
    migrated(ATTEMPTS, etf_update(status="retrying", retry_count=3), "updated_at", attempts=3,
             max_attempts=4),
    migrated(ATTEMPTS, etf_update(status="pending", retry_count=2), "updated_at", attempts=2, max_attempts=3),
    migrated(ATTEMPTS, etf_update(status="processing", retry_count=5), None, attempts=5, max_attempts=6),
    migrated(ATTEMPTS, etf_update(status="failed", retry_count=3), "updated_at", attempts=3, max_attempts=3),
    migrated(ATTEMPTS, etf_update(status="failed", retry_count=5), "updated_at", attempts=5, max_attempts=5),
    migrated(ATTEMPTS, etf_update(status="failed", retry_count=0), "updated_at", attempts=0, max_attempts=3),
    migrated(ATTEMPTS, etf_update(retry_count=1000), "updated_at", attempts=1000, max_attempts=1000),
    *(
        quarantined(ATTEMPTS, etf_update(retry_count=count), "retry_count_out_of_range")
        for count in (-1, 1001, 2147483647, None)
    ),
    # The missing days
    *(
        quarantined("malformed or ambiguous date", etf_update(missing_dates=days), "missing_dates_malformed")
        for days in (
            [date(2024, 2, 5), None], [None], [date(1989, 12, 31)], [date(2100, 1, 1)],
            [[date(2024, 2, 5)], [date(2024, 2, 6)]], "{infinity}",
        )
    ),
    # Which reason is given when there are several
    quarantined("the first reason counts", etf_update(status="?", update_type="?"), "unknown_status"),
    quarantined("the first reason counts", etf_update(update_type="?", etf_id="?"), "unknown_update_type"),
    quarantined("the first reason counts", etf_update(etf_id="?", start_date=None), "etf_unknown"),
    quarantined("the first reason counts", etf_update(start_date=date(2024, 3, 1), retry_count=-1),
                "dates_reversed"),
    quarantined("the first reason counts", etf_update(created_at="infinity", completed_at="infinity"),
                "created_at_out_of_range"),
    quarantined("the first reason counts", etf_update(retry_count=-1, missing_dates=[None]),
                "retry_count_out_of_range"),
)  # fmt: skip
