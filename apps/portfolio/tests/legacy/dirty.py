"""Strategies for legacy rows, clean and dirty, from which whole tables can be made.

A row has every column of its table but ``id``, JSON as text, times that Python cannot hold as text. It fits
the tables of ``loose.py``; with ``strict=True`` it fits those of revision 0001 on top of ``loose.add_etfs``.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import Any

from apps.portfolio.tests.legacy.case import ETFS, Row, source_of
from apps.portfolio.tests.legacy.cases import CASES
from apps.portfolio.tests.legacy.cases_rates import WORDS
from hypothesis import strategies as st

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXTS = st.text(LETTERS, max_size=12)
BLANKS = st.text(st.sampled_from(" \t\n\x0b\x0c\r\u00a0\u2003\x85\x1c"), max_size=2)


def pool(source: str, column: str, *kept: type) -> list[Any]:
    """Return what the cases put into a column, if it is of these types."""
    found = [case.row[column] for case in CASES if case.source == source and column in case.row]
    return list({repr(value): value for value in found if isinstance(value, kept)}.values())


def cased(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Words in varying case, with and without blanks around them."""
    change = st.sampled_from([str, str, str.upper, str.title, str.swapcase])
    blanks = st.sampled_from([*[""] * 8, " ", "\t", "\n", "\x0b\x0c\r", "  ", "\u00a0", "\u2003", "\x1c"])
    return st.builds(
        lambda word, alter, left, right: left + alter(word) + right, words, change, blanks, blanks
    )


def seldom(usual: st.SearchStrategy[Any], *odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly the usual, now and then something odd, so that a row is not refused for each of its columns."""
    return st.sampled_from([*[usual] * 12, *odd]).flatmap(lambda chosen: chosen)


def words(source: str, column: str) -> st.SearchStrategy[str]:
    """Words of a column, known and unknown, in varying spelling."""
    known = [word for word in pool(source, column, str) if len(word) < 100]
    return st.one_of(cased(st.sampled_from(known)), TEXTS)


STATUS_WORDS = cased(st.sampled_from(sorted(WORDS)))
USUAL_TIMES = st.datetimes(datetime(2015, 1, 1), datetime(2026, 12, 31))
ANY_TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
EDGES = st.sampled_from([datetime(1990, 1, 1), datetime(2100, 1, 1)]).flatmap(
    lambda edge: st.integers(-2, 2).map(lambda n: edge + timedelta(microseconds=n))
)
USUAL_DAYS = st.dates(date(2015, 1, 1), date(2026, 12, 31))
ANY_DAYS = st.dates()
ERRORS = st.one_of(st.none(), TEXTS, st.just(" \t\n"), st.just("Timeout: no answer within 30 s"))

JSON_NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 1e-7, 1e22, 1e23, 1.5e300, 10**40]),
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), JSON_NUMBERS, st.text(max_size=8)),  # halves of surrogate pairs too
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NUMBERS_AS_TEXT = st.one_of(
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.builds(
        "{}e{}".format, st.sampled_from(["0", "1", "-1.5", "0.0", "12.50"]), st.integers(-16400, 16400)
    ),
    st.builds("{}e{}".format, st.sampled_from(["1", "9.99", "0"]), st.integers(131060, 131080)),
)
DAY_TEXTS = st.one_of(
    st.builds("{:04}-{:02}-{:02}".format, st.integers(1985, 2105), st.integers(0, 13), st.integers(0, 32)),
    USUAL_DAYS.map(date.isoformat),
    st.builds(lambda left, day, right: left + day.isoformat() + right, BLANKS, USUAL_DAYS, BLANKS),
    TEXTS,
)
CODES = st.one_of(
    cased(st.sampled_from(["USD", "CHF", "GBP", "JPY", "EUR", "SEK"])),
    st.text(st.sampled_from("abzAZ\u00e4\u0131\u017f\uff21 1"), min_size=2, max_size=4),
)


@st.composite
def rates_metadata(draw: st.DrawFn) -> str:
    """The text of an object as the old system wrote it for exchange rates, or nearly so."""
    days = seldom(USUAL_DAYS.map(date.isoformat), DAY_TEXTS, JSON_VALUES)
    usual_codes = st.lists(st.sampled_from(["USD", "CHF", "GBP", "usd", " jpy", "EUR"]), max_size=4)
    codes = seldom(usual_codes, st.lists(st.one_of(CODES, JSON_VALUES), max_size=3), JSON_VALUES)
    fields = {"date": draw(days), "currencies": draw(codes)}
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=1 if draw(st.booleans()) else 0)):
        del fields[name]
    if draw(st.integers(0, 9)) == 0:
        fields["base_currency"] = draw(st.one_of(st.sampled_from(["EUR", "eur ", "USD"]), JSON_VALUES))
    if draw(st.integers(0, 9)) == 0:
        fields[draw(TEXTS)] = draw(JSON_VALUES)
    return json.dumps(fields, ensure_ascii=draw(st.booleans()) or _has_surrogate(fields))


def _has_surrogate(value: object) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in json.dumps(value, ensure_ascii=False))


@st.composite
def mangled(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A text with a piece put in or taken out somewhere."""
    text = draw(texts)
    at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 2))
    pieces = [
        "NaN",
        "\\u0000",
        "\\ud800",
        "\\ude00",
        ",",
        "}",
        "]",
        '"',
        "0",
        "\n",
        "\u00a0",
        "",
        "Infinity",
        "1e5",
    ]
    return text[:at] + draw(st.sampled_from(pieces)) + text[at + length :]


JSON_TEXTS = st.one_of(
    rates_metadata(),
    JSON_VALUES.map(json.dumps),
    NUMBERS_AS_TEXT,
    NUMBERS_AS_TEXT.map('{{"number": {}}}'.format),
    mangled(rates_metadata()),
    mangled(JSON_VALUES.map(json.dumps)),
    TEXTS,
    st.sampled_from(pool("task_status", "task_metadata", str)),
)


def creation_metadata() -> st.SearchStrategy[str]:
    """The text of an object as the old system wrote it for the creation of an ETF, or nearly so."""
    ids = seldom(st.sampled_from(["EUNL.DE", "MTUM", " IE00B4L5Y983 "]), st.text(max_size=260), JSON_VALUES)
    named = st.fixed_dictionaries(
        {"etf_id": ids}, optional={"realize_historical_contributions": st.booleans()}
    )
    return st.one_of(named, st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3)).map(json.dumps)


def _times(*, strict: bool) -> st.SearchStrategy[Any]:
    odd = [ANY_TIMES, EDGES, st.none()]
    if not strict:
        odd.append(st.sampled_from(pool("task_status", "created_at", str)))
    return seldom(USUAL_TIMES, *odd)


def task_rows(*, strict: bool = False) -> st.SearchStrategy[Row]:
    """Rows of task_status.

    Args:
        strict: only those that the table of revision 0001 takes. Metadata that ``jsonb`` refuses are among
            them nonetheless; see ``is_jsonb``.
    """
    types = ["exchange_rate_update"] * 6 + ["etf_creation", "etf_pension_processing", "csv_import"]
    kinds = cased(st.sampled_from(types))
    statuses = seldom(STATUS_WORDS, words("task_status", "status"))
    metadata = seldom(st.one_of(rates_metadata(), creation_metadata()), JSON_TEXTS, st.none())
    resources = st.integers(-(2**31), 2**31 - 1)
    return st.fixed_dictionaries(
        {
            "task_type": seldom(kinds, words("task_status", "task_type"), *_null(strict)),
            "status": seldom(statuses, *_null(strict)),
            "resource_id": seldom(resources, *([] if strict else [st.integers(-(2**40), 2**40), st.none()])),
            "error": ERRORS,
            "task_metadata": metadata,
            "created_at": _times(strict=strict),
            "updated_at": _times(strict=strict),
        }
    )


def _null(strict: bool) -> list[st.SearchStrategy[None]]:
    return [] if strict else [st.none()]


def etf_update_rows(*, strict: bool = False) -> st.SearchStrategy[Row]:
    """Rows of etf_updates.

    Args:
        strict: only those that the table of revision 0001 takes.
    """
    known = st.sampled_from(ETFS)
    odd_days = [ANY_DAYS, *_null(strict)]
    good_lists = st.lists(USUAL_DAYS, max_size=3)
    counts = st.integers(0, 5)
    created = _times(strict=strict)
    return st.fixed_dictionaries(
        {
            "etf_id": known if strict else seldom(known, TEXTS, st.none()),
            "update_type": seldom(
                cased(st.sampled_from(["full", "prices_only", "info_only", "manual"])), TEXTS, *_null(strict)
            ),
            "start_date": seldom(st.dates(date(2015, 1, 1), date(2019, 12, 31)), *odd_days),
            "end_date": seldom(st.dates(date(2019, 12, 30), date(2026, 12, 31)), *odd_days),
            "status": seldom(STATUS_WORDS, words("etf_updates", "status"), *_null(strict)),
            "created_at": created.filter(lambda moment: moment is not None) if strict else created,
            "completed_at": _times(strict=strict),
            "error": ERRORS,
            "missing_dates": st.one_of(
                st.none(), good_lists, st.lists(st.one_of(ANY_DAYS, USUAL_DAYS, st.none()), max_size=3)
            ),
            "retry_count": seldom(
                counts, st.integers(-3, 1100), st.integers(-(2**31), 2**31 - 1), *_null(strict)
            ),
            "notes": st.one_of(st.none(), TEXTS),
        }
    )


def daily_rows(*, strict: bool = False) -> st.SearchStrategy[Row]:
    """Rows of daily_update_tracking.

    Args:
        strict: only those that the table of revision 0001 takes, but for doubled keys.
    """
    flags = st.sampled_from([True, False, None])
    long = st.just("etf_prices_" + "x" * 40)
    return st.fixed_dictionaries(
        {
            "date": seldom(USUAL_DAYS, ANY_DAYS, *_null(strict)),
            "update_type": seldom(
                st.sampled_from(["exchange_rates", "etf_prices", "etf_prices_EUNL.DE"]),
                TEXTS.map("etf_prices_{}".format),
                TEXTS,
                *([] if strict else [long, st.none()]),
            ),
            "attempted": flags,
            "data_found": flags,
            "notes": st.one_of(st.none(), TEXTS),
        }
    )


def any_rows(*, strict: bool = False) -> st.SearchStrategy[Row]:
    """Rows of any of the three tables; ``case.source_of`` says of which."""
    return st.one_of(task_rows(strict=strict), etf_update_rows(strict=strict), daily_rows(strict=strict))


__all__ = ["JSON_TEXTS", "any_rows", "daily_rows", "etf_update_rows", "source_of", "task_rows"]
