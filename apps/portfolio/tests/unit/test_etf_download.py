"""The package yfinance itself, fed with answers in the form of Yahoo's; no request leaves the process.

There is no network here to record answers with. The one below has the form of a real answer for an ETF
(chart v8, 2026), with figures of the bundled history in single precision, as Yahoo sends them.
"""

import asyncio
import copy
import io
import json
import math
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from portfolio.etfs.errors import BadAnswer, SourceDown, SourceNotInstalled, UnknownEtf
from portfolio.etfs.sources import BundledPrices, EtfInfo, Rejected, YahooPrices
from portfolio.etfs.sources.download import YfinanceDownload, rows_of
from tasktrail import GiveUp

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:yfinance")

NO_EXTRA = "the optional dependency portfolio[yfinance] is not installed"

ANSWER = json.loads((Path(__file__).parent / "etf_answers" / "MTUM_2022-12.json").read_text())
START, END = date(2022, 12, 20), date(2022, 12, 28)


def error(code: str, description: str) -> bytes:
    return json.dumps(
        {"chart": {"result": None, "error": {"code": code, "description": description}}}
    ).encode()


NOT_FOUND = error("Not Found", "No data found, symbol may be delisted")
NO_QUOTE = b'{"quoteSummary":{"result":null,"error":{"code":"Not Found","description":"Quote not found"}}}'
HTML = b"<!DOCTYPE html><html><body>Sorry, you have been blocked</body></html>"

Reply = tuple[int, bytes] | Exception


def changed(change: Callable[[dict], object]) -> bytes:
    answer = copy.deepcopy(ANSWER)
    change(answer["chart"]["result"][0])
    return json.dumps(answer).encode()


GOOD = changed(lambda result: None)


def quote(result: dict) -> dict:
    return result["indicators"]["quote"][0]


def without_figures(result: dict) -> None:
    del result["timestamp"]
    result["indicators"] = {"quote": [{}], "adjclose": [{}]}


class Yahoo:
    """Plays Yahoo: one reply for questions with dates, one for those without."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dated: Reply = (200, GOOD)
        self.undated: Reply = (200, GOOD)
        self.zone: Reply | None = None

    def answer_all(self, reply: Reply) -> None:
        self.dated = self.undated = reply

    def reply(self, url: str) -> Reply:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if not path.startswith("/v8/finance/chart/"):
            return (404, NO_QUOTE) if "quoteSummary" in path else (200, b"crumb")
        self.asked.append(path.rpartition("/")[2] + (" dated" if "period1" in query else ""))
        if query.get("range") == ["1d"] and self.zone:
            return self.zone
        return self.dated if "period1" in query else self.undated


@pytest.fixture
def symbol(request) -> str:
    """Return a symbol of this test's own: yfinance remembers the time zone of those it has seen."""
    return f"T{zlib.crc32(request.node.name.encode())}"


@pytest.fixture
def yahoo(tmp_path: Path) -> Iterator[tuple[Yahoo, YfinanceDownload]]:
    requests = pytest.importorskip("requests", reason=NO_EXTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say while they are imported
        yfinance = pytest.importorskip("yfinance", reason=NO_EXTRA)
    yfinance.set_tz_cache_location(str(tmp_path))
    played = Yahoo()

    class Adapter(requests.adapters.BaseAdapter):
        def send(self, request, **options):
            reply = played.reply(request.url)
            if isinstance(reply, Exception):
                raise reply
            response = requests.Response()
            response.status_code, response.url, response.request = reply[0], request.url, request
            response.raw = io.BytesIO(reply[1])
            return response

        def close(self):
            pass

    with requests.Session() as session:
        session.mount("https://", Adapter())
        yield played, YfinanceDownload(session)


async def test_the_source_returns_what_yahoo_sent_as_exact_decimals(yahoo):
    played, ask = yahoo
    source = YahooPrices(ask)
    expected = await BundledPrices().fetch("MTUM", START, END)

    assert expected == await source.fetch("MTUM", START, END)
    assert await source.info("MTUM") == EtfInfo(
        "MTUM", "iShares MSCI USA Momentum Factor ETF", "USD", None, "XNYS", date(2013, 4, 18), None
    )
    assert played.asked[-2:] == ["MTUM dated", "MTUM"]


def test_the_closing_prices_are_those_that_were_paid_and_not_adjusted_for_dividends(yahoo, symbol):
    _, ask = yahoo

    rows = dict(ask(symbol, START, END).rows)

    result = ANSWER["chart"]["result"][0]
    adjusted = result["indicators"]["adjclose"][0]["adjclose"][-1]
    assert rows[END] == quote(result)["close"][-1] != adjusted


async def test_a_day_without_a_price_is_rejected_and_not_dropped(yahoo):
    played, ask = yahoo

    def without_last(result: dict) -> None:
        for column in quote(result).values():
            column[-1] = None
        result["indicators"]["adjclose"][0]["adjclose"][-1] = None

    played.dated = (200, changed(without_last))
    actual = await YahooPrices(ask).fetch("MTUM", START, END)

    assert actual.rejected == (Rejected(END, "'nan' is not a price"),)
    assert len(actual.prices) == 5


@pytest.mark.parametrize(
    "reply",
    [
        (200, changed(without_figures)),
        (400, error("Bad Request", "Data doesn't exist for startDate = 1671512400, endDate = 1672290000")),
    ],
    ids=["a weekend", "before the first day"],
)
def test_a_range_without_prices_is_empty_and_the_facts_are_asked_for(yahoo, symbol, reply):
    played, ask = yahoo
    played.dated = reply

    actual = ask(symbol, START, END)

    assert (list(actual.rows), actual.facts["currency"]) == ([], "USD")
    assert played.asked[-1] == symbol


@pytest.mark.parametrize("dates", [(START, END), (None, None)], ids=["prices", "facts"])
@pytest.mark.parametrize("lookups", [0, 1, 2])
def test_an_unknown_symbol_is_given_up_however_often_yfinance_looked_for_its_zone(
    yahoo, symbol, lookups, dates, monkeypatch
):
    played, ask = yahoo
    monkeypatch.setattr("yfinance.base._tz_info_fetch_ctr", lookups)
    played.answer_all((404, NOT_FOUND))

    with pytest.raises(UnknownEtf, match=f"Yahoo knows no ETF with the symbol {symbol}") as caught:
        ask(symbol, *dates)

    assert isinstance(caught.value, GiveUp)


def test_a_symbol_that_is_gone_is_given_up_though_its_zone_is_remembered(yahoo, symbol):
    played, ask = yahoo
    ask(symbol, START, END)
    played.answer_all((404, NOT_FOUND))

    with pytest.raises(UnknownEtf):
        ask(symbol, START, END)


BLOCKED = {
    "too many requests": (SourceDown, (429, b"Too Many Requests")),
    "down for maintenance": ((SourceDown, BadAnswer), (200, b"Will be right back...")),
    "no connection": (SourceDown, ConnectionError("refused")),
    "no answer in time": (SourceDown, TimeoutError("slow")),
    "a login page": (BadAnswer, (200, HTML)),
    "an empty body": (BadAnswer, (200, b"")),
    "an empty error": (BadAnswer, (500, b"")),
    "half an answer": (BadAnswer, (200, GOOD[: len(GOOD) // 2])),
    "an invalid crumb": (BadAnswer, (401, error("Unauthorized", "Invalid Crumb"))),
    "an empty object": (BadAnswer, (200, b"{}")),
    "a list": (BadAnswer, (200, b"[]")),
    "null": (BadAnswer, (200, b"null")),
    "no result": (BadAnswer, (200, b'{"chart":{"result":[],"error":null}}')),
    "no facts": (BadAnswer, (200, changed(lambda result: result["meta"].clear()))),
    "text for prices": (BadAnswer, (200, changed(lambda result: quote(result).update(close=["x"] * 7)))),
    "too few prices": (BadAnswer, (200, changed(lambda result: quote(result).update(close=[143.73])))),
    "no prices": (BadAnswer, (200, changed(lambda result: quote(result).pop("close")))),
}


@pytest.mark.parametrize("is_known", [True, False], ids=["zone remembered", "zone unknown"])
@pytest.mark.parametrize(("expected", "reply"), BLOCKED.values(), ids=BLOCKED.keys())
def test_an_answer_without_prices_is_worth_another_attempt_and_never_an_empty_range(
    yahoo, symbol, expected, reply, is_known, monkeypatch
):
    played, ask = yahoo
    monkeypatch.setattr("yfinance.base._tz_info_fetch_ctr", 2)
    if is_known:
        ask(symbol, START, END)
    played.answer_all(reply)

    with pytest.raises(expected, match=f"^Yahoo, {symbol}: .") as caught:
        ask(symbol, START, END)

    assert not isinstance(caught.value, GiveUp)
    assert caught.value.retry_after == (900.0 if reply == (429, b"Too Many Requests") else None)


def test_the_next_attempt_asks_again_instead_of_reading_a_bad_answer_that_was_kept(yahoo, symbol):
    played, ask = yahoo
    played.answer_all((200, HTML))
    with pytest.raises(BadAnswer):
        ask(symbol, START, END)
    played.answer_all((200, GOOD))

    assert len(ask(symbol, START, END).rows) == 7


def test_a_passing_fault_while_the_zone_is_asked_for_does_not_make_a_symbol_unknown(
    yahoo, symbol, monkeypatch
):
    played, ask = yahoo
    monkeypatch.setattr("yfinance.base._tz_info_fetch_ctr", 2)
    played.zone = (500, error("Internal Server Error", "try again"))

    with pytest.raises(BadAnswer, match="no timezone found"):
        ask(symbol, START, END)


def test_a_table_in_another_form_is_a_bad_answer(yahoo, symbol, monkeypatch):
    pandas = pytest.importorskip("pandas", reason=NO_EXTRA)
    _, ask = yahoo
    monkeypatch.setattr("yfinance.Ticker.history", lambda self, **question: pandas.DataFrame())

    with pytest.raises(BadAnswer, match=f"^Yahoo, {symbol}: there is no closing price in it, but nothing"):
        ask(symbol, START, END)


def test_a_missing_package_is_given_up_and_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "yfinance", None)

    with pytest.raises(SourceNotInstalled, match=r"install portfolio\[yfinance\]$") as caught:
        YfinanceDownload()("MTUM", START, END)

    assert isinstance(caught.value, GiveUp)


def test_the_source_can_be_made_without_the_package_and_fails_at_the_first_question(monkeypatch):
    monkeypatch.setitem(sys.modules, "yfinance", None)
    source = YahooPrices()

    with pytest.raises(SourceNotInstalled, match="the source yahoo needs the optional dependency yfinance"):
        asyncio.run(source.info("MTUM"))


def test_a_pandas_table_becomes_plain_rows():
    pandas = pytest.importorskip("pandas", reason=NO_EXTRA)
    times = pandas.DatetimeIndex(["2022-12-27", "2022-12-28"]).tz_localize("America/New_York")

    actual = rows_of("test", pandas.DataFrame({"Close": [145.443, None], "Volume": [1, 2]}, index=times))

    assert [day for day, _ in actual] == [date(2022, 12, 27), END]
    assert actual[0][1] == 145.443
    assert math.isnan(actual[1][1])


def test_a_table_of_something_else_is_a_bad_answer():
    pandas = pytest.importorskip("pandas", reason=NO_EXTRA)

    with pytest.raises(BadAnswer, match="there is no closing price in it, but Open, Volume"):
        rows_of("test", pandas.DataFrame({"Open": [1.0], "Volume": [1]}))
    with pytest.raises(BadAnswer, match="0 is not a time"):
        rows_of("test", pandas.DataFrame({"Close": [1.0]}))
    with pytest.raises(BadAnswer, match="NaT is not a time"):
        rows_of("test", pandas.DataFrame({"Close": [1.0]}, index=[pandas.NaT]))
