"""What an ETF update leaves in the database: prices in euro, and a row that says which days are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from apps.portfolio.tests.settling import add_etfs, add_rates, only, rows, settle
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from portfolio.etfs.conversion import to_the_cent
from portfolio.etfs.errors import SourceDown
from portfolio.etfs.sources import BundledPrices, EtfInfo, PriceSeries
from portfolio.main import Application
from portfolio.models import Etf, EtfPrice, EtfUpdateTracking, ExchangeRate, ExchangeRateUpdateTracking
from portfolio.rates.tracking import DEFAULT_CURRENCIES
from portfolio.rates.tracking import update_fields as rate_fields
from tasktrail import InvalidField

NOW = datetime(2022, 12, 29, 22, tzinfo=UTC)
BUNDLED = BundledPrices()


@dataclass
class Wrapped:
    """The bundled history with something done to its answers.

    Attributes:
        prices: changes the answer with the prices.
        facts: changes the answer with the facts.
        asked: what was asked for.
    """

    prices: Callable[[PriceSeries], Any] = lambda series: series
    facts: Callable[[EtfInfo], Any] = lambda info: info
    name: str = "bundled"
    asked: list[tuple[str, date, date]] = field(default_factory=list)

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        self.asked.append((symbol, start, end))
        return self.prices(await BUNDLED.fetch(symbol, start, end))

    async def info(self, symbol: str) -> EtfInfo:
        return self.facts(await BUNDLED.info(symbol))


def altered(changes: Mapping[date, Any]) -> Callable[[PriceSeries], PriceSeries]:
    """Give other prices on some days; ``None`` takes a day away."""

    def change(series: PriceSeries) -> PriceSeries:
        prices = {**series.prices, **changes}
        return replace(series, prices={day: price for day, price in prices.items() if price is not None})

    return change


@pytest.fixture
def make(make_application: Any, engine: Engine) -> Callable[..., Application]:
    """Build the application after the end of the bundled history, with MTUM and the rates of late 2022."""
    add_etfs(engine, "MTUM")
    add_rates(engine, date(2022, 11, 25), date(2022, 12, 30))
    return lambda prices=None, **more: make_application(prices=prices, clock=lambda: NOW, **more)


def enqueue(
    application: Application, start: str, end: str, update_type: str = "prices_only", etf_id: str = "MTUM"
) -> int:
    days = {"start_date": date.fromisoformat(start), "end_date": date.fromisoformat(end)}
    return application.tasks.update_etf.enqueue(etf_id=etf_id, update_type=update_type, **days).id


def stored(engine: Engine) -> dict[date, Decimal]:
    return {price.date: price.price for price in rows(engine, EtfPrice)}


def changes(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    """Return for each row of a table which transaction wrote it last."""
    with engine.connect() as db:
        return [tuple(row) for row in db.execute(text(f"SELECT ctid, xmin FROM {table} ORDER BY 1"))]


@pytest.mark.parametrize(
    ("symbol", "day", "rate_day", "usd", "rate", "eur", "cents"),
    [
        # Ordinary: 17 April 2014 was Maundy Thursday, and the ECB published.
        ("MTUM", "2014-04-17", "2014-04-17", "52.934", "1.3855", "38.205702", "38.21"),
        # Easter Monday: New York trades, the ECB is closed, so the rate of Maundy Thursday holds.
        ("MTUM", "2014-04-21", "2014-04-17", "53.316", "1.3855", "38.481415", "38.48"),
        # May Day 2020: likewise; the rate is that of 30 April.
        ("QUAL", "2020-05-01", "2020-04-30", "84.786", "1.0876", "77.956969", "77.96"),
    ],
)
def test_a_price_in_euro_is_the_price_in_dollars_by_the_rate_of_the_day(
    make_application: Any,
    engine: Engine,
    published: Any,
    symbol: str,
    day: str,
    rate_day: str,
    usd: str,
    rate: str,
    eur: str,
    cents: str,
) -> None:
    add_etfs(engine, symbol)
    add_rates(engine, date.fromisoformat(rate_day), date.fromisoformat(rate_day))
    application = make_application(clock=lambda: NOW)
    enqueue(application, day, day, etf_id=symbol)
    settle(application)
    price = only(engine, EtfPrice)

    assert (str(price.original_price), price.original_currency) == (usd + "000", "USD")
    assert published[date.fromisoformat(rate_day)]["USD"] == rate
    assert (price.price, price.currency) == (Decimal(eur), "EUR")
    assert price.price == round(Decimal(usd) / Decimal(rate), 6)
    assert to_the_cent(price.price) == Decimal(cents)
    with engine.connect() as db:
        checked = db.scalar(
            text(
                "SELECT count(*) FROM etf_prices p JOIN exchange_rates r ON r.date = :day AND"
                " r.currency = 'USD' WHERE p.price = round(p.original_price / r.rate, 6)"
            ),
            {"day": rate_day},
        )
    assert checked == 1


def test_two_days_that_the_source_does_not_give_are_the_two_missing_dates(
    make: Callable[..., Application], engine: Engine
) -> None:
    removed = [date(2022, 12, 7), date(2022, 12, 20)]
    application = make(Wrapped(altered(dict.fromkeys(removed))))
    enqueue(application, "2022-12-01", "2022-12-23")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.missing_dates, row.notes) == ("COMPLETED", removed, None)
    assert len(stored(engine)) == 17 - 2
    assert not set(removed) & set(stored(engine))


@pytest.mark.parametrize(
    ("start", "end", "prices"),
    [
        ("2022-12-24", "2022-12-26", 0),  # a weekend, and Christmas Day made up for on Monday
        ("2022-11-24", "2022-11-27", 1),  # Thanksgiving and a weekend around a Friday
        ("2022-12-22", "2022-12-29", 4),  # the bundled history ends on the 28th
    ],
)
def test_days_on_which_the_exchange_is_closed_and_days_the_source_never_has_are_not_missing(
    make: Callable[..., Application], engine: Engine, start: str, end: str, prices: int
) -> None:
    application = make()
    enqueue(application, start, end)
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.missing_dates, len(stored(engine))) == ("COMPLETED", [], prices)
    after_the_end = end == "2022-12-29"
    assert row.notes == ("bundled has no prices after 2022-12-28" if after_the_end else None)


def test_a_price_that_is_not_final_is_neither_stored_nor_missed(
    make_application: Any, make: Callable[..., Application], engine: Engine
) -> None:
    application = make_application(clock=lambda: datetime(2022, 12, 14, 21, 0, tzinfo=UTC))
    enqueue(application, "2022-12-13", "2022-12-14")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert list(stored(engine)) == [date(2022, 12, 13)]
    assert (row.status, row.missing_dates) == ("COMPLETED", [])
    assert row.notes == "rejected 2022-12-14: the price is not final yet"


def test_doing_it_again_writes_nothing(make: Callable[..., Application], engine: Engine) -> None:
    application = make()
    found = []
    for _ in range(2):
        enqueue(application, "2022-12-01", "2022-12-28", "full")
        settle(application)
        found.append([changes(engine, table) for table in ("etf_prices", "etfs")])
    before, after = found

    assert after == before
    assert [row.status for row in rows(engine, EtfUpdateTracking)] == ["COMPLETED", "COMPLETED"]
    assert len(before[0]) == 19


def test_a_corrected_price_replaces_the_stored_one_and_leaves_the_others(
    make: Callable[..., Application], engine: Engine
) -> None:
    day = date(2022, 12, 20)
    with_an_error = make(Wrapped(altered({day: Decimal("1.5")})))
    enqueue(with_an_error, "2022-12-01", "2022-12-28")
    settle(with_an_error)
    before = set(changes(engine, "etf_prices"))
    wrong = stored(engine)[day]
    application = make()
    enqueue(application, "2022-12-01", "2022-12-28")
    settle(application)

    assert wrong == round(Decimal("1.5") / Decimal("1.0599"), 6)
    assert stored(engine)[day] == round(Decimal("143.166") / Decimal("1.0599"), 6)
    assert len(before - set(changes(engine, "etf_prices"))) == 1


def test_prices_in_euro_keep_their_value_and_need_no_rate(
    make: Callable[..., Application], engine: Engine
) -> None:
    source = Wrapped(
        lambda series: replace(series, currency="EUR"), lambda info: replace(info, currency="EUR")
    )
    application = make(source)
    with engine.begin() as db:
        db.execute(text("DELETE FROM exchange_rates"))
    enqueue(application, "2022-12-20", "2022-12-20")
    settle(application)
    price = only(engine, EtfPrice)

    assert (price.price, price.original_price, price.original_currency) == (
        Decimal("143.166"),
        Decimal("143.166"),
        "EUR",
    )
    assert rows(engine, ExchangeRateUpdateTracking) == []


# What it fetches


@pytest.mark.parametrize(
    ("update_type", "facts", "prices", "missing"),
    [("full", 1, 1, []), ("prices_only", 0, 1, []), ("manual", 0, 1, []), ("info_only", 1, 0, None)],
)
def test_the_type_of_an_update_says_what_is_fetched(
    make: Callable[..., Application], engine: Engine, update_type: str, facts: int, prices: int, missing: Any
) -> None:
    source = Wrapped()
    application = make(source)
    enqueue(application, "2022-12-20", "2022-12-20", update_type)
    settle(application)
    row, etf = only(engine, EtfUpdateTracking), only(engine, Etf)

    assert (row.status, len(stored(engine)), len(source.asked)) == ("COMPLETED", prices, prices)
    assert row.missing_dates == missing
    known = ("iShares MSCI USA Momentum Factor ETF", "USD", "US46432F3964")
    assert (etf.name, etf.currency, etf.isin) == (known if facts else (None, None, None))


def test_an_isin_that_the_source_does_not_say_stays_as_it_is_stored(
    make: Callable[..., Application], engine: Engine
) -> None:
    application = make(Wrapped(facts=lambda info: replace(info, isin=None)))
    with engine.begin() as db:
        db.execute(text("UPDATE etfs SET isin = 'US46432F3964'"))
    enqueue(application, "2022-12-20", "2022-12-20", "info_only")
    settle(application)

    assert only(engine, Etf).isin == "US46432F3964"
    assert only(engine, Etf).name == "iShares MSCI USA Momentum Factor ETF"


# Exchange rates that are not there yet


def test_missing_rates_are_fetched_by_their_own_job_and_waited_for(
    make: Callable[..., Application], engine: Engine
) -> None:
    days = [date(2022, 12, 19), date(2022, 12, 21)]
    source = Wrapped()
    application = make(source)
    with engine.begin() as db:
        db.execute(ExchangeRate.__table__.delete().where(ExchangeRate.date.in_(days)))
    enqueue(application, "2022-12-01", "2022-12-28")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts, row.attempt_log) == ("COMPLETED", 0, [])
    assert (len(stored(engine)), len(source.asked)) == (19, 1)
    updates = rows(engine, ExchangeRateUpdateTracking)
    assert [(update.update_date, update.status) for update in updates] == [(day, "COMPLETED") for day in days]
    assert [needed.ref.id for needed in application.tasks.update_etf.prerequisites(row.id)] == [
        update.id for update in updates
    ]


def test_updates_that_miss_the_same_rates_share_their_updates(
    make: Callable[..., Application], engine: Engine
) -> None:
    add_etfs(engine, "QUAL", "SIZE")
    application = make()
    with engine.begin() as db:
        db.execute(text("DELETE FROM exchange_rates"))
    for symbol in ("MTUM", "QUAL", "SIZE"):
        enqueue(application, "2022-12-12", "2022-12-16", etf_id=symbol)
    settle(application)

    assert [row.status for row in rows(engine, EtfUpdateTracking)] == ["COMPLETED"] * 3
    assert [row.attempts for row in rows(engine, ExchangeRateUpdateTracking)] == [0] * 5
    assert len(rows(engine, EtfPrice)) == 15


def in_hong_kong_dollars() -> Wrapped:
    """Quote in a currency that is not among the usual ones."""
    return Wrapped(lambda series: replace(series, currency="HKD"), lambda info: replace(info, currency="HKD"))


def test_rates_of_an_unusual_currency_are_ordered_with_the_usual_ones(
    make: Callable[..., Application], engine: Engine, published: Any
) -> None:
    application = make(in_hong_kong_dollars())
    enqueue(application, "2022-12-20", "2022-12-20")
    settle(application)
    day = date(2022, 12, 20)

    assert only(engine, ExchangeRateUpdateTracking).target_currencies == [*DEFAULT_CURRENCIES, "HKD"]
    assert stored(engine) == {day: round(Decimal("143.166") / Decimal(published[day]["HKD"]), 6)}


def test_a_currency_that_a_completed_update_of_rates_left_out_fails_the_update_and_is_named(
    make: Callable[..., Application], engine: Engine
) -> None:
    application = make(in_hong_kong_dollars())
    fields = rate_fields(date(2022, 12, 20), ["USD"], application.source.name)
    application.tasks.update_exchange_rates.enqueue(**fields)
    settle(application)
    enqueue(application, "2022-12-20", "2022-12-20")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts) == ("FAILED", 3)
    assert row.error_message == "MissingRate: no exchange rate of HKD is stored for 2022-12-20"


class Down:
    """A source of rates that never answers.

    Attributes:
        asked: the days it was asked for.
    """

    name = "down"

    def __init__(self) -> None:
        self.asked: list[date] = []

    async def fetch(self, day: date, currencies: Any) -> Any:
        self.asked.append(day)
        raise SourceDown("down", "HTTP 503")


def test_rates_that_do_not_come_fail_the_update_once_its_attempts_are_used_up(
    make: Callable[..., Application], engine: Engine
) -> None:
    source = Down()
    application = make(source=source)
    with engine.begin() as db:
        db.execute(text("DELETE FROM exchange_rates WHERE date = '2022-12-21'"))
    enqueue(application, "2022-12-01", "2022-12-28")
    settle(application)
    row, rates = only(engine, EtfUpdateTracking), only(engine, ExchangeRateUpdateTracking)

    message = "MissingRate: no exchange rate of USD is stored for 2022-12-21"
    assert (row.status, row.attempts, row.error_message) == ("FAILED", 3, message)
    assert [entry["error"] for entry in row.attempt_log] == [message] * 3
    # Each attempt starts the update of the rates again, with three attempts more.
    assert (rates.status, len(source.asked)) == ("FAILED", 9)
    assert stored(engine) == {}


def test_a_failed_update_comes_through_when_it_is_started_again_after_its_rates(
    make: Callable[..., Application], make_application: Any, engine: Engine
) -> None:
    broken = make(source=Down())
    with engine.begin() as db:
        db.execute(text("DELETE FROM exchange_rates WHERE date = '2022-12-21'"))
    row_id = enqueue(broken, "2022-12-20", "2022-12-21")
    settle(broken)
    repaired = make_application(clock=lambda: NOW)
    repaired.tasks.update_etf.retry(row_id)
    settle(repaired)

    assert only(engine, EtfUpdateTracking).status == "COMPLETED"
    assert only(engine, ExchangeRateUpdateTracking).status == "COMPLETED"
    assert len(stored(engine)) == 2


# Bad input


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"start_date": date(2022, 12, 21)}, "start_date: is after end_date, 2022-12-20"),
        ({"update_type": "everything"}, "update_type: is none of full, prices_only, info_only, manual"),
        ({"start_date": "2022-12-20"}, "start_date: must be a date"),
        ({"etf_id": None}, "etf_id: may not be empty"),
    ],
)
def test_bad_input_is_refused_before_there_is_a_row(
    make: Callable[..., Application], engine: Engine, fields: dict[str, Any], error: str
) -> None:
    good = {
        "etf_id": "MTUM",
        "update_type": "full",
        "start_date": date(2022, 12, 20),
        "end_date": date(2022, 12, 20),
    }
    with pytest.raises(InvalidField, match=error):
        make().tasks.update_etf.enqueue(**{**good, **fields})

    assert rows(engine, EtfUpdateTracking) == []


@pytest.mark.parametrize(
    ("start", "end", "error"),
    [
        ("2022-12-20", "2022-12-30", "InvalidField: end_date: it is in the future: in UTC it is 2022-12-29"),
        ("1998-12-31", "2022-12-20", "InvalidField: start_date: the first exchange rates of the euro"),
        ("2010-01-04", "2010-01-08", "HistoryBegins: the bundled history begins at 2014-01-02"),
        ("2022-12-29", "2022-12-29", "HistoryEnds: the bundled history ends at 2022-12-28"),
    ],
)
def test_a_range_without_prices_fails_the_row_at_once_and_says_why(
    make: Callable[..., Application], engine: Engine, start: str, end: str, error: str
) -> None:
    application = make()
    enqueue(application, start, end)
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message.startswith(error)
    assert stored(engine) == {}


@pytest.mark.parametrize("symbol", ["ACME", "nonsense", None])
def test_an_etf_that_the_source_does_not_know_fails_the_row_at_once(
    make: Callable[..., Application], engine: Engine, symbol: str | None
) -> None:
    with Session(engine) as db:
        db.add(Etf(id="7", symbol=symbol))
        db.commit()
    application = make()
    enqueue(application, "2022-12-20", "2022-12-20", etf_id="7")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    errors = {
        "ACME": "UnknownEtf: bundled knows no ETF with the symbol ACME",
        "nonsense": "InvalidField: symbol: a symbol is",
        None: "UnknownEtf: bundled knows no ETF with the symbol 7",
    }
    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message.startswith(errors[symbol])


def test_an_etf_that_is_not_in_the_database_fails_the_row_at_once(
    make: Callable[..., Application], engine: Engine
) -> None:
    application = make()
    enqueue(application, "2022-12-20", "2022-12-20")
    with engine.begin() as db:  # as in a database whose legacy tables lack the key
        db.execute(text("ALTER TABLE tracking.etf_updates DROP CONSTRAINT etf_updates_etf_id_fkey"))
        db.execute(text("DELETE FROM etfs"))
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message == "UnknownEtf: the database knows no ETF with the symbol MTUM"


# A source that answers nonsense; the whole table of nonsense is in the unit tests


def test_figures_that_are_no_prices_are_missing_dates_and_are_named_in_the_notes(
    make: Callable[..., Application], engine: Engine
) -> None:
    nonsense = [
        *(Decimal("NaN"), Decimal("Infinity"), Decimal("-143.166"), Decimal(0), Decimal("1e30")),
        *(143.166, float("nan"), "143.166", "<html><body>Too many requests</body></html>", True),
    ]
    days = [date(2022, 12, day) for day in (1, 2, 5, 6, 7, 8, 9, 12, 13, 14)]
    application = make(Wrapped(altered(dict(zip(days, nonsense, strict=True)))))
    enqueue(application, "2022-12-01", "2022-12-15")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.missing_dates) == ("COMPLETED", days)
    assert row.notes.startswith("rejected 2022-12-01: NaN is not a price; rejected 2022-12-02: Infinity is")
    assert [day for day in days if f"rejected {day}: " not in row.notes] == []
    assert list(stored(engine)) == [date(2022, 12, 15)]


def test_prices_of_days_that_have_none_are_not_stored(
    make: Callable[..., Application], engine: Engine
) -> None:
    days = [date(2022, 12, 15), date(2022, 12, 17), date(2022, 12, 26), date(2022, 12, 29)]
    application = make(Wrapped(altered(dict.fromkeys(days, Decimal(1)))))
    enqueue(application, "2022-12-16", "2022-12-28")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.missing_dates) == ("COMPLETED", [])
    assert [day for day in days if f"rejected {day}: " not in row.notes] == []
    assert len(stored(engine)) == 8
    assert not set(days) & set(stored(engine))


def test_answers_that_are_nonsense_as_a_whole_are_errors_and_store_nothing(
    make: Callable[..., Application], engine: Engine
) -> None:
    answers: dict[date, Callable[[PriceSeries], Any]] = {
        date(2022, 12, 19): lambda series: "<html>",
        date(2022, 12, 20): lambda series: replace(series, symbol="QUAL"),
        date(2022, 12, 21): lambda series: replace(series, currency="CHF"),
    }
    asked: list[tuple[str, date, date]] = []

    def answer(series: PriceSeries) -> Any:
        return answers[asked[-1][1]](series)

    application = make(Wrapped(answer, asked=asked))
    for day in answers:
        enqueue(application, str(day), str(day), "full")
    settle(application)
    failed = rows(engine, EtfUpdateTracking)

    assert [(row.status, row.attempts) for row in failed] == [("FAILED", 3)] * 3
    assert [row.error_message for row in failed] == [
        "BadAnswer: bundled, MTUM: a series of prices was expected, it is of type str",
        "BadAnswer: bundled, MTUM: the answer is about 'QUAL'",
        "BadAnswer: bundled, MTUM: its prices are in CHF, its facts say USD",
    ]
    assert (stored(engine), only(engine, Etf).name) == ({}, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>\n",
        b"Date,MTUM\n2022-12-20,143.166\n2022-12-21,14",
    ],
)
def test_a_damaged_file_fails_the_row_at_once_and_stores_nothing(
    make: Callable[..., Application], engine: Engine, tmp_path: Any, content: bytes
) -> None:
    file = tmp_path / "prices.csv"
    file.write_bytes(content)
    application = make(BundledPrices(file))
    enqueue(application, "2022-12-20", "2022-12-21")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts) == ("FAILED", 1)
    assert row.error_message.startswith("HistoryUnreadable: the bundled history cannot be read: ")
    assert stored(engine) == {}


def test_bad_figures_in_a_file_are_missing_dates(
    make: Callable[..., Application], engine: Engine, tmp_path: Any
) -> None:
    file = tmp_path / "prices.csv"
    lines = [
        "Date,MTUM",
        "2022-12-19,143",
        "2022-12-20,NaN",
        "2022-12-21,-5",
        "2022-12-22,",
        "2022-12-23,145",
    ]
    file.write_text("\n".join(lines) + "\n")
    application = make(BundledPrices(file))
    enqueue(application, "2022-12-19", "2022-12-23")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert row.missing_dates == [date(2022, 12, day) for day in (20, 21, 22)]
    assert list(stored(engine)) == [date(2022, 12, 19), date(2022, 12, 23)]


def test_a_source_that_is_down_is_asked_again_while_attempts_are_left(
    make: Callable[..., Application], engine: Engine
) -> None:
    def fail(series: PriceSeries) -> PriceSeries:
        raise SourceDown("bundled, MTUM", "HTTP 503")

    source = Wrapped(fail)
    application = make(source)
    enqueue(application, "2022-12-20", "2022-12-20")
    settle(application)
    row = only(engine, EtfUpdateTracking)

    assert (row.status, row.attempts, len(source.asked)) == ("FAILED", 3, 3)
    assert row.error_message == "SourceDown: bundled, MTUM: HTTP 503"


def test_no_transaction_is_open_while_the_source_is_asked(
    make: Callable[..., Application], engine: Engine
) -> None:
    open_ones: list[int] = []

    def look(series: PriceSeries) -> PriceSeries:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'idle in transaction'"
        )
        with engine.connect() as db:
            open_ones.append(db.scalar(text(query)))
        return series

    application = make(Wrapped(look))
    enqueue(application, "2022-12-20", "2022-12-20", "full")
    settle(application)

    assert open_ones == [0]
