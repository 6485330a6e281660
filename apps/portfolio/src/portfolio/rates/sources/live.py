"""The European Central Bank itself, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import httpx

from portfolio.rates.calendar import (
    FIRST_DAY,
    check_day,
    is_in_the_future,
    newest_published_day,
    publication_time,
    today,
    why_nothing_is_published,
)
from portfolio.rates.errors import BadAnswer, DayInTheFuture, NothingPublished, NotYetPublished, SourceDown
from portfolio.rates.sources.envelope import read_envelope
from portfolio.rates.sources.history import History
from portfolio.rates.sources.protocol import DailyRates, Table, checked_currencies, selected
from portfolio.rates.sources.retry_after import retry_after_seconds
from tasktrail import InvalidField

ECB_URL = "https://www.ecb.europa.eu/stats/eurofxref/"

TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=10.0, pool=5.0)
"""Longest silence in each phase of a request, in seconds."""

DEADLINE = 60.0
"""Longest time for one file as a whole, in seconds: a server that drips never falls silent."""

AFTER_PUBLICATION = 300.0
"""How long after the usual time of publication to ask again, in seconds: it is "around" 16:00."""

WHILE_LATE = 900.0
"""How long to wait, in seconds, when the usual time has passed and the rates are not there."""

HISTORY_KEPT = timedelta(hours=1)
"""How long a downloaded history answers further days. Its days are 90 days old and do not change."""

_RETRYABLE_STATUS = frozenset({408, 425, 429})
_NINETY_DAYS = 90
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class _EcbFile:
    name: str
    limit: int
    """Largest answer taken, in bytes: more than ten times the size of 2026."""
    read: Callable[[str, bytes], Table]


_DAILY = _EcbFile("eurofxref-daily.xml", 1024 * 1024, read_envelope)
_LAST_90_DAYS = _EcbFile("eurofxref-hist-90d.xml", 1024 * 1024, read_envelope)
_HISTORY = _EcbFile("eurofxref-hist.zip", 16 * 1024 * 1024, History.from_zip)
_NARROW_TO_WIDE = (_DAILY, _LAST_90_DAYS, _HISTORY)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LiveEcb:
    """Asks the ECB's own files, the smallest one first that can hold the day.

    They are 2 kB for the newest day, 90 kB for the last 90 days and 650 kB for all since 1999. Nearly every
    call is for the newest day, so the choice saves the ECB and the worker most of the bytes. It is only a
    guess at what a file holds: where a file turns out to begin after the day, the next larger one is asked.
    The largest is kept for an hour, since who asks for one old day is filling gaps and asks for hundreds.

    A connection is opened per call: one call a day needs no pool, and nothing is left to share across
    a fork.

    Args:
        base_url: the folder of the files. Redirects are not followed: a portal's login page is no rate.
        timeout: longest silence in each phase of a request, in seconds.
        deadline: longest time for one file as a whole, in seconds.
        clock: returns the time, with a time zone.

    Raises:
        InvalidField: ``base_url`` is no http or https address, or holds a user name or a password, which
            would end up in error messages.
    """

    name = "ecb-live"

    def __init__(
        self,
        base_url: str = ECB_URL,
        *,
        timeout: httpx.Timeout = TIMEOUT,
        deadline: float = DEADLINE,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._folder = _checked_url(base_url)
        self._timeout = timeout
        self._deadline = deadline
        self._clock = clock
        self._history: tuple[datetime, Table] | None = None

    async def fetch(self, day: date, currencies: Collection[str]) -> DailyRates:
        """Return the rates of one day.

        Args:
            day: the day for which the rates were published.
            currencies: codes of three capital letters, at least one, without EUR.

        Raises:
            InvalidField: ``day`` or ``currencies`` is not acceptable; the ECB is not asked.
            NothingPublished: a weekend, a TARGET holiday, before 1999-01-04 (the ECB is not asked), or a
                day that the ECB's list skips.
            DayInTheFuture: the day is past tomorrow; the ECB is not asked.
            NotYetPublished: the day is today or tomorrow and not out yet.
            SourceDown: no connection, no answer in time, or HTTP 5xx, 408, 425 or 429.
            BadAnswer: anything else but rates. Among it any other HTTP status: the files have had the same
                addresses since 1999, so a 404 comes from a gateway or from a move in progress, and no
                argument of the caller can be its cause. It is worth another attempt, and shows itself
                when the attempts are used up.
        """
        check_day(day)
        asked = checked_currencies(currencies)
        if why := why_nothing_is_published(day):
            raise NothingPublished(day, why)
        now = self._clock()
        if is_in_the_future(day, now):
            raise DayInTheFuture(day, today(now))
        if day > today(now):
            raise self._too_early(day, now)
        try:
            return await self._ask(day, asked, now)
        except BadAnswer:
            self._history = None  # or the next attempt would read the same bytes again
            raise

    async def _ask(self, day: date, asked: tuple[str, ...], now: datetime) -> DailyRates:
        async with httpx.AsyncClient(base_url=self._folder, timeout=self._timeout) as client:
            for file in _files_for(day, now):
                table = await self._table(client, file, now)
                if day in table:
                    return selected(day, table[day], asked)
                if day > max(table):
                    raise self._too_early(day, now)
                if day > min(table):
                    raise NothingPublished(day, f"the ECB's own list ({file.name}) leaves it out")
        raise BadAnswer(self._address(_HISTORY), f"it should begin at {FIRST_DAY}")

    def _too_early(self, day: date, now: datetime) -> NotYetPublished | BadAnswer:
        due = publication_time(day)
        if now > due + timedelta(days=1):
            return BadAnswer(str(self._folder), f"it is out of date: the rates of {day} are not in it")
        wait = (due - now).total_seconds() + AFTER_PUBLICATION
        return NotYetPublished(day, wait if wait > 0 else WHILE_LATE)

    async def _table(self, client: httpx.AsyncClient, file: _EcbFile, now: datetime) -> Table:
        if file is _HISTORY and self._history and now - self._history[0] < HISTORY_KEPT:
            return self._history[1]
        table = file.read(self._address(file), await self._download(client, file, now))
        if file is _HISTORY:
            self._history = (now, table)
        return table

    async def _download(self, client: httpx.AsyncClient, file: _EcbFile, now: datetime) -> bytes:
        source = self._address(file)
        try:
            async with asyncio.timeout(self._deadline), client.stream("GET", file.name) as response:
                _check_status(source, response, now)
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > file.limit:
                        raise BadAnswer(source, f"the answer is larger than {file.limit} bytes")
        except TimeoutError as error:
            raise SourceDown(source, f"not answered within {self._deadline:g} s") from error
        except httpx.DecodingError as error:
            raise BadAnswer(source, f"the answer cannot be unpacked: {error}") from error
        except httpx.HTTPError as error:
            raise SourceDown(source, f"{type(error).__name__} {error}".rstrip()) from error
        if not content:
            raise BadAnswer(source, "the answer is empty")
        return bytes(content)

    def _address(self, file: _EcbFile) -> str:
        return str(self._folder.join(file.name))


def _files_for(day: date, now: datetime) -> tuple[_EcbFile, ...]:
    if day >= newest_published_day(now):
        return _NARROW_TO_WIDE
    if (today(now) - day).days < _NINETY_DAYS:
        return _NARROW_TO_WIDE[1:]
    return _NARROW_TO_WIDE[2:]


def _check_status(source: str, response: httpx.Response, now: datetime) -> None:
    status = response.status_code
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _RETRYABLE_STATUS:
        headers = response.headers
        pause = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), now)
        raise SourceDown(source, f"HTTP {status}", pause)
    if status != httpx.codes.OK:
        target = response.headers.get("Location")
        raise BadAnswer(source, f"HTTP {status} to {target[:200]!r}" if target else f"HTTP {status}")


def _checked_url(base_url: str) -> httpx.URL:
    shown = base_url.rpartition("@")[2]
    try:
        url = httpx.URL(base_url if base_url.endswith("/") else f"{base_url}/")
    except httpx.InvalidURL as error:
        raise InvalidField("base_url", shown, f"it is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > _LAST_PORT:
        raise InvalidField("base_url", shown, "an http or https address is needed")
    if url.userinfo:
        raise InvalidField("base_url", shown, "it holds a user name or a password")
    return url
