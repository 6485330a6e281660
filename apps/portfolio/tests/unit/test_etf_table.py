"""The bundled table: what is read from a good one, and that no bad one becomes a wrong price."""

import math
import struct
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio.etfs.errors import BadAnswer
from portfolio.etfs.sources.figures import NotAPrice, price_of, read_price
from portfolio.etfs.sources.protocol import Rejected
from portfolio.etfs.sources.table import PriceTable, read_table

TUESDAY = date(2022, 12, 27)
WEDNESDAY = date(2022, 12, 28)


def table(*lines: str, header: str = "Date,MTUM,QUAL") -> bytes:
    return "\n".join([header, *lines, ""]).encode()


GOOD = table("2022-12-27,145.443,113.394", "2022-12-28,143.73,111.883")


def test_a_table_holds_the_prices_of_its_etfs_digit_for_digit():
    actual = read_table("test", GOOD)

    assert (actual.first, actual.last) == (TUESDAY, WEDNESDAY)
    assert actual.columns["MTUM"].prices == {TUESDAY: Decimal("145.443"), WEDNESDAY: Decimal("143.73")}
    assert actual.columns["QUAL"].prices == {TUESDAY: Decimal("113.394"), WEDNESDAY: Decimal("111.883")}
    assert [str(price) for price in actual.columns["MTUM"].prices.values()] == ["145.443", "143.73"]


def test_a_table_with_windows_line_ends_is_read_too():
    assert read_table("test", GOOD.replace(b"\n", b"\r\n")) == read_table("test", GOOD)


NO_PRICES = [
    *("NaN", "nan", "sNaN", "Infinity", "-143.73", "+143.73", "0", "0.000", "", " ", " 143.73", "143.73 "),
    *("1e5", "1_000", "143.", ".5", "1.1.1", "0x10", "N/A", "1" * 13, "1." + "1" * 7, "<td>"),
]


@pytest.mark.parametrize("figure", NO_PRICES)
def test_a_figure_that_is_no_price_costs_that_etf_that_day_and_no_other(figure):
    actual = read_table("test", table("2022-12-27,145.443,113.394", f"2022-12-28,{figure},111.883"))

    (rejected,) = actual.columns["MTUM"].rejected
    assert actual.columns["MTUM"].prices == {TUESDAY: Decimal("145.443")}
    assert rejected.day == WEDNESDAY
    assert "price" in rejected.reason
    assert actual.columns["QUAL"].prices[WEDNESDAY] == Decimal("111.883")
    assert actual.columns["QUAL"].rejected == []


BAD = {
    "empty": b"",
    "one newline": b"\n",
    "only the header": table(),
    "html": b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n",
    "json": b'{"MTUM": 143.73}\n',
    "binary": b"\x00\xff\xfe\n",
    "half a figure": GOOD[:-4],
    "half a line": GOOD[:-9] + b"\n",
    "half the table": GOOD[: len(GOOD) // 2],
    "a field too many": table("2022-12-28,143.73,111.883,1"),
    "a field too few": table("2022-12-28,143.73"),
    "decimal commas": table("2022-12-28,143,73,111,883"),
    "semicolons": GOOD.replace(b",", b";"),
    "other header": table("2022-12-28,1,1", header="Day,MTUM,QUAL"),
    "no header": GOOD.split(b"\n", 1)[1],
    "no ETF": table("2022-12-28", header="Date"),
    "no name": table("2022-12-28,1,1", header="Date,MTUM,"),
    "ETF twice": table("2022-12-28,1,1", header="Date,MTUM,MTUM"),
    "lower case": table("2022-12-28,1,1", header="Date,MTUM,qual"),
    "day twice": table("2022-12-28,1,1", "2022-12-28,1,1"),
    "day out of order": table("2022-12-28,1,1", "2022-12-27,1,1"),
    "no such day": table("2022-02-30,1,1"),
    "compact day": table("20221228,1,1"),
    "american day": table("12/28/2022,1,1"),
    "day with time": table("2022-12-28 00:00,1,1"),
    "no day": table(",1,1"),
    "blank line": table("2022-12-28,1,1", ""),
    "no ASCII": table("2022-12-28,1,ä"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_content_that_is_no_table_of_prices_is_a_bad_answer(content):
    with pytest.raises(BadAnswer, match=r"^the table: ."):
        read_table("the table", content)


@st.composite
def damaged(draw, original: bytes) -> bytes:
    start = draw(st.integers(0, len(original)))
    end = draw(st.integers(start, min(len(original), start + 40)))
    return original[:start] + draw(st.binary(max_size=40)) + original[end:]


def is_plausible(read: PriceTable) -> bool:
    days = [day for column in read.columns.values() for day in column.prices]
    prices = [price for column in read.columns.values() for price in column.prices.values()]
    return all(read.first <= day <= read.last for day in days) and all(
        price.is_finite() and 0 < price < 10**12 and -price.as_tuple().exponent <= 6 for price in prices
    )


@settings(deadline=None)
@given(st.binary() | damaged(GOOD))
def test_any_bytes_are_a_table_of_prices_or_a_bad_answer(content):
    try:
        read = read_table("test", content)
    except BadAnswer:
        return

    assert is_plausible(read)


@given(st.integers(0, len(GOOD) - 1))
def test_no_part_of_a_table_becomes_a_price_that_the_whole_does_not_have(length):
    whole = read_table("test", GOOD)
    try:
        part = read_table("test", GOOD[:length])
    except BadAnswer:
        return

    for symbol, column in part.columns.items():
        assert column.prices.items() <= whole.columns[symbol].prices.items()


@given(st.text())
def test_any_text_is_a_price_or_none(text):
    try:
        price = read_price(text)
    except NotAPrice:
        return

    assert Decimal(text) == price > 0


def single(number: float) -> float:
    return struct.unpack("<f", struct.pack("<f", number))[0]


@pytest.mark.parametrize(
    ("number", "price"),
    [
        (149.77000427246094, "149.770000"),
        (143.72999572753906, "143.730000"),
        (52.70399856567383, "52.704000"),
        (689.43, "689.430000"),
        (681.75, "681.750000"),
        (0.0001, "0.000100"),
        (100, "100.000000"),
        (1 / 3, "0.333333"),
        (131072.015625, "131072.020000"),
        (33554434.0, "33554434.000000"),
        (0.0000005, "0.000001"),
        (999999999999.0, "999999999999.000000"),
    ],
)
def test_a_binary_number_becomes_the_decimal_price_that_was_meant(number, price):
    assert price == str(price_of(number))


def test_a_price_in_pence_is_a_hundredth_in_pounds():
    assert price_of(single(3412.5), 2) == Decimal("34.125")
    assert price_of(single(71.34), 2) == Decimal("0.7134")


@given(st.decimals("0.01", "99999.99", places=2))
def test_every_price_in_cents_survives_the_way_through_single_precision(price):
    assert price_of(single(float(price))) == price


@pytest.mark.parametrize(
    "number",
    [
        *(math.nan, math.inf, -math.inf, -143.73, 0, 0.0, -0.0, 1e12, 1e308, 4e-7, 5e-324, 10**400),
        *(None, True, "143.73", Decimal("143.73"), [143.73]),
    ],
)
def test_a_number_that_is_no_price_is_refused(number):
    with pytest.raises(NotAPrice, match="price"):
        price_of(number)


@given(st.floats() | st.integers())
def test_any_number_is_a_price_or_none(number):
    try:
        price = price_of(number)
    except NotAPrice:
        return

    assert 0 < price <= 10**12
    assert abs(price - Decimal(number)) <= max(Decimal("0.0000005"), Decimal(number) / 10**7)


def test_a_rejected_day_is_a_pair_of_day_and_reason():
    assert Rejected(TUESDAY, "'NaN' is not a price") == (TUESDAY, "'NaN' is not a price")
