"""What an answer is worth: nothing is stored that is not plainly the price of a day that was asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from portfolio.etfs.errors import BadAnswer
from portfolio.etfs.findings import Findings, examined
from portfolio.etfs.request import UpdateRequest, UpdateType
from portfolio.etfs.sources import EtfInfo, PriceSeries, Rejected

NOW = datetime(2022, 12, 29, 22, tzinfo=UTC)
INFO = EtfInfo("MTUM", "iShares", "USD", None, "XNYS")
MONDAY, TUESDAY, WEDNESDAY = (date(2022, 12, day) for day in (19, 20, 21))
REQUEST = UpdateRequest("MTUM", UpdateType.PRICES_ONLY, MONDAY, WEDNESDAY)
SERIES = PriceSeries("MTUM", "USD", dict.fromkeys((MONDAY, TUESDAY, WEDNESDAY), Decimal("143.166")))


def look(
    series: Any = SERIES, info: EtfInfo = INFO, request: UpdateRequest = REQUEST, now: datetime = NOW
) -> Findings:
    return examined(series, info, request, source="bundled", now=now)


def with_price(day: date, price: Any) -> PriceSeries:
    return replace(SERIES, prices={**SERIES.prices, day: price})


def test_a_clean_answer_is_taken_as_it_is() -> None:
    assert look() == Findings(SERIES, (), None)


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        (Decimal("NaN"), "NaN is not a price"),
        (Decimal("sNaN"), "sNaN is not a price"),
        (Decimal("Infinity"), "Infinity is not a price"),
        (Decimal("-143.166"), "-143.166 is not a price"),
        (Decimal(0), "0 is not a price"),
        (Decimal("-0"), "-0 is not a price"),
        (Decimal("1e30"), "1E+30 is not a price"),
        (Decimal("1e-7"), "1E-7 is not a price"),
        (Decimal("143.1661234"), "143.1661234 has too many decimals"),
        (143.166, "143.166 is not a price"),
        ("143.166", "143.166 is not a price"),
        (float("nan"), "nan is not a price"),
        (None, "None is not a price"),
        (True, "True is not a price"),
        ("<html>" + 100 * "x", "<html>" + 34 * "x" + " is not a price"),
    ],
)
def test_a_figure_that_is_no_price_is_rejected_and_its_day_is_missing(price: Any, reason: str) -> None:
    found = look(with_price(TUESDAY, price))

    assert found.series.rejected == (Rejected(TUESDAY, reason),)
    assert set(found.series.prices) == {MONDAY, WEDNESDAY}
    assert (found.missing, found.notes) == ((TUESDAY,), f"rejected {TUESDAY}: {reason}")


@pytest.mark.parametrize("price", ["0.000001", "99999999999999.999999", "143", "1.4E+2"])
def test_every_number_that_the_column_holds_is_a_price(price: str) -> None:
    assert look(with_price(TUESDAY, Decimal(price))).series.prices[TUESDAY] == Decimal(price)


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(2022, 12, 16), "nobody asked for that day"),
        (date(2022, 12, 22), "nobody asked for that day"),
        (date(2030, 1, 2), "nobody asked for that day"),
    ],
)
def test_a_day_outside_the_range_is_rejected_and_not_missing(day: date, reason: str) -> None:
    found = look(with_price(day, Decimal(1)))

    assert (found.series.prices, found.missing) == (SERIES.prices, ())
    assert found.notes == f"rejected {day}: {reason}"


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(2022, 12, 24), "2022-12-24 is a Saturday"),
        (date(2022, 12, 26), "2022-12-26 is Christmas Day (observed), a holiday of XNYS"),
    ],
)
def test_a_price_of_a_day_on_which_the_exchange_was_closed_is_rejected(day: date, reason: str) -> None:
    found = look(with_price(day, Decimal(1)), request=replace(REQUEST, end_date=date(2022, 12, 26)))

    assert day not in found.series.prices
    assert found.notes == f"rejected {day}: {reason}"
    assert found.missing == (date(2022, 12, 22), date(2022, 12, 23))


@pytest.mark.parametrize(("hour", "final"), [(21, False), (22, True)])
def test_a_price_is_taken_once_it_is_final(hour: int, final: bool) -> None:
    found = look(now=datetime(2022, 12, 21, hour, tzinfo=UTC))

    assert (WEDNESDAY in found.series.prices) is final
    assert (found.missing, found.notes) == (
        (),
        None if final else f"rejected {WEDNESDAY}: the price is not final yet",
    )


@pytest.mark.parametrize(
    ("first_day", "last_day", "missing", "notes"),
    [
        (None, None, (MONDAY, TUESDAY, WEDNESDAY), None),
        (TUESDAY, None, (TUESDAY, WEDNESDAY), f"bundled has no prices before {TUESDAY}"),
        (None, TUESDAY, (MONDAY, TUESDAY), f"bundled has no prices after {TUESDAY}"),
        (
            WEDNESDAY,
            MONDAY,
            (),
            f"bundled has no prices before {WEDNESDAY}; bundled has no prices after {MONDAY}",
        ),
        (date(1999, 1, 1), date(2099, 1, 1), (MONDAY, TUESDAY, WEDNESDAY), None),
    ],
)
def test_only_days_that_the_source_can_have_are_missing(
    first_day: date | None, last_day: date | None, missing: tuple[date, ...], notes: str | None
) -> None:
    found = look(replace(SERIES, prices={}), replace(INFO, first_day=first_day, last_day=last_day))

    assert (found.missing, found.notes) == (missing, notes)


def test_what_the_source_rejected_is_noted_in_order_with_the_rest() -> None:
    series = replace(with_price(MONDAY, Decimal(0)), rejected=(Rejected(TUESDAY, "'x' is not a price"),))
    del series.prices[TUESDAY]  # type: ignore[attr-defined]

    assert look(series).notes == (
        f"rejected {MONDAY}: 0 is not a price; rejected {TUESDAY}: 'x' is not a price"
    )


def test_the_notes_name_ten_rejected_days_and_count_the_rest() -> None:
    rejected = tuple(Rejected(date(2022, 12, day), "no price") for day in range(1, 14))
    notes = look(replace(SERIES, rejected=rejected)).notes

    assert notes is not None
    assert notes.count("no price") == 10
    assert notes.endswith("; rejected 3 more")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("<html>", "a series of prices was expected, it is of type str"),
        (None, "a series of prices was expected, it is of type NoneType"),
        (replace(SERIES, symbol="QUAL"), "the answer is about 'QUAL'"),
        (replace(SERIES, currency="dollars"), "'dollars' is not a currency"),
        (replace(SERIES, currency="usd"), "'usd' is not a currency"),
        (replace(SERIES, currency=None), "None is not a currency"),  # type: ignore[arg-type]
        (replace(SERIES, currency="CHF"), "its prices are in CHF, its facts say USD"),
        (replace(SERIES, prices={"2022-12-20": Decimal(1)}), "'2022-12-20' is not a day"),  # type: ignore[dict-item]
        (replace(SERIES, prices={datetime(2022, 12, 20, tzinfo=UTC): Decimal(1)}), "is not a day"),
    ],
)
def test_an_answer_that_is_nonsense_as_a_whole_is_refused(answer: Any, error: str) -> None:
    with pytest.raises(BadAnswer) as refused:
        look(answer)

    assert str(refused.value).startswith("bundled, MTUM: ")
    assert error in str(refused.value)
