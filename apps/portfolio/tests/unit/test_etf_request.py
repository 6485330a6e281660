"""What an update may be asked for, and the words for what may not."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio.etfs.fields import check_isin
from portfolio.etfs.request import UpdateRequest, UpdateType, checked_request
from tasktrail import InvalidField

NOW = datetime(2022, 12, 28, 20, tzinfo=UTC)
TODAY = NOW.date()
TOMORROW = TODAY + timedelta(days=1)
GOOD = {"symbol": "MTUM", "update_type": "full", "start_date": date(2022, 1, 3), "end_date": TODAY}


@pytest.mark.parametrize("update_type", ["full", "prices_only", "info_only", "manual"])
def test_every_update_type_of_the_legacy_system_is_accepted(update_type):
    expected = UpdateRequest("MTUM", UpdateType(update_type), date(2022, 1, 3), TODAY)

    actual = checked_request("MTUM", update_type, date(2022, 1, 3), TODAY, now=NOW)

    assert expected == actual
    assert actual.update_type == update_type


@pytest.mark.parametrize(
    ("update_type", "wants_info", "wants_prices"),
    [("full", True, True), ("prices_only", False, True), ("info_only", True, False), ("manual", False, True)],
)
def test_an_update_type_says_what_is_fetched(update_type, wants_info, wants_prices):
    actual = UpdateType(update_type)

    assert (wants_info, wants_prices) == (actual.wants_info, actual.wants_prices)


@pytest.mark.parametrize(
    "accepted",
    [
        {"start_date": TODAY},
        {"start_date": date(1999, 1, 4), "end_date": date(1999, 1, 4)},
        {"symbol": "EUNL.DE"},
        {"symbol": "BRK-B"},
        {"symbol": "2823.HK"},
        {"symbol": "A" * 20},
    ],
)
def test_the_borders_of_what_makes_sense_are_accepted(accepted):
    checked_request(**GOOD | accepted, now=NOW)


@pytest.mark.parametrize(
    ("refused", "field", "reason"),
    [
        ({"symbol": ""}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "mtum"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": " MTUM"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "MTUM\n"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": ".DE"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "^GSPC"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "MTUM,QUAL"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "../MTUM"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "MTÜM"}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "A" * 21}, "symbol", "1 to 20 capital letters"),
        ({"symbol": None}, "symbol", "1 to 20 capital letters"),
        ({"symbol": "US46432F3964"}, "symbol", "this is an ISIN"),
        ({"update_type": "weekly"}, "update_type", "it is none of full, prices_only, info_only, manual"),
        ({"update_type": "FULL"}, "update_type", "it is none of"),
        ({"update_type": ""}, "update_type", "it is none of"),
        ({"update_type": None}, "update_type", "it is none of"),
        ({"update_type": ["full"]}, "update_type", "it is none of"),
        (
            {"start_date": TODAY, "end_date": date(2022, 12, 27)},
            "start_date",
            "it is after end_date 2022-12-27",
        ),
        ({"start_date": None}, "start_date", "a date without a time"),
        ({"end_date": None}, "end_date", "a date without a time"),
        ({"start_date": "2022-01-03"}, "start_date", "a date without a time"),
        ({"end_date": NOW}, "end_date", "a date without a time"),
        ({"start_date": date(1999, 1, 3)}, "start_date", "first exchange rates of the euro .* 1999-01-04"),
        ({"end_date": TOMORROW}, "end_date", "it is in the future: in UTC it is 2022-12-28"),
        ({"end_date": date.max}, "end_date", "it is in the future"),
        ({"start_date": TOMORROW, "end_date": TOMORROW}, "end_date", "it is in the future"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(refused, field, reason):
    with pytest.raises(InvalidField, match=f"^{field}: .*{reason}") as caught:
        checked_request(**GOOD | refused, now=NOW)

    assert field == caught.value.field
    assert caught.value.value == refused[field]


def test_today_is_the_day_in_utc_wherever_the_clock_hangs():
    in_kiritimati = datetime(2022, 12, 29, 9, tzinfo=timezone(timedelta(hours=14)))

    with pytest.raises(InvalidField, match="in UTC it is 2022-12-28"):
        checked_request(**GOOD | {"end_date": TOMORROW}, now=in_kiritimati)
    checked_request(**GOOD, now=in_kiritimati)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(InvalidField, match=r"^now: a time needs a time zone"):
        checked_request(**GOOD, now=datetime(2022, 12, 28, 20))  # noqa: DTZ001


ISINS = ["US46432F3964", "IE00B4L5Y983", "DE0007164600", "US0378331005", "AU0000XVGZA3"]


@pytest.mark.parametrize("isin", ISINS)
def test_a_real_isin_is_accepted(isin):
    check_isin(isin)


@pytest.mark.parametrize("isin", ISINS)
def test_an_isin_with_any_one_digit_wrong_is_refused(isin):
    for place, right in enumerate(isin):
        for wrong in "0123456789":
            if right.isdigit() and wrong != right:
                with pytest.raises(InvalidField, match=r"^isin: its check digit does not fit the rest"):
                    check_isin(isin[:place] + wrong + isin[place + 1 :])


@pytest.mark.parametrize("isin", ["", "MTUM", "us46432f3964", "US46432F396", "US46432F39644", "US46432F396Ä"])
def test_what_does_not_look_like_an_isin_is_refused(isin):
    with pytest.raises(InvalidField, match=r"^isin: an ISIN is a country's two letters"):
        check_isin(isin)


@given(st.text())
def test_any_text_is_a_symbol_or_an_invalid_field(text):
    try:
        request = checked_request(**GOOD | {"symbol": text}, now=NOW)
    except InvalidField as refused:
        field = refused.field
    else:
        field = None
        assert request.symbol.isascii()
        assert request.symbol == request.symbol.upper().strip()

    assert field in (None, "symbol")
