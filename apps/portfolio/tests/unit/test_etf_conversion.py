"""Prices in euro, on the real rates of the ECB."""

import decimal
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.etfs.conversion import (
    CENT,
    LARGEST,
    LONGEST_WAIT,
    PLACES,
    EurPrice,
    converted,
    eur_price,
    rate_day,
    rate_days,
    to_the_cent,
)
from portfolio.etfs.errors import MissingRate, PricesError
from portfolio.etfs.sources import BundledPrices, PriceSeries
from portfolio.rates.sources import BundledHistory
from tasktrail import GiveUp, InvalidField

EASTER_MONDAY = date(2014, 4, 21)
MAUNDY_THURSDAY = date(2014, 4, 17)


async def usd_rates(*days: date) -> dict[date, Decimal]:
    return {day: (await BundledHistory().fetch(day, ["USD"])).rates["USD"] for day in days}


def series(currency: str = "USD", **prices: str) -> PriceSeries:
    by_day = {date.fromisoformat(day.lstrip("d")): Decimal(price) for day, price in prices.items()}
    return PriceSeries("MTUM", currency, by_day)


# Worked out by hand, with the products that prove them:
# 1.3855 * 38.481415 = 53.3160004825, and one millionth less gives 53.3159990970: 53.316 lies between.
# 1.2171 * 62.563471 = 76.1460005541, and one millionth less gives 76.1459993370: 76.146 lies between.
# 1.0640 * 83.151316 = 88.4730002240, and one millionth less gives 88.4729991600: 88.473 lies between.
@pytest.mark.parametrize(
    ("symbol", "day", "usd", "rate", "of", "stored", "shown"),
    [
        ("MTUM", EASTER_MONDAY, "53.316", "1.3855", MAUNDY_THURSDAY, "38.481415", "38.48"),
        ("QUAL", date(2018, 3, 1), "76.146", "1.2171", date(2018, 3, 1), "62.563471", "62.56"),
        ("VLUE", date(2022, 12, 28), "88.473", "1.0640", date(2022, 12, 28), "83.151316", "83.15"),
    ],
)
async def test_a_price_in_euro_is_the_price_in_dollar_by_the_rate_of_that_day(
    symbol, day, usd, rate, of, stored, shown
):
    rates = await usd_rates(of)

    actual = converted(await BundledPrices().fetch(symbol, day, day), rates)

    assert rates == {of: Decimal(rate)}
    assert actual == {day: EurPrice(Decimal(stored), Decimal(usd), "USD", of)}
    assert (stored, shown) == (str(actual[day].price), str(to_the_cent(actual[day].price)))


async def test_the_examples_of_the_reference_are_what_the_bundled_data_give():
    page = (Path(__file__).parents[4] / "docs/reference/euro-prices.md").read_text(encoding="utf-8")
    examples = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in page.splitlines()
        if line.startswith("| MTUM")
    ]
    assert len(examples) == 2
    for what, usd, rate, stored, shown in examples:
        day = date.fromisoformat(what.split(", ")[1].partition(":")[0])
        rates = await usd_rates(rate_day(day))

        actual = converted(await BundledPrices().fetch("MTUM", day, day), rates)[day]

        assert (usd, rate) == (str(actual.original_price), str(rates[rate_day(day)]))
        assert (stored, shown) == (str(actual.price), str(to_the_cent(actual.price)))


async def test_the_whole_bundled_history_is_converted_and_rates_are_at_most_four_days_old():
    cents_apart = {}
    for symbol in BundledPrices().symbols():
        prices = await BundledPrices().fetch(symbol, date(2014, 1, 2), date(2022, 12, 28))
        rates = await usd_rates(*set(rate_days(prices.prices).values()))

        actual = converted(prices, rates)

        assert list(prices.prices) == list(actual)
        for day, price in actual.items():
            assert abs(price.price * rates[price.rate_day] - price.original_price) <= PLACES
            assert timedelta(0) <= day - price.rate_day <= timedelta(days=4)
            quotient = price.original_price / rates[price.rate_day]
            if quotient.quantize(CENT, ROUND_HALF_UP) != to_the_cent(price.price):
                cents_apart[symbol, day] = quotient

    # One price of 11,320 is a cent higher when it is taken from the stored price: the documented rule.
    assert len(cents_apart) == 1
    (quotient,) = cents_apart.values()
    assert Decimal("0.0049995") <= quotient % CENT < Decimal("0.005")


@pytest.mark.parametrize(
    ("day", "of", "reason"),
    [
        ("2022-12-28", "2022-12-28", "an ordinary day"),
        ("2014-04-21", "2014-04-17", "Easter Monday: Good Friday is a TARGET holiday too"),
        ("2014-12-26", "2014-12-24", "the day after Christmas"),
        ("2018-05-01", "2018-04-30", "Labour Day"),
        ("2022-12-25", "2022-12-23", "a Sunday"),
        ("1999-01-04", "1999-01-04", "the first day"),
    ],
)
def test_the_rate_of_a_day_without_publication_is_the_last_one_before_it(day, of, reason):
    assert date.fromisoformat(of) == rate_day(date.fromisoformat(day)), reason


def test_a_price_keeps_its_value_in_euro_and_needs_no_rate():
    actual = converted(series("EUR", d20140421="38.4814", d19980105="1"), {})

    assert actual == {
        EASTER_MONDAY: EurPrice(Decimal("38.481400"), Decimal("38.4814"), "EUR", None),
        date(1998, 1, 5): EurPrice(Decimal("1.000000"), Decimal(1), "EUR", None),
    }
    assert str(actual[EASTER_MONDAY].price) == "38.481400"


def test_a_rate_that_is_not_stored_yet_is_not_replaced_by_an_older_one():
    rates = {date(2022, 12, 27): Decimal("1.0624")}

    with pytest.raises(MissingRate, match=r"no exchange rate of USD is stored for 2022-12-28$") as caught:
        converted(series(d20221227="145.443", d20221228="143.73"), rates)

    assert (caught.value.currency, caught.value.days) == ("USD", (date(2022, 12, 28),))
    assert caught.value.retry_after is None
    assert isinstance(caught.value, PricesError)
    assert not isinstance(caught.value, GiveUp)


def test_all_missing_rates_are_named_at_once_each_publication_day_once():
    prices = series(d20140416="53.1", d20140417="53.3", d20140421="53.316", d20140422="53.9")

    with pytest.raises(MissingRate, match=r"stored for 2014-04-16 and 2 more days$") as caught:
        converted(prices, {})

    assert caught.value.days == (date(2014, 4, 16), MAUNDY_THURSDAY, date(2014, 4, 22))


def test_no_prices_need_no_rates():
    assert converted(series(), {}) == {}


@pytest.mark.parametrize(
    ("price", "rate", "stored"),
    [
        ("1", "3", "0.333333"),
        ("2", "3", "0.666667"),
        ("0.000001", "2", "0.000001"),
        ("0.000003", "2", "0.000002"),
        ("0.0000005", "1", "0.000001"),
        ("100", "0.000001", "100000000.000000"),
        (str(LARGEST), "1", str(LARGEST)),
    ],
)
def test_a_price_is_rounded_once_to_six_decimals_with_ties_away_from_zero(price, rate, stored):
    assert stored == str(eur_price(Decimal(price), Decimal(rate)))


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("38.485000", "38.49"),
        ("38.484999", "38.48"),
        ("38.475000", "38.48"),
        ("38.48", "38.48"),
        ("0.004", "0.00"),
    ],
)
def test_a_shown_price_is_rounded_to_the_cent_with_ties_away_from_zero(stored, shown):
    assert shown == str(to_the_cent(Decimal(stored)))


@pytest.mark.parametrize("bad", ["NaN", "sNaN", "Infinity", "-Infinity", "0", "-1.1"])
def test_what_is_no_positive_number_is_refused(bad):
    with pytest.raises(InvalidField, match=r"^price: a decimal number above zero is needed"):
        eur_price(Decimal(bad), Decimal(1))
    with pytest.raises(InvalidField, match=r"^rate: a decimal number above zero is needed"):
        eur_price(Decimal(1), Decimal(bad))
    with pytest.raises(InvalidField, match=r"^price: "):
        to_the_cent(Decimal(bad))


@pytest.mark.parametrize("bad", [1.1, 1, "1.1", None])
def test_a_number_of_another_kind_is_refused(bad):
    with pytest.raises(InvalidField, match=r"^price: a decimal number"):
        eur_price(bad, Decimal(1))
    with pytest.raises(InvalidField, match=r"^rate: a decimal number"):
        eur_price(Decimal(1), bad)


@pytest.mark.parametrize(
    ("price", "rate"), [("0.000001", "20000"), ("1e14", "1"), ("1", "1e-30"), ("1e80", "1"), ("1", "1e80")]
)
def test_a_price_that_cannot_be_stored_is_refused_and_never_becomes_zero(price, rate):
    with pytest.raises(InvalidField, match=r"^price: in EUR it is not from 0\.000001 to 99999999999999\."):
        eur_price(Decimal(price), Decimal(rate))


@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_a_series_with_a_bad_price_is_refused_as_a_whole(currency):
    with pytest.raises(InvalidField, match=r"^price: "):
        converted(series(currency, d20221228="NaN"), {date(2022, 12, 28): Decimal(1)})


def test_a_bad_rate_is_refused():
    with pytest.raises(InvalidField, match=r"^rate: "):
        converted(series(d20221228="143.73"), {date(2022, 12, 28): Decimal(0)})


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(1999, 1, 3), "the first exchange rates of the euro are those of 1999-01-04"),
        (date.min, "the first exchange rates"),
        (datetime(2022, 12, 28, tzinfo=UTC), "a date without a time"),
        ("2022-12-28", "a date without a time"),
    ],
)
def test_a_day_that_has_no_rates_is_refused(day, reason):
    with pytest.raises(InvalidField, match=f"^day: {reason}"):
        rate_day(day)


def test_a_silence_longer_than_the_ecb_ever_kept_is_refused(monkeypatch):
    monkeypatch.setattr("portfolio.etfs.conversion.why_nothing_is_published", lambda day: "silence")

    with pytest.raises(InvalidField, match=f"published nothing in the {LONGEST_WAIT} days before it"):
        rate_day(date(2022, 12, 28))


def test_the_context_of_the_caller_changes_nothing():
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_DOWN):
        assert eur_price(Decimal("53.316"), Decimal("1.3855")) == Decimal("38.481415")


prices = st.decimals("0.000001", "999999999999", places=6)
rates = st.decimals("0.01", "100000", places=6)


@given(prices, rates)
def test_a_stored_price_is_within_half_a_millionth_of_the_quotient(price, rate):
    with decimal.localcontext(prec=80):
        quotient = price / rate
        if not PLACES <= quotient <= LARGEST:
            return

        assert abs(eur_price(price, rate) - quotient) <= PLACES / 2
