"""Clean rows as the old system left them, along the ECB's calendar: text for COPY, oldest first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from itertools import islice
from random import Random
from typing import Final, TypeAlias

from portfolio.legacy.vocabulary import CREATION_TYPES
from portfolio.rates.calendar import FIRST_DAY, why_nothing_is_published

Fields: TypeAlias = dict[str, str | None]
"""One row: column -> the text of its value; None for NULL."""

MANY_ETFS: Final = 60
ETF_IDS: Final = (*(f"IE00B{number:06}" for number in range(MANY_ETFS - 2)), "EUNL.DE", "MTUM")
SETS_OF_CURRENCIES: Final = (
    '"USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "CAD", "AUD", "PLN"',
    '"USD", "GBP", "CHF"',
    '"USD", "CHF", "JPY", "SEK"',
)
ERRORS: Final = (
    "ReadTimeout: the ECB did not answer within 30 s",
    "HTTPError: 502 Bad Gateway",
    "ConnectionError: Name or service not known",
    "ValueError: no rates in the answer",
)
ARCHIVED_TYPES: Final = ("portfolio_recalculation", "cache_warmup", "csv_import")
UPDATE_TYPES: Final = ("full", "prices_only", "prices_only", "prices_only", "info_only", "manual")
WHOLE_TYPES: Final = ("exchange_rates", "etf_prices")
NEWEST_SHARE: Final = 0.002
"""Which part of a table, at its end, may still be under way."""


def published_days(until: date) -> list[date]:
    """Return the days on which the ECB published rates, oldest first.

    Args:
        until: the last day.
    """
    every_day = (FIRST_DAY + timedelta(days=n) for n in range((until - FIRST_DAY).days + 1))
    return [day for day in every_day if why_nothing_is_published(day) is None]


def task_rows(count: int, days: Sequence[date], random: Random) -> Iterator[Fields]:
    """Yield rows of ``task_status``: six in seven are about exchange rates, a retry is a new row.

    Args:
        count: how many.
        days: the days they spread over.
        random: decides the rest.
    """
    for day, texts, place, is_new in _spread(count, days):
        status, error = _outcome(random, is_new=is_new)
        second = 59_000 + place * 20 + random.randrange(20)
        created, updated = f"{texts} {_clock(second)}", f"{texts} {_clock(second + 1 + random.randrange(90))}"
        kind = random.random()
        resource = day.toordinal() % 5000
        metadata: str | None = None
        if kind < 0.86:
            task_type, resource = "exchange_rate_update", day.year * 10_000 + day.month * 100 + day.day
            metadata = f'{{"date": "{texts}", "currencies": [{random.choice(SETS_OF_CURRENCIES)}]}}'
        elif kind < 0.97:
            task_type = CREATION_TYPES[kind > 0.93]
            fields = [f'"etf_id": "{random.choice(ETF_IDS)}"'] if kind < 0.91 else []
            if task_type == CREATION_TYPES[1]:
                fields.append('"realize_historical_contributions": true')
            metadata = f"{{{', '.join(fields)}}}"
        else:
            task_type = random.choice(ARCHIVED_TYPES)
        yield {
            "task_type": task_type,
            "status": status,
            "resource_id": str(resource),
            "error": error,
            "task_metadata": metadata,
            "created_at": created,
            "updated_at": updated,
        }


def etf_update_rows(count: int, days: Sequence[date], random: Random) -> Iterator[Fields]:
    """Yield rows of ``etf_updates``, each for the month before it.

    Args:
        count: how many.
        days: the days they spread over.
        random: decides the rest.
    """
    month = timedelta(days=30)
    for day, texts, place, is_new in _spread(count, days):
        status, error = _outcome(random, is_new=is_new)
        second = 72_000 + place * 10 + random.randrange(10)
        has_ended = status not in {"pending", "processing", "retrying"}
        retries = 1 + random.randrange(3) if status in {"retrying", "failed"} else int(random.random() < 0.05)
        missing = status == "completed" and random.random() < 0.1
        yield {
            "etf_id": random.choice(ETF_IDS),
            "update_type": random.choice(UPDATE_TYPES),
            "start_date": (day - month).isoformat(),
            "end_date": texts,
            "status": status,
            "created_at": f"{texts} {_clock(second)}",
            "completed_at": f"{texts} {_clock(second + 2 + random.randrange(300))}" if has_ended else None,
            "error": error,
            "missing_dates": f"{{{(day - timedelta(days=2)).isoformat()},{texts}}}" if missing else None,
            "retry_count": str(retries),
            "notes": "asked for by hand" if random.random() < 0.02 else None,
        }


def daily_keys(days: Sequence[date]) -> int:
    """Return how many rows ``daily_update_tracking`` can have for so many days."""
    return len(days) * (len(WHOLE_TYPES) + len(ETF_IDS))


def daily_rows(
    count: int, days: Sequence[date], random: Random, taken: Collection[tuple[str, str]]
) -> Iterator[Fields]:
    """Yield rows of ``daily_update_tracking``, newest day first: there is one a day and type.

    Args:
        count: how many.
        days: the days, oldest first.
        random: decides the rest.
        taken: dates and types that are there already.
    """
    kinds = (*WHOLE_TYPES, *(f"etf_prices_{etf_id}" for etf_id in ETF_IDS))
    newest_first = [day.isoformat() for day in reversed(days)]
    keys = ((day, kind) for day in newest_first for kind in kinds if (day, kind) not in taken)
    for day, kind in islice(keys, count):
        chance = random.random()
        is_open = day == newest_first[0] and chance < 0.3
        yield {
            "date": day,
            "update_type": kind,
            "attempted": "f" if is_open else "t",
            "data_found": "f" if is_open or chance > 0.97 else "t",
            "notes": "no data from the source" if chance > 0.99 else None,
        }


def _spread(count: int, days: Sequence[date]) -> Iterator[tuple[date, str, int, bool]]:
    """Yield the day of each row, as a date and as text, its place on that day, and whether it is new."""
    newest = count - max(1, int(count * NEWEST_SHARE))
    many = len(days)
    before = place = -1
    day, text = days[0], ""
    for number in range(count):
        # Few rows are of the newest days, many of one day each after the other.
        index = number * many // count if count >= many else many - count + number
        if index != before:
            before, place, day = index, -1, days[index]
            text = day.isoformat()
        place += 1
        yield day, text, place, number >= newest


def _outcome(random: Random, *, is_new: bool) -> tuple[str, str | None]:
    chance = random.random()
    if is_new and chance < 0.3:
        return ("pending", "processing", "retrying")[int(chance * 10)], None
    if chance < 0.92:
        return "completed", None
    if chance < 0.95:
        return "completed_with_errors", f"{random.choice(('SEK', 'PLN', 'NOK'))}: no rate"
    return ("cancelled", None) if chance > 0.99 else ("failed", random.choice(ERRORS))


def _clock(second: int) -> str:
    """Return a time of the day, still on that day however many rows it has."""
    second = min(second, 86_399)
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
