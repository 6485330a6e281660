"""The Yahoo source, given answers in plain rows as the download hands them over; needs no extra.

The answer is the one of test_etf_download, which has the form of Yahoo's and figures of the bundled
history; that test feeds it to yfinance itself.
"""

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.etfs.errors import BadAnswer, PricesError, SourceDown, UnknownExchange
from portfolio.etfs.sources import BundledPrices, EtfInfo, PriceSeries, Rejected, YahooPrices
from portfolio.etfs.sources.download import Answer
from tasktrail import GiveUp, InvalidField

RESULT = json.loads((Path(__file__).parent / "etf_answers" / "MTUM_2022-12.json").read_text())["chart"][
    "result"
][0]
START, END = date(2022, 12, 19), date(2022, 12, 28)
TUESDAY = date(2022, 12, 27)
NEXT_MORNING = datetime(2022, 12, 29, 8, tzinfo=UTC)

GOOD = Answer(
    rows=[
        (datetime.fromtimestamp(time, UTC).date(), close)
        for time, close in zip(RESULT["timestamp"], RESULT["indicators"]["quote"][0]["close"], strict=True)
    ],
    facts={
        name: RESULT["meta"][name] for name in ("symbol", "currency", "exchangeName", "longName", "shortName")
    },
    first_day=date(2013, 4, 18),
)


def told(**facts: object) -> Answer:
    return replace(GOOD, facts=GOOD.facts | facts)


def yahoo(answer: Answer, now: datetime = NEXT_MORNING, **options) -> YahooPrices:
    return YahooPrices(lambda symbol, start, end: answer, clock=lambda: now, **options)


def row(day: date, price: object, **facts: object) -> Answer:
    return replace(told(**facts), rows=[(day, price)])


async def test_recorded_closing_prices_become_exact_decimals():
    bundled = await BundledPrices().fetch("MTUM", START, END)

    actual = await yahoo(GOOD).fetch("MTUM", START, END)

    assert bundled == actual
    assert [str(price) for price in actual.prices.values()][-2:] == ["145.443000", "143.730000"]


async def test_the_facts_come_from_the_same_answer_and_the_isin_is_not_said():
    expected = EtfInfo(
        "MTUM", "iShares MSCI USA Momentum Factor ETF", "USD", None, "XNYS", date(2013, 4, 18), None
    )

    assert expected == await yahoo(GOOD).info("MTUM")


async def test_the_short_name_stands_in_for_a_missing_long_one():
    assert (await yahoo(told(longName=None)).info("MTUM")).name == "iShares MSCI USA Momentum Facto"


async def test_the_question_is_handed_on_and_asked_in_another_thread():
    asked = []

    def download(symbol, start, end):
        asked.append((symbol, start, end, threading.current_thread() is threading.main_thread()))
        return GOOD

    source = YahooPrices(download)
    await source.fetch("MTUM", START, END)
    await source.info("MTUM")

    assert asked == [("MTUM", START, END, False), ("MTUM", None, None, False)]


@pytest.mark.parametrize("figure", [nan, inf, -inf, -143.73, 0.0, -0.0, 1e300, None, "143.73", "<td>", True])
async def test_a_figure_that_is_no_price_is_a_rejected_day(figure):
    actual = await yahoo(replace(GOOD, rows=[*GOOD.rows[:-1], (END, figure)])).fetch("MTUM", TUESDAY, END)

    ((day, reason),) = actual.rejected
    assert actual.prices == {TUESDAY: Decimal("145.443")}
    assert day == END
    assert "price" in reason


async def test_the_price_of_a_day_that_is_not_over_is_rejected_until_it_is_final():
    before = datetime(2022, 12, 28, 21, 29, tzinfo=UTC)
    after = datetime(2022, 12, 28, 21, 30, tzinfo=UTC)

    early = await yahoo(GOOD, before).fetch("MTUM", END, END)
    late = await yahoo(GOOD, after).fetch("MTUM", END, END)

    assert early == PriceSeries(
        "MTUM", "USD", {}, (Rejected(END, "the price is not final before 2022-12-28 21:30 UTC"),)
    )
    assert late == PriceSeries("MTUM", "USD", {END: Decimal("143.73")})


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(2022, 12, 26), "2022-12-26 is Christmas Day (observed), a holiday of XNYS"),
        (date(2022, 12, 24), "2022-12-24 is a Saturday"),
    ],
)
async def test_a_price_of_a_day_without_trading_is_rejected(day, reason):
    actual = await yahoo(row(day, 145.0)).fetch("MTUM", START, END)

    assert PriceSeries("MTUM", "USD", {}, (Rejected(day, reason),)) == actual


async def test_a_holiday_is_not_guessed_before_the_calendar_is_known():
    christmas = date(2015, 12, 25)

    actual = await yahoo(row(christmas, 30.5, exchangeName="GER")).fetch("MTUM", christmas, christmas)

    assert actual.prices == {christmas: Decimal("30.5")}


async def test_rows_outside_the_range_are_left_out():
    actual = await yahoo(GOOD).fetch("MTUM", date(2022, 12, 21), date(2022, 12, 23))

    assert [day.day for day in actual.prices] == [21, 22, 23]
    assert actual.rejected == ()


async def test_rows_in_any_order_come_out_oldest_first():
    actual = await yahoo(replace(GOOD, rows=GOOD.rows[::-1])).fetch("MTUM", START, END)

    assert list(actual.prices) == sorted(actual.prices)


async def test_a_day_with_two_prices_is_rejected_and_one_said_twice_is_not():
    twice = replace(GOOD, rows=[(END, 143.73), (END, 143.72999572753906), (TUESDAY, 1.0), (TUESDAY, 2.0)])

    actual = await yahoo(twice).fetch("MTUM", START, END)

    assert actual.prices == {END: Decimal("143.73")}
    assert actual.rejected == (Rejected(TUESDAY, "there are several prices"),)


async def test_a_range_without_rows_has_no_prices():
    assert PriceSeries("MTUM", "USD", {}) == await yahoo(replace(GOOD, rows=())).fetch("MTUM", START, END)


@pytest.mark.parametrize(
    ("said", "currency", "price"),
    [("GBp", "GBP", "34.125"), ("ZAc", "ZAR", "34.125"), ("ILA", "ILS", "34.125"), ("GBP", "GBP", "3412.5")],
)
async def test_prices_in_pence_are_prices_in_pounds_by_a_hundred(said, currency, price):
    source = yahoo(row(END, 3412.5, currency=said, exchangeName="LSE"))

    actual = await source.fetch("MTUM", START, END)

    assert (currency, {END: Decimal(price)}) == (actual.currency, actual.prices)
    assert (await source.info("MTUM")).currency == currency


@pytest.mark.parametrize(
    ("exchange", "calendar"),
    [("BTS", "XNYS"), ("PCX", "XNYS"), ("NMS", "XNYS"), ("GER", "XETR"), ("LSE", "XLON"), ("EBS", "XSWX")],
)
async def test_the_exchange_decides_the_calendar(exchange, calendar):
    assert (await yahoo(told(exchangeName=exchange)).info("MTUM")).calendar == calendar


@pytest.mark.parametrize("exchange", ["STO", "", None, ["PCX"]])
async def test_an_exchange_without_a_known_calendar_is_given_up(exchange):
    source = yahoo(told(exchangeName=exchange))

    for ask in (source.fetch("MTUM", START, END), source.info("MTUM")):
        with pytest.raises(
            UnknownExchange, match=r"MTUM is quoted on .* whose calendar is not known"
        ) as caught:
            await ask

        assert isinstance(caught.value, GiveUp)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"symbol": "QUAL"}, "the answer is about 'QUAL'"),
        ({"symbol": None}, "the answer is about None"),
        ({"currency": None}, "it does not say the currency"),
        ({"currency": 7}, "it does not say the currency"),
        ({"currency": "usd"}, "'usd' is not a currency"),
        ({"currency": "<html>"}, "'<html>' is not a currency"),
    ],
)
async def test_an_answer_without_the_facts_a_price_needs_is_a_bad_answer(facts, reason):
    source = yahoo(told(**facts))

    for ask in (source.fetch("MTUM", START, END), source.info("MTUM")):
        with pytest.raises(BadAnswer, match=f"^Yahoo, MTUM: {reason}"):
            await ask


@pytest.mark.parametrize(
    "names", [{"longName": None, "shortName": None}, {"longName": 7}, {"longName": [""]}]
)
async def test_an_answer_without_a_name_is_a_bad_answer(names):
    with pytest.raises(BadAnswer, match="it does not say the name"):
        await yahoo(told(**names)).info("MTUM")


async def test_an_empty_answer_is_a_bad_answer():
    with pytest.raises(BadAnswer, match="the answer is about None"):
        await yahoo(Answer()).fetch("MTUM", START, END)


async def test_a_download_that_hangs_is_a_source_that_is_down():
    released = threading.Event()
    source = YahooPrices(lambda symbol, start, end: released.wait(60), deadline=0.05)

    try:
        with pytest.raises(SourceDown, match=r"^Yahoo, MTUM: not answered within 0\.05 s"):
            await source.fetch("MTUM", START, END)
    finally:
        released.set()
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize(
    "error", [SourceDown("Yahoo, MTUM", "HTTP 503", 900.0), BadAnswer("Yahoo, MTUM", "html")]
)
async def test_an_error_of_the_download_reaches_the_caller(error):
    def download(symbol, start, end):
        raise error

    with pytest.raises(PricesError) as caught:
        await YahooPrices(download).fetch("MTUM", START, END)

    assert caught.value is error


async def test_without_a_given_clock_the_time_is_now():
    source = YahooPrices(lambda symbol, start, end: row(date(2099, 1, 5), 1.0))

    actual = await source.fetch("MTUM", date(2099, 1, 1), date(2099, 1, 31))

    assert actual.prices == {}
    assert "not final before 2099-01-05 21:30 UTC" in actual.rejected[0].reason


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
rows = st.lists(st.tuples(st.dates(), anything) | st.tuples(st.dates(START, END), st.floats()))
facts = st.dictionaries(st.sampled_from(sorted(GOOD.facts)), anything)


@given(rows, st.just({}) | facts)
def test_any_answer_is_plausible_prices_or_a_typed_error(rows, facts):
    source = yahoo(replace(told(**facts), rows=rows))
    try:
        actual = asyncio.run(source.fetch("MTUM", START, END))
        asyncio.run(source.info("MTUM"))
    except (PricesError, InvalidField):
        return

    assert all(START <= day <= END and day.weekday() < 5 for day in actual.prices)
    assert all(price.is_finite() and price > 0 for price in actual.prices.values())
    assert not {day for day, _ in actual.rejected} & set(actual.prices)
