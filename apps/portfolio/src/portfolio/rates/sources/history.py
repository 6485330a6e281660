"""Reads the history file of the ECB: a zip archive with one table, days down, currencies across.

::

    Date,USD,JPY,BGN,...,ZAR,
    2026-10-30,1.1172,175.68,N/A,...,18.6455,
    ...
    1999-01-04,1.1789,133.73,N/A,...,6.9358,

It has about 7,000 lines and 300,000 figures. Only the days are read at first; the figures of a day are
read, all of them, when that day is asked for. So a file costs some 40 ms and 3 MB.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal

from portfolio.rates.errors import BadAnswer
from portfolio.rates.sources.figures import read_currency, read_day, read_rate

MEMBER = "eurofxref-hist.csv"
"""The name of the table inside the archive."""

TABLE_LIMIT = 32 * 1024 * 1024
"""Largest table taken out of an archive, in bytes: 16 times that of 2026. A zip bomb ends here."""

_DAY_LENGTH = len("2026-10-30")
_NOT_PUBLISHED = "N/A"


class History(Mapping[date, Mapping[str, Decimal]]):
    """The rates of every published day, oldest first.

    Args:
        source: where the table comes from, for the errors.
        table: the content of the CSV file.

    Raises:
        BadAnswer: it is not a table of the ECB, is cut, or names a day or a currency twice.
    """

    def __init__(self, source: str, table: bytes) -> None:
        self._source = source
        if not table.endswith(b"\n"):
            raise BadAnswer(source, "the table is empty or cut: its last line has no end")
        header, *lines = table.splitlines()
        self._currencies = self._read_header(header)
        self._lines = dict(self._read_lines(header, lines))
        if not self._lines:
            raise BadAnswer(source, "there is no day in it")
        if len(self._lines) != len(lines):
            raise BadAnswer(source, "a day is in it twice")

    @classmethod
    def from_zip(cls, source: str, archive: bytes) -> History:
        """Return the history in a zip archive of the ECB.

        Args:
            source: where the archive comes from, for the errors.
            archive: the archive.

        Raises:
            BadAnswer: it is no such archive, is damaged, or would unpack to more than ``TABLE_LIMIT``.
        """
        return cls(source, _unpacked(source, archive))

    def __getitem__(self, day: date) -> Mapping[str, Decimal]:
        """Return the rates of one published day, all figures checked.

        Raises:
            KeyError: nothing was published for that day.
            BadAnswer: one of its figures is not a rate.
        """
        fields = _text(self._source, self._lines[day]).split(",")[1:]
        rates = {
            currency: read_rate(self._source, field)
            for currency, field in zip(self._currencies, fields, strict=False)
            if field != _NOT_PUBLISHED
        }
        if not rates:
            raise BadAnswer(self._source, f"there is no rate in it for {day}")
        return rates

    def __contains__(self, day: object) -> bool:
        return day in self._lines

    def __iter__(self) -> Iterator[date]:
        return iter(sorted(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def _read_header(self, header: bytes) -> tuple[str, ...]:
        first, *codes = _text(self._source, header).split(",")
        if codes and not codes[-1]:
            del codes[-1]
        if first != "Date" or not codes:
            raise BadAnswer(self._source, f"a table of rates was expected, it begins with {header[:60]!r}")
        currencies = tuple(read_currency(self._source, code) for code in codes)
        if len(set(currencies)) != len(currencies):
            raise BadAnswer(self._source, "a currency is in it twice")
        return currencies

    def _read_lines(self, header: bytes, lines: list[bytes]) -> Iterator[tuple[date, bytes]]:
        commas = header.count(b",")
        for number, line in enumerate(lines, start=2):
            day = read_day(self._source, _text(self._source, line[:_DAY_LENGTH]))
            if line.count(b",") != commas or line[_DAY_LENGTH : _DAY_LENGTH + 1] != b",":
                raise BadAnswer(self._source, f"line {number} has not as many fields as the header")
            yield day, line


def _unpacked(source: str, archive: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            member = opened.getinfo(MEMBER)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadAnswer(source, f"{MEMBER} is packed in an unexpected way")
            with opened.open(member) as packed:
                table = packed.read(TABLE_LIMIT + 1)
    # What zipfile and zlib raise on damaged archives, as found by feeding them such: besides their own
    # errors KeyError for a missing member, RuntimeError for a password, the others for wrong offsets.
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BadAnswer(
            source, f"not an archive with {MEMBER}: {error}; it begins with {archive[:60]!r}"
        ) from error
    if len(table) > TABLE_LIMIT:
        raise BadAnswer(source, f"{MEMBER} is larger than {TABLE_LIMIT} bytes")
    return table


def _text(source: str, content: bytes) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadAnswer(source, f"{content[:40]!r} is not plain text") from error
