"""Cases of ``task_status``, exchange rates."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any, Final

from apps.portfolio.tests.legacy.case import (
    DAY,
    LATER,
    LATER_UTC,
    MIDNIGHT_UTC,
    NOON,
    NOON_UTC,
    USUAL,
    Row,
    migrated,
    quarantined,
    task,
)

STATUS = "status map"
METADATA = "metadata missing, JSON null, a scalar, an array"
DATE = "malformed or ambiguous date"
BAD_JSON = "bad JSON, NaN, lone surrogate, \\u0000 inside"
CURRENCIES = "currencies not a list, empty, not 3 letters, duplicated, lower case"
CREATED = "NULL created_at"
TIMES = "times"
ERRORS = "error -> error_message"


def about(text: Any, **columns: Any) -> Row:
    """A task with these metadata: a text as it is, anything else as JSON."""
    return task(task_metadata=text if text is None or isinstance(text, str) else json.dumps(text), **columns)


def on(day: Any) -> Row:
    return about({"date": day, "currencies": ["USD"]})


def for_currencies(currencies: Any) -> Row:
    return about({"date": "2024-03-01", "currencies": currencies})


WORDS: Final = {
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
ENDED: Final = {"COMPLETED", "FAILED", "CANCELLED"}

RATES_CASES: Final = (
    migrated(
        "task_status, exchange rates",
        task(),
        "",
        is_whole=True,
        update_date=DAY,
        base_currency="EUR",
        target_currencies=["USD", "CHF"],
        total_count=2,
        success_count=2,
        source="legacy",
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
            task(status=word),
            {"processing": "started_at", "running": "started_at", "started": "started_at"}.get(
                word, "success_count" if word == "completed_with_errors" else ""
            ),
            status=status,
            completed_at=LATER_UTC if status in ENDED else None,
            started_at=LATER_UTC if status == "PROCESSING" else None,
            attempts=1 if status == "FAILED" or word == "retrying" else 0,
            success_count=2 if status == "COMPLETED" and word != "completed_with_errors" else 0,
        )
        for word, status in WORDS.items()
    ),
    migrated(STATUS, task(status="  Completed\t\n\x0b\x0c\r"), "", status="COMPLETED"),
    migrated(STATUS, task(status="RETRYING "), "", status="PENDING", attempts=1),
    migrated(STATUS, task(task_type=" Exchange_Rate_Update\n"), "", status="COMPLETED", update_date=DAY),
    *(
        quarantined("unknown status", task(status=word), "unknown_status")
        for word in (
            "", "  ", "complete", "completed with errors", "completed-with-errors", "unknown", "null", "0",
            "completed\u00a0", "\u2003failed", "\u212aompleted", "\u017fuccess", "pend\u0131ng", "PENDING!",
        )
    ),
    quarantined("unknown status", task(status=None), "unknown_status"),
    # The error
    migrated(ERRORS, task(status="completed_with_errors", error="SEK: HTTP 502"), "success_count",
             status="COMPLETED", error_message="SEK: HTTP 502", success_count=0, total_count=2),
    migrated(ERRORS, task(status="failed", error=" Timeout\n"), "", error_message=" Timeout\n", attempts=1),
    migrated(ERRORS, task(status="pending", error="again"), "", error_message="again"),
    migrated(ERRORS, task(status="failed", error=" \t\n"), "", error_message=None),
    migrated(ERRORS, task(status="failed", error=""), "", error_message=None),
    migrated(ERRORS, task(status="failed", error="\u00a0"), "", error_message="\u00a0"),
    migrated("over-long text for the new column", task(status="failed", error="x" * 200_000), "",
             error_message="x" * 200_000),
    # The metadata
    *(
        migrated(
            METADATA,
            about(text),
            "update_date target_currencies total_count success_count",
            update_date=DAY,
            target_currencies=USUAL,
            total_count=10,
            success_count=10,
        )
        for text in (
            None, "null", " null\n", "1", "1e400", "-0.5", "true", "false", '"2024-02-02"', '""', "[]",
            '["USD"]', '[{"date": "2024-02-02"}]', "{}", '{"date": null, "currencies": null}',
            '{"Date": "2024-02-02", "date ": "2024-02-02", "CURRENCIES": ["USD"]}',
        )
    ),
    migrated(METADATA, about({"currencies": ["USD"]}), "update_date", update_date=DAY,
             target_currencies=["USD"]),
    migrated(METADATA, about({"date": "2024-02-02"}), "target_currencies total_count success_count",
             update_date=date(2024, 2, 2), target_currencies=USUAL, success_count=10),
    migrated(METADATA, about({"date": "2024-02-02"}, status="completed_with_errors"),
             "target_currencies total_count success_count", success_count=0, total_count=10),
    migrated(METADATA, about({"date": "2024-02-02"}, status="failed"), "target_currencies total_count",
             success_count=0, total_count=10),
    migrated(METADATA, about(None, created_at=datetime(2024, 2, 29, 23, 59, 59, 999_999)), None,
             update_date=date(2024, 2, 29)),
    migrated(METADATA, about('{"date": "2024-02-02", "date": "2024-03-01", "currencies": ["USD"]}'), "",
             update_date=DAY),
    migrated(METADATA, about({"date": "2024-03-01", "currencies": ["USD"], "more": {"a": [1, None]}}), "",
             update_date=DAY),
    quarantined(METADATA, about("[" * 501 + "]" * 501), "metadata_too_complex"),
    quarantined(METADATA, about('{"note": "' + "[{" * 251 + '"}'), "metadata_too_complex"),
    migrated(METADATA, about("[" * 500 + "]" * 500), None, update_date=DAY),
    # Bad JSON
    *(
        quarantined(BAD_JSON, about(text), "metadata_not_json")
        for text in (
            "", " ", "{", "{'date': '2024-03-01'}", '{"date": 2024-03-01}', '{"date": "2024-03-01",}', "nul",
            "NaN", '{"rate": NaN}', '{"rate": Infinity}', "-Infinity", "[1,]", "01", "1.", ".5", "+1", "1e",
            '"\\ud800"', '{"a": "\\udc00\\ud800"}', '{"\\ud83d": 1}', '"\\u0000"', '{"\\u0000": 1}',
            '{"a": "\\u0000", "a": 1}', '{"a": [["x\\u0000"]]}', '"a\nb"', '"\\x41"', '"\\u12"', "{} {}",
            "1e131072", "1e-16384", "\ufeff{}", "\u00a0{}", '{"date": "2024-03-01"} // today', "True", "None",
        )
    ),
    migrated(BAD_JSON, about('{"date": "2024-03-01", "currencies": ["USD"], "who": "\\ud83d\\ude00\\u00e9"}'),
             "", update_date=DAY),
    # The base currency
    migrated("base EUR", about({"base_currency": " eur", "date": "2024-03-01", "currencies": ["USD"]}), "",
             base_currency="EUR"),
    migrated("base EUR", about({"base_currency": None, "date": "2024-03-01", "currencies": ["USD"]}), "",
             base_currency="EUR"),
    *(
        quarantined("base EUR", about({"base_currency": base}), "base_currency_not_eur")
        for base in ("USD", "", "EURO", 978, ["EUR"], False, {})
    ),
    # The date
    migrated(DATE, on(" 2024-02-29\n"), "", update_date=date(2024, 2, 29)),
    migrated(DATE, on("1990-01-01"), "", update_date=date(1990, 1, 1)),
    migrated(DATE, on("2099-12-31"), "", update_date=date(2099, 12, 31)),
    migrated(DATE, on("2024-03-02"), "", update_date=date(2024, 3, 2)),  # a Saturday: it was tracked
    *(
        quarantined(DATE, on(day), "date_malformed")
        for day in (
            "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-10", "2024-04-31",
            "2024-01-00", "2024-01-32", "01/02/2024", "2024/03/01", "2024-3-1", "24-03-01", "20240301",
            "2024-03-01T00:00:00", "2024-03-01 00:00:00", "2024-03-01Z", "March 1, 2024", "", " ", "today",
            "infinity", "2024-03-01\n2024-03-02", "\uff12\uff10\uff12\uff14-03-01",
            "\u0662\u0660\u0662\u0664-03-01",
            "\u00a02024-03-01", "-2024-03-01", "12024-03-01", 20240301, 1709251200.5, True, ["2024-03-01"],
            {"day": "2024-03-01"}, False, 0,
        )
    ),
    *(
        quarantined(DATE, on(day), "date_out_of_range")
        for day in ("0000-01-01", "0001-01-01", "1989-12-31", "2100-01-01", "2100-02-30", "9999-12-31")
    ),
    # The currencies
    migrated(CURRENCIES, for_currencies(["usd", " Chf\t", "USD", "JPY", "usd"]), "",
             target_currencies=["USD", "CHF", "JPY"], total_count=3, success_count=3),
    migrated(CURRENCIES, for_currencies(["EUR", "USD", "eur"]), "", target_currencies=["USD"], total_count=1),
    *(
        quarantined(CURRENCIES, for_currencies(currencies), "currencies_not_a_list")
        for currencies in ("USD", "", "USD,CHF", 3, True, False, {"USD": 1}, {})
    ),
    *(
        quarantined(CURRENCIES, for_currencies(currencies), "currency_malformed")
        for currencies in (
            ["US"], ["USDT"], [""], ["U$D"], ["USD", None], [None], ["USD", 840], [["USD"]], ["USD", ["CHF"]],
            [{"code": "USD"}], ["US D"], ["\u00dcSD"], ["U\u00a0D"], ["USD", "\uff35\uff33\uff24"],
            ["\u0131sk"], [True], ["USD\nCHF"], ["EUR", "x"], ["USD", "EURO"],
        )
    ),
    quarantined(CURRENCIES, for_currencies([]), "currencies_empty"),
    quarantined(CURRENCIES, for_currencies(["EUR"]), "currencies_empty"),
    # The times
    migrated(CREATED, task(created_at=None), "created_at", created_at=LATER_UTC, updated_at=LATER_UTC,
             completed_at=LATER_UTC),
    migrated(CREATED, task(created_at=None, updated_at=None), "created_at updated_at completed_at",
             created_at=MIDNIGHT_UTC, updated_at=MIDNIGHT_UTC, completed_at=MIDNIGHT_UTC),
    migrated(CREATED, about({"currencies": ["USD"]}, created_at=None), "created_at update_date",
             update_date=DAY, created_at=LATER_UTC),
    migrated(CREATED, task(created_at=None, updated_at=None, status="pending"), "created_at updated_at",
             created_at=MIDNIGHT_UTC, completed_at=None, started_at=None),
    migrated(CREATED, task(created_at=None, updated_at=None, status="processing"),
             "created_at updated_at started_at", started_at=MIDNIGHT_UTC, completed_at=None),
    *(
        quarantined(CREATED, about(text, created_at=None, updated_at=None), "created_at_missing")
        for text in (None, "null", "[]", '"2024-03-01"', "{}", '{"currencies": ["usd"]}', '{"currencies": 1}')
    ),
    migrated("a terminal row may have no end time", task(updated_at=None), "updated_at completed_at",
             updated_at=NOON_UTC, completed_at=NOON_UTC),
    migrated(TIMES, task(created_at=LATER, updated_at=NOON), "", created_at=LATER_UTC, completed_at=NOON_UTC),
    migrated(TIMES, task(created_at=datetime(1990, 1, 1)), "", created_at=datetime(1990, 1, 1, tzinfo=UTC)),
    migrated(TIMES, task(updated_at=datetime(2099, 12, 31, 23, 59, 59, 999_999)), "",
             updated_at=datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    migrated(TIMES, task(created_at=datetime(2024, 3, 31, 2, 30)), "",  # no such hour in Frankfurt
             created_at=datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
    *(
        quarantined(TIMES, task(**{column: moment}), f"{column}_out_of_range")
        for column in ("created_at", "updated_at")
        for moment in (
            datetime(1970, 1, 1), datetime(1989, 12, 31, 23, 59, 59, 999_999), datetime(2100, 1, 1),
            datetime(9999, 12, 31), "infinity", "-infinity", "0044-03-15 12:00:00 BC", "20240-03-01 00:00:00",
        )
    ),
    # Which reason is given when there are several
    quarantined("the first reason counts", about("{", status="?", created_at=datetime(1970, 1, 1)),
                "unknown_status"),
    quarantined("the first reason counts", about("{", updated_at="infinity", created_at=datetime(1970, 1, 1)),
                "created_at_out_of_range"),
    quarantined("the first reason counts", about("{", updated_at="infinity"), "updated_at_out_of_range"),
    quarantined("the first reason counts", about("[" * 501), "metadata_too_complex"),
    quarantined("the first reason counts",
                about({"base_currency": 1, "date": 1, "currencies": 1}), "base_currency_not_eur"),
    quarantined("the first reason counts",
                about({"date": "1989-02-30", "currencies": 1}), "date_out_of_range"),
    quarantined("the first reason counts",
                about({"currencies": 1}, created_at=None, updated_at=None), "created_at_missing"),
    quarantined("the first reason counts", for_currencies(["EUR", "eur", "x"]), "currency_malformed"),
)  # fmt: skip
