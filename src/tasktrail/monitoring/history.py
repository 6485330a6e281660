"""What happened in a window: throughput, rates, durations, retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select

from tasktrail import rollups
from tasktrail.library import library
from tasktrail.monitoring.windows import Source, Window
from tasktrail.registry import Domain
from tasktrail.states import Status


@dataclass(frozen=True, slots=True)
class Bar:
    """What happened in one part of a window.

    Attributes:
        start: its first moment, UTC.
        seconds: its length; the last bar is as long as has passed of it.
        created: rows that were added.
        completed: rows that ended COMPLETED, and still are.
        failed: rows that ended FAILED, and still are.
        cancelled: rows that ended CANCELLED, and still are.
    """

    start: datetime
    seconds: float
    created: int
    completed: int
    failed: int
    cancelled: int

    @property
    def ended(self) -> int:
        """Rows that ended."""
        return self.completed + self.failed + self.cancelled

    @property
    def per_minute(self) -> float:
        """Rows that ended, per minute."""
        return self.ended * 60 / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Lengths of time in seconds; a percentile is off by 9 % at most, ``None`` when there are none.

    Attributes:
        count: of how many.
        mean: their mean, exact.
        p50: half of them are no longer.
        p95: 95 % of them are no longer.
        p99: 99 % of them are no longer.
        histogram: upper bound in seconds and count of each class that is not empty, ascending.
    """

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    histogram: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Retries:
    """How often work was repeated, of the rows that ended COMPLETED or FAILED in the window.

    Attributes:
        ended: how many there are.
        retried: those that took more than one attempt.
        mean_attempts: failed attempts per row; ``None`` when nothing ended.
        distribution: failed attempts and how many rows had so many, ascending.
    """

    ended: int
    retried: int
    mean_attempts: float | None
    distribution: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class History:
    """What happened to the rows of one domain in a window.

    Attributes:
        domain: the domain's name.
        window: the window.
        bars: throughput, bar by bar, without gaps.
        running: how long the last attempts of ended rows ran, from claim to end.
        waiting: how long the last attempts of ended rows waited, from due time to claim.
        retries: how often work was repeated.
    """

    domain: str
    window: Window
    bars: tuple[Bar, ...]
    running: Percentiles
    waiting: Percentiles
    retries: Retries

    @property
    def created(self) -> int:
        """Rows that were added."""
        return sum(bar.created for bar in self.bars)

    @property
    def completed(self) -> int:
        """Rows that ended COMPLETED."""
        return sum(bar.completed for bar in self.bars)

    @property
    def failed(self) -> int:
        """Rows that ended FAILED."""
        return sum(bar.failed for bar in self.bars)

    @property
    def cancelled(self) -> int:
        """Rows that ended CANCELLED."""
        return sum(bar.cancelled for bar in self.bars)

    @property
    def ended(self) -> int:
        """Rows that ended."""
        return self.completed + self.failed + self.cancelled

    @property
    def per_minute(self) -> float:
        """Rows that ended, per minute."""
        return self.ended * 60 / self.window.seconds

    @property
    def success_rate(self) -> float | None:
        """Completed rows of those that ended completed or failed; ``None`` when none did."""
        tried = self.completed + self.failed
        return self.completed / tried if tried else None

    @property
    def completion_rate(self) -> float | None:
        """Rows that ended per row that was added; below 1 a backlog grows. ``None`` when none was added."""
        return self.ended / self.created if self.created else None


def history(db: Source, domain: Domain, window: Window) -> History:
    """Return what happened to the rows of a domain in a window.

    Args:
        db: what to read from.
        domain: the domain.
        window: the window, as ``Window.of`` makes it.
    """
    found = _figures(db, domain, window)
    rows: Counter[tuple[datetime, str]] = Counter()
    for figure in found:
        rows[_bar_of(figure.start, window), figure.event] += figure.rows
    ran = [figure for figure in found if figure.event in {Status.COMPLETED, Status.FAILED}]
    return History(
        domain=domain.name,
        window=window,
        bars=tuple(_bar(start, window, rows) for start in window.starts()),
        running=_percentiles(ran, "running"),
        waiting=_percentiles(ran, "waiting"),
        retries=_retries(ran),
    )


def _figures(db: Source, domain: Domain, window: Window) -> list[Row[Any]]:
    """Return figures whose spans lie within bars: of what is rolled up from rollups, else from the rows."""
    tables = library(domain.schema)
    state = db.execute(select(tables.rollup_state).where(tables.rollup_state.c.domain == domain.name)).first()
    if state is None or state.rolled_to <= state.built_from:
        return _of_rows(db, domain, window, window.start, window.end)
    since = min(max(window.start, state.built_from), window.end)
    until = max(since, min(window.end, state.rolled_to))
    spans = [(rollups.MINUTE, since, until)]
    if window.step.total_seconds() >= rollups.HOUR:
        hours = max(since, rollups.floor(until, rollups.HOUR))
        spans = [(rollups.HOUR, since, hours), (rollups.MINUTE, hours, until)]
    found = _of_rows(db, domain, window, window.start, since)
    table = tables.rollups
    for width, start, end in spans:
        query = select(table).where(
            table.c.domain == domain.name, table.c.width == width, table.c.start >= start, table.c.start < end
        )
        found += db.execute(query).all()
    return found + _of_rows(db, domain, window, until, window.end)


def _of_rows(db: Source, domain: Domain, window: Window, since: datetime, until: datetime) -> list[Row[Any]]:
    if since >= until:
        return []
    parameters = {"width": window.step.total_seconds(), "since": since, "until": until}
    return list(db.execute(rollups.figures(domain.model), parameters))


def _bar_of(moment: datetime, window: Window) -> datetime:
    return window.start + (moment - window.start) // window.step * window.step


def _bar(start: datetime, window: Window, rows: Counter[tuple[datetime, str]]) -> Bar:
    return Bar(
        start=start.astimezone(UTC),
        seconds=min(window.step, max(window.end - start, timedelta(0))).total_seconds(),
        created=rows[start, rollups.CREATED],
        completed=rows[start, Status.COMPLETED],
        failed=rows[start, Status.FAILED],
        cancelled=rows[start, Status.CANCELLED],
    )


def _summed(figures: Iterable[Row[Any]], name: str) -> list[tuple[int, int]]:
    found: Counter[int] = Counter()
    for figure in figures:
        classes, rows = getattr(figure, f"{name}_classes"), getattr(figure, f"{name}_rows")
        for number, count in zip(classes, rows, strict=True):
            found[number] += count
    return sorted(found.items())


def _percentiles(figures: list[Row[Any]], name: str) -> Percentiles:
    classes = _summed(figures, name)
    count = sum(rows for _, rows in classes)
    if not count:
        return Percentiles(0, None, None, None, None)
    total: float = sum(getattr(figure, f"{name}_seconds") for figure in figures)
    p50, p95, p99 = (_percentile(classes, count * share) for share in (0.50, 0.95, 0.99))
    bounds = tuple((rollups.upper_bound(number), rows) for number, rows in classes)
    return Percentiles(count, total / count, p50, p95, p99, bounds)


def _percentile(classes: list[tuple[int, int]], rank: float) -> float:
    passed = 0
    for number, rows in classes:
        passed += rows
        if passed >= rank:
            return rollups.middle(number)
    return rollups.middle(classes[-1][0])


def _retries(figures: list[Row[Any]]) -> Retries:
    ended = sum(figure.rows for figure in figures)
    attempts: int = sum(figure.attempts for figure in figures)
    return Retries(
        ended=ended,
        retried=sum(figure.retried for figure in figures),
        mean_attempts=attempts / ended if ended else None,
        distribution=tuple(_summed(figures, "attempts")),
    )
