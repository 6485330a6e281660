"""Spans of time that figures are about, and the bars in which they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from tasktrail.errors import InvalidField

Source: TypeAlias = Session | Connection
"""What the read model reads from."""


class Period(StrEnum):
    """How far back a window reaches."""

    HOUR = "1h"
    DAY = "24h"
    MONTH = "30d"


_SPANS: Final = {
    Period.HOUR: (timedelta(hours=1), timedelta(minutes=1)),
    Period.DAY: (timedelta(days=1), timedelta(minutes=15)),
    Period.MONTH: (timedelta(days=30), timedelta(hours=6)),
}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, cut into bars of equal length.

    Attributes:
        start: its first moment, UTC, at the beginning of a bar.
        end: the moment after its last, UTC; the last bar may be cut short by it.
        step: length of a bar.
    """

    start: datetime
    end: datetime
    step: timedelta

    @classmethod
    def of(cls, period: Period | str, now: datetime) -> Window:
        """Return the window of a period that ends now.

        Args:
            period: ``"1h"``, ``"24h"`` or ``"30d"``.
            now: the server's time, aware; ``server_time`` reads it.

        Raises:
            InvalidField: there is no such period.
        """
        try:
            span, step = _SPANS[Period(period)]
        except ValueError:
            raise InvalidField("period", period, f"is none of {', '.join(Period)}") from None
        start = now.astimezone(UTC) - span
        seconds = int(step.total_seconds())
        aligned = -(-int(start.timestamp()) // seconds) * seconds
        return cls(datetime.fromtimestamp(aligned, UTC), now.astimezone(UTC), step)

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return (self.end - self.start).total_seconds()

    def starts(self) -> Iterator[datetime]:
        """Return the first moment of each bar."""
        at = self.start
        while at < self.end:
            yield at
            at += self.step

    def in_fewer_bars(self, most: int) -> Window:
        """Return the same window cut into longer bars, each of as many as it takes.

        Args:
            most: how many bars there may be.
        """
        bars = len(list(self.starts()))
        return replace(self, step=self.step * max(1, -(-bars // most)))


def server_time(db: Source) -> datetime:
    """Return the server's time at the begin of the transaction, UTC."""
    now: datetime = db.execute(select(func.now())).scalar_one()
    return now.astimezone(UTC)
