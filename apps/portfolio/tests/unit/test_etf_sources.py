"""What every source of prices keeps to, the bundled history, and the errors."""

import copy
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from portfolio.etfs.calendar import CALENDARS
from portfolio.etfs.errors import (
    BadAnswer,
    HistoryBegins,
    HistoryEnds,
    HistoryUnreadable,
    MissingRate,
    PricesError,
    SourceDown,
    SourceNotInstalled,
    UnknownEtf,
    UnknownExchange,
)
from portfolio.etfs.fields import check_isin
from portfolio.etfs.sources import (
    NAME_LIMIT,
    BundledPrices,
    EtfInfo,
    PriceSeries,
    PriceSource,
    Rejected,
    YahooPrices,
)
from tasktrail import GiveUp, InvalidField

FIRST, LAST = date(2014, 1, 2), date(2022, 12, 28)
TUESDAY = date(2022, 12, 27)
GOOD = b"Date,MTUM,NEWF\n2022-12-27,145.443,10.5\n2022-12-28,NaN,10.6\n"


def no_download(symbol, start, end):
    raise AssertionError("Yahoo must not be asked")


SOURCES = [BundledPrices(), YahooPrices(no_download)]


def by_name(source: PriceSource) -> str:
    return source.name


@pytest.mark.parametrize("source", SOURCES, ids=by_name)
def test_the_name_of_every_source_fits_its_column(source: PriceSource):
    assert 0 < len(source.name) <= NAME_LIMIT


@pytest.mark.parametrize("symbol", ["", "mtum", "MTUM QUAL", "MTUM\n", "../etc", "US46432F3964", None, 7])
@pytest.mark.parametrize("source", SOURCES, ids=by_name)
async def test_a_symbol_that_makes_no_sense_is_refused(source, symbol):
    with pytest.raises(InvalidField, match=r"^symbol: "):
        await source.fetch(symbol, FIRST, LAST)
    with pytest.raises(InvalidField, match=r"^symbol: "):
        await source.info(symbol)


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (LAST, FIRST, "start"),
        ("2014-01-02", LAST, "start"),
        (datetime(2014, 1, 2, tzinfo=UTC), LAST, "start"),
        (FIRST, None, "end"),
        (FIRST, datetime(2022, 12, 28, tzinfo=UTC), "end"),
    ],
)
@pytest.mark.parametrize("source", SOURCES, ids=by_name)
async def test_a_range_that_makes_no_sense_is_refused(source, start, end, field):
    with pytest.raises(InvalidField, match=f"^{field}: "):
        await source.fetch("MTUM", start, end)


async def test_the_bundled_history_returns_the_figures_digit_for_digit_oldest_first():
    expected = PriceSeries("MTUM", "USD", {TUESDAY: Decimal("145.443"), LAST: Decimal("143.73")})

    actual = await BundledPrices().fetch("MTUM", date(2022, 12, 26), date(2023, 1, 31))

    assert expected == actual
    assert [(str(day), str(price)) for day, price in actual.prices.items()] == [
        ("2022-12-27", "145.443"),
        ("2022-12-28", "143.73"),
    ]


@pytest.mark.parametrize("symbol", ["MTUM", "QUAL", "SIZE", "USMV", "VLUE"])
async def test_every_bundled_etf_has_2264_days_of_prices_and_no_gap(symbol):
    actual = await BundledPrices().fetch(symbol, date.min, date.max)

    assert (len(actual.prices), actual.rejected) == (2264, ())
    assert list(actual.prices) == sorted(actual.prices)
    assert (min(actual.prices), max(actual.prices)) == (FIRST, LAST)
    assert all(10 < price < 300 for price in actual.prices.values())


@pytest.mark.parametrize(
    ("symbol", "name", "isin"),
    [
        ("MTUM", "iShares MSCI USA Momentum Factor ETF", "US46432F3964"),
        ("QUAL", "iShares MSCI USA Quality Factor ETF", "US46432F3394"),
        ("SIZE", "iShares MSCI USA Size Factor ETF", "US46432F3709"),
        ("USMV", "iShares MSCI USA Min Vol Factor ETF", "US46429B6974"),
        ("VLUE", "iShares MSCI USA Value Factor ETF", "US46432F3881"),
    ],
)
async def test_the_bundled_etfs_are_known_by_name_and_by_an_isin_whose_check_digit_fits(symbol, name, isin):
    actual = await BundledPrices().info(symbol)

    assert EtfInfo(symbol, name, "USD", isin, "XNYS", FIRST, LAST) == actual
    assert actual.calendar in CALENDARS
    check_isin(isin)
    assert cusip_check_digit(isin[2:10]) == int(isin[10])


def cusip_check_digit(cusip: str) -> int:
    """Return the ninth character of a CUSIP, which an American ISIN holds: a check of its own."""
    values = (int(character, 36) * (1 + place % 2) for place, character in enumerate(cusip))
    return -sum(value // 10 + value % 10 for value in values) % 10


def test_an_etf_cannot_be_given_a_wrong_isin():
    with pytest.raises(InvalidField, match=r"^isin: its check digit does not fit the rest"):
        EtfInfo("MTUM", "Momentum", "USD", "US46432F3965", "XNYS")


def test_the_symbols_are_those_of_the_file():
    assert BundledPrices().symbols() == ("MTUM", "QUAL", "SIZE", "USMV", "VLUE")


async def test_an_etf_the_file_does_not_have_is_given_up():
    for ask in (BundledPrices().fetch("SPY", FIRST, LAST), BundledPrices().info("SPY")):
        with pytest.raises(UnknownEtf, match="bundled knows no ETF with the symbol SPY") as caught:
            await ask

        assert isinstance(caught.value, GiveUp)


@pytest.mark.parametrize(
    ("start", "end", "error", "message"),
    [
        (date(2013, 1, 2), date(2014, 1, 1), HistoryBegins, "begins at 2014-01-02, so .* up to 2014-01-01"),
        (date(2022, 12, 29), date(2023, 6, 1), HistoryEnds, "ends at 2022-12-28, so .* from 2022-12-29 on"),
        (date.max, date.max, HistoryEnds, "from 9999-12-31 on"),
    ],
)
async def test_a_range_outside_the_bundled_history_is_given_up(start, end, error, message):
    with pytest.raises(error, match=message) as caught:
        await BundledPrices().fetch("MTUM", start, end)

    assert isinstance(caught.value, GiveUp)


async def test_a_weekend_inside_the_bundled_history_has_no_prices():
    actual = await BundledPrices().fetch("MTUM", date(2022, 12, 24), date(2022, 12, 26))

    assert PriceSeries("MTUM", "USD", {}) == actual


async def test_a_figure_that_is_no_price_is_a_rejected_day(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_bytes(GOOD)

    actual = await BundledPrices(file).fetch("MTUM", TUESDAY, LAST)
    before = await BundledPrices(file).fetch("MTUM", TUESDAY, TUESDAY)

    assert actual.prices == {TUESDAY: Decimal("145.443")}
    assert actual.rejected == (Rejected(LAST, "'NaN' is not a price"),)
    assert before.rejected == ()


async def test_an_etf_of_another_file_has_its_symbol_for_a_name(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_bytes(GOOD)

    actual = await BundledPrices(file).info("NEWF")

    assert EtfInfo("NEWF", "NEWF", "USD", None, "XNYS", TUESDAY, LAST) == actual


async def test_the_bundled_file_is_read_once_per_process(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_bytes(GOOD)
    await BundledPrices(file).info("MTUM")
    file.unlink()

    actual = await BundledPrices(file).fetch("MTUM", TUESDAY, TUESDAY)

    assert {TUESDAY: Decimal("145.443")} == actual.prices


async def test_what_a_caller_does_to_a_series_does_not_reach_the_next_one():
    first = await BundledPrices().fetch("MTUM", TUESDAY, LAST)
    first.prices.clear()

    assert len((await BundledPrices().fetch("MTUM", TUESDAY, LAST)).prices) == 2


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\x00\xff", b"<html>\n", GOOD[:-4], GOOD[:40] + b"\n"],
    ids=["missing", "empty", "garbage", "html", "half a figure", "half a line"],
)
async def test_a_damaged_bundled_history_is_given_up(tmp_path, content):
    file = tmp_path / "prices.csv"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(HistoryUnreadable, match="the bundled history cannot be read: ") as caught:
        await BundledPrices(file).fetch("MTUM", TUESDAY, LAST)

    assert isinstance(caught.value, GiveUp)
    assert file == caught.value.path


def test_the_history_is_part_of_the_package_with_its_attribution_and_licence():
    data = files("portfolio.etfs") / "data"
    attribution = (data / "ATTRIBUTION.md").read_text(encoding="utf-8")

    assert (data / "etf_prices_usd.csv").read_bytes().startswith(b"Date,MTUM,QUAL,SIZE,USMV,VLUE\n")
    for part in (
        "adjusted",
        "BSD 3-Clause License",
        "The skfolio developers",
        "PROVIDED BY THE COPYRIGHT HOLDERS",
    ):
        assert part in attribution
    assert all(symbol in attribution for symbol in BundledPrices().symbols())


ERRORS = [
    SourceDown("Yahoo, MTUM", "Too Many Requests", 900.0),
    BadAnswer("Yahoo, MTUM", "it does not say the currency"),
    MissingRate("USD", [LAST, TUESDAY, LAST]),
    UnknownEtf("bundled", "SPY"),
    UnknownExchange("VOLV-B.ST", "STO"),
    HistoryBegins(FIRST, LAST),
    HistoryEnds(LAST, FIRST),
    HistoryUnreadable(Path("/prices.csv"), "it is empty"),
    SourceNotInstalled("yahoo", "yfinance"),
]


def test_every_error_is_among_the_examples():
    assert {type(error) for error in ERRORS} == set(PricesError.__subclasses__())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"]
)
def test_an_error_keeps_its_text_and_its_attributes_on_the_way_to_another_process(error, travel):
    arrived = travel(error)

    assert type(error) is type(arrived)
    assert str(error) == str(arrived)
    assert vars(error) == vars(arrived)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_only_a_source_or_a_rate_that_may_come_is_worth_another_attempt(error):
    worth_it = isinstance(error, (SourceDown, BadAnswer, MissingRate))

    assert worth_it is not isinstance(error, GiveUp)
    assert error.retry_after == (900.0 if isinstance(error, SourceDown) else None)


def test_missing_rates_are_told_once_each_oldest_first():
    assert ERRORS[2].days == (TUESDAY, LAST)
    assert str(ERRORS[2]) == "no exchange rate of USD is stored for 2022-12-27 and 1 more day"
