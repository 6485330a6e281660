"""Reads the XML files of the ECB: the daily one and that of the last 90 days.

The form, which has not changed since 2002::

    <gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
                     xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
      <gesmes:subject>Reference rates</gesmes:subject>
      <gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender>
      <Cube>
        <Cube time="2026-10-30">
          <Cube currency="USD" rate="1.1172"/>
          ...

Whatever departs from it in a cube is refused, an unknown attribute included: other central banks know
a ``multiplier``, and to overlook one would be a rate wrong by a hundred.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import fromstring

from portfolio.rates.errors import BadAnswer
from portfolio.rates.sources.figures import read_currency, read_day, read_rate
from portfolio.rates.sources.protocol import Table

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ENVELOPE = "{http://www.gesmes.org/xml/2002-08-01}Envelope"
_CUBE = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}Cube"


def read_envelope(source: str, content: bytes) -> Table:
    """Return the days of an XML file of the ECB, every figure of it checked.

    Args:
        source: where it comes from, for the error.
        content: the file.

    Raises:
        BadAnswer: it is not well-formed, declares a DTD or entities, has another form, names a day or a
            currency twice, holds a figure that is no rate, or holds no rate at all.
    """
    try:
        # ValueError: a forbidden DTD or entity (DefusedXmlException), an encoding Python cannot feed to
        # expat. LookupError: an encoding nobody knows.
        envelope: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise BadAnswer(source, f"not XML of the ECB: {error}; it begins with {content[:60]!r}") from error
    if envelope.tag != _ENVELOPE:
        raise BadAnswer(source, f"not XML of the ECB: its root is {envelope.tag[:80]!r}")
    cubes = envelope.findall(_CUBE)
    if len(cubes) != 1:
        raise BadAnswer(source, f"one list of days was expected, there are {len(cubes)}")
    table: dict[date, dict[str, Decimal]] = {}
    for cube in cubes[0]:
        day = read_day(source, _attributes(source, cube, "time")[0])
        if day in table:
            raise BadAnswer(source, f"{day} is in it twice")
        table[day] = _rates(source, day, cube)
    if not table:
        raise BadAnswer(source, "there is no day in it")
    return table


def _rates(source: str, day: date, cube: Element) -> dict[str, Decimal]:
    rates: dict[str, Decimal] = {}
    for entry in cube:
        code, figure = _attributes(source, entry, "currency", "rate")
        currency = read_currency(source, code)
        if currency in rates:
            raise BadAnswer(source, f"{currency} is in it twice on {day}")
        rates[currency] = read_rate(source, figure)
    if not rates:
        raise BadAnswer(source, f"there is no rate in it for {day}")
    return rates


def _attributes(source: str, cube: Element, *names: str) -> list[str]:
    if cube.tag != _CUBE or set(cube.attrib) != set(names):
        found = " ".join([cube.tag, *cube.attrib])
        raise BadAnswer(source, f"a cube with {' and '.join(names)} was expected, there is {found[:120]!r}")
    return [cube.attrib[name] for name in names]
