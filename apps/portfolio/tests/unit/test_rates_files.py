"""The files of the ECB: what is read from good ones, and that no bad one becomes a wrong rate."""

import io
import zipfile
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio.rates.errors import BadAnswer
from portfolio.rates.sources import history
from portfolio.rates.sources.envelope import read_envelope
from portfolio.rates.sources.history import History

FRIDAY = date(2026, 10, 30)
THURSDAY = date(2026, 10, 29)


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


def table(*lines: str, header: str = "Date,USD,JPY,CYP,") -> bytes:
    return "\n".join([header, *lines, ""]).encode()


def archive(content: bytes, member: str = history.MEMBER, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as opened:
        opened.writestr(member, content)
    return packed.getvalue()


GOOD_XML = envelope(cube(FRIDAY, USD="1.1172", JPY="175.68"))
GOOD_TABLE = table("2026-10-30,1.1172,175.68,N/A,", "2026-10-29,1.113,175.92,N/A,")
GOOD_ZIP = archive(GOOD_TABLE)


def test_an_envelope_holds_the_rates_of_its_days():
    expected = {
        FRIDAY: {"USD": Decimal("1.1172"), "IDR": Decimal("20275.170")},
        THURSDAY: {"USD": Decimal("1.113")},
    }

    actual = read_envelope(
        "test", envelope(cube(FRIDAY, USD="1.1172", IDR="20275.170"), cube(THURSDAY, USD="1.113"))
    )

    assert expected == actual
    assert str(actual[FRIDAY]["IDR"]) == "20275.170"


def test_a_history_holds_the_rates_of_its_days_oldest_first():
    actual = History.from_zip("test", GOOD_ZIP)

    assert list(actual) == [THURSDAY, FRIDAY]
    assert actual[FRIDAY] == {"USD": Decimal("1.1172"), "JPY": Decimal("175.68")}


def test_a_table_with_windows_line_ends_and_no_last_comma_is_read_too():
    actual = History("test", b"Date,USD,JPY\r\n2026-10-30,1.1172,N/A\r\n")

    assert {FRIDAY: {"USD": Decimal("1.1172")}} == dict(actual)


def test_a_day_that_is_not_in_a_history_is_a_missing_key():
    with pytest.raises(KeyError):
        History("test", GOOD_TABLE)[date(2026, 10, 28)]


ONE_DAY = cube(FRIDAY, USD="1.1172")

BAD_XML = {
    "empty": b"",
    "blank": b"  \n",
    "garbage": b"\x00\xff\xfe garbage",
    "html": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "xhtml": b"<html xmlns='http://www.w3.org/1999/xhtml'><body/></html>",
    "json": b'{"USD": 1.1}',
    "the zip": GOOD_ZIP,
    "half": GOOD_XML[: len(GOOD_XML) // 2],
    "cut at the end": GOOD_XML[:-1],
    "two documents": GOOD_XML + GOOD_XML,
    "entity bomb": GOOD_XML.replace(b"<gesmes:Env", b'<!DOCTYPE a [<!ENTITY b "bb">]><gesmes:Env', 1),
    "external entity": GOOD_XML.replace(
        b"<gesmes:Env", b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><gesmes:Env", 1
    ),
    "unknown encoding": GOOD_XML.replace(b"UTF-8", b"EBCDIC-?", 1),
    "multi-byte encoding": GOOD_XML.replace(b"UTF-8", b"shift_jis", 1),
    "other namespace": GOOD_XML.replace(b"eurofxref", b"usdfxref"),
    "no list": GOOD_XML.replace(b"Cube>", b"Tube>"),
    "two lists": GOOD_XML.replace(b"</gesmes:Envelope>", b"<Cube/></gesmes:Envelope>"),
    "no day": envelope(),
    "no rate": envelope(cube(FRIDAY)),
    "a day without rates": envelope(ONE_DAY, cube(THURSDAY)),
    "duplicate day": envelope(ONE_DAY, ONE_DAY),
    "duplicate currency": envelope(ONE_DAY.replace("</Cube>", "<Cube currency='USD' rate='2'/></Cube>")),
    "no such day": envelope(cube("2026-02-30", USD="1")),
    "day of week form": envelope(cube("2026-W44-5", USD="1")),
    "compact day": envelope(cube("20261030", USD="1")),
    "day with time": envelope(cube("2026-10-30T16:00", USD="1")),
    "base as target": envelope(cube(FRIDAY, EUR="1")),
    "lower case": envelope(cube(FRIDAY, usd="1")),
    "multiplier": GOOD_XML.replace(b"rate=", b"multiplier='100' rate=", 1),
    "missing rate": GOOD_XML.replace(b" rate='175.68'", b""),
    "missing time": GOOD_XML.replace(b" time='2026-10-30'", b""),
    "other element": GOOD_XML.replace(b"<Cube currency='JPY'", b"<Rate currency='JPY'"),
    "bad rate of another currency": envelope(cube(FRIDAY, USD="1.1172", JPY="NaN")),
    "bad rate of another day": envelope(ONE_DAY, cube(THURSDAY, USD="NaN")),
} | {
    f"rate {rate!r}": envelope(cube(FRIDAY, USD=rate))
    for rate in (
        *("NaN", "sNaN", "Infinity", "-1.1", "+1.1", "0", "0.0000", "", " ", " 1.1", "1.1 ", "1e5", "1_000"),
        *("1,1", "1.", ".5", "1.1.1", "\u0661.\u0661", "0x10", "N/A", "1" * 13, "1." + "1" * 7),
    )
}


@pytest.mark.parametrize("content", BAD_XML.values(), ids=BAD_XML.keys())
def test_xml_that_is_no_list_of_rates_is_a_bad_answer(content):
    with pytest.raises(BadAnswer, match=r"^the daily file: ."):
        read_envelope("the daily file", content)


BAD_TABLES = {
    "empty": b"",
    "one newline": b"\n",
    "only the header": table(),
    "html": b"<html>\n<body>\n",
    "cut in a figure": GOOD_TABLE[:-4],
    "cut in a line": GOOD_TABLE[:-8] + b"\n",
    "one field too many": table("2026-10-30,1.1172,175.68,N/A,,"),
    "other header": table("2026-10-30,1.1172,175.68,N/A,", header="Day,USD,JPY,CYP,"),
    "no currency": table("2026-10-30,", header="Date,"),
    "currency twice": table("2026-10-30,1,1,1,", header="Date,USD,JPY,USD,"),
    "base as target": table("2026-10-30,1,1,1,", header="Date,USD,EUR,CYP,"),
    "gap in the header": table("2026-10-30,1,1,1,", header="Date,USD,,CYP,"),
    "day twice": table("2026-10-30,1,1,1,", "2026-10-30,1,1,1,"),
    "no such day": table("2026-10-30,1,1,1,", "2026-02-30,1,1,1,"),
    "blank line": table("2026-10-30,1,1,1,", ""),
    "longer day": table("2026-10-301,1,1,1,"),
    "no ASCII": table("2026-10-30,1,ä,1,"),
    "no ASCII in the header": table("2026-10-30,1,1,1,", header="Date,USD,JPY,CÜP,"),
    "no rate at all": table("2026-10-30,N/A,N/A,N/A,"),
    "NaN": table("2026-10-30,NaN,1,1,"),
    "negative": table("2026-10-30,-1.1,1,1,"),
    "zero": table("2026-10-30,0,1,1,"),
    "empty figure": table("2026-10-30,1,,1,"),
    "bad rate of another currency": table("2026-10-30,1,inf,1,"),
}

BAD_ARCHIVES = {f"table: {name}": archive(content) for name, content in BAD_TABLES.items()} | {
    "garbage": b"garbage",
    "the xml": GOOD_XML,
    "the bare table": GOOD_TABLE,
    "half": GOOD_ZIP[: len(GOOD_ZIP) // 2],
    "cut at the end": GOOD_ZIP[:-1],
    "flipped bits": GOOD_ZIP.replace(GOOD_ZIP[60:64], b"\xff\xff\xff\xff"),
    "other member": archive(GOOD_TABLE, "readme.txt"),
    "other packing": archive(GOOD_TABLE, compression=zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("content", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES.keys())
def test_an_archive_that_holds_no_rates_is_a_bad_answer(content):
    with pytest.raises(BadAnswer, match=r"^the history: ."):
        History.from_zip("the history", content)[FRIDAY]


def test_a_zip_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(history, "TABLE_LIMIT", 1000)

    with pytest.raises(BadAnswer, match=r"eurofxref-hist\.csv is larger than 1000 bytes"):
        History.from_zip("test", archive(b"0" * 1001))


def outcome(read) -> object:
    """Return what came out, and fail on any error but a bad answer."""
    try:
        rates = read()
        return {day: rates[day] for day in rates}
    except BadAnswer as error:
        return str(error)


@st.composite
def damaged(draw, original: bytes) -> bytes:
    start = draw(st.integers(0, len(original)))
    end = draw(st.integers(start, min(len(original), start + 40)))
    return original[:start] + draw(st.binary(max_size=40)) + original[end:]


def is_bad_or_plausible(result: object) -> bool:
    if isinstance(result, str):
        return True
    rates = [rate for row in result.values() for rate in row.values()]
    return bool(rates) and all(isinstance(rate, Decimal) and rate.is_finite() and rate > 0 for rate in rates)


@settings(deadline=None)
@given(st.binary() | damaged(GOOD_XML))
def test_any_bytes_are_an_envelope_or_a_bad_answer(content):
    assert is_bad_or_plausible(outcome(lambda: read_envelope("test", content)))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_as_a_rate_is_a_plain_number_or_a_bad_answer(text):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")

    assert is_bad_or_plausible(outcome(lambda: read_envelope("test", envelope(cube(FRIDAY, USD=escaped)))))


@settings(deadline=None)
@given(st.binary() | damaged(GOOD_TABLE))
def test_any_bytes_are_a_table_or_a_bad_answer(content):
    assert is_bad_or_plausible(outcome(lambda: History("test", content)))


@settings(deadline=None, max_examples=300)
@given(st.binary() | damaged(GOOD_ZIP))
def test_any_bytes_are_an_archive_or_a_bad_answer(content):
    assert is_bad_or_plausible(outcome(lambda: History.from_zip("test", content)))


@given(st.decimals(min_value=Decimal("0.000001"), max_value=Decimal(10**9), places=6))
def test_a_rate_keeps_every_digit(rate):
    in_xml = read_envelope("test", envelope(cube(FRIDAY, USD=f"{rate:f}")))[FRIDAY]["USD"]
    in_table = History("test", table(f"2026-10-30,{rate:f},1,N/A,"))[FRIDAY]["USD"]

    assert f"{rate:f}" == f"{in_xml:f}" == f"{in_table:f}"
