"""What happened in a window: throughput, rates, durations, retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row

from tasktrail import rollups
from tasktrail.monitoring.rolled import HISTOGRAMS, RolledUp, Spans, rolled_up, schema_of
from tasktrail.monitoring.rolled import figures as rolled_figures
from tasktrail.monitoring.rolled import histograms as rolled_histograms
from tasktrail.monitoring.windows import Source, Window
from tasktrail.registry import Domain
from tasktrail.states import ENDED, Status

TRIED: Final = frozenset({Status.COMPLETED, Status.FAILED})
"""States of rows that were worked on to an end."""

BAR_STATES: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
"""The states that a bar counts, in its order."""


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
    return histories(db, [domain], window)[0]


def histories(db: Source, domains: Sequence[Domain], window: Window) -> list[History]:
    """Return what happened to the rows of domains in a window, with as many statements as for one.

    Args:
        db: what to read from.
        domains: the domains, of one application.
        window: the window, as ``Window.of`` makes it.
    """
    if not domains:
        return []
    spans = {name: _within(window, rolled) for name, rolled in rolled_up(db, domains).items()}
    sums = {domain.name: _Sums(window) for domain in domains}
    for name, figure in _of_rows(db, domains, window, spans):
        sums[name].add(figure, [figure.start.timestamp()], [figure.rows])
        if figure.event in TRIED:
            for kind, classes in sums[name].classes.items():
                numbers, rows = getattr(figure, f"{kind}_classes"), getattr(figure, f"{kind}_rows")
                for number, count in zip(numbers, rows, strict=True):
                    classes[number] += count
    if spans:
        schema = schema_of(domains)
        for figure in rolled_figures(db, schema, spans, int(window.step.total_seconds())):
            sums[figure.domain].add(figure, figure.starts, figure.rows)
        for name, kind, number, count in rolled_histograms(db, schema, spans):
            sums[name].classes[kind][number] += count
    return [sums[domain.name].history(domain.name) for domain in domains]


class _Sums:
    """What is added up for one history."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.starts = list(window.starts())
        self.rows = {event: [0] * len(self.starts) for event in (rollups.CREATED, *ENDED)}
        self.classes = {name: Counter[int]() for name in HISTOGRAMS}
        self.ended = self.retried = self.attempts = 0
        self.running = self.waiting = 0.0

    def add(self, figure: Row[Any], starts: Iterable[float], rows: Iterable[int]) -> None:
        """Add the rows of parts that begin at these times, and sums over them."""
        begin, step = self.window.start.timestamp(), self.window.step.total_seconds()
        bars = self.rows[figure.event]
        for start, count in zip(starts, rows, strict=True):
            bars[int((start - begin) // step)] += count
            if figure.event in TRIED:
                self.ended += count
        if figure.event in TRIED:
            self.retried += figure.retried
            self.attempts += figure.attempts
            self.running += figure.running_seconds
            self.waiting += figure.waiting_seconds

    def history(self, domain: str) -> History:
        """Return what it comes to."""
        window, rows = self.window, self.rows
        whole = window.step.total_seconds()
        counts = zip(*(rows[event] for event in (rollups.CREATED, *BAR_STATES)), strict=True)
        bars = [Bar(start, whole, *of_bar) for start, of_bar in zip(self.starts, counts, strict=True)]
        if bars:
            last = (window.end - bars[-1].start).total_seconds()
            bars[-1] = replace(bars[-1], seconds=min(whole, last))
        return History(
            domain=domain,
            window=window,
            bars=tuple(bars),
            running=_percentiles(self.classes["running"], self.running),
            waiting=_percentiles(self.classes["waiting"], self.waiting),
            retries=Retries(
                ended=self.ended,
                retried=self.retried,
                mean_attempts=self.attempts / self.ended if self.ended else None,
                distribution=tuple(sorted(self.classes["attempts"].items())),
            ),
        )


def _within(window: Window, rolled: RolledUp) -> tuple[datetime, datetime]:
    since = min(max(window.start, rolled.since), window.end)
    return since, max(since, min(window.end, rolled.until))


def _of_rows(
    db: Source, domains: Sequence[Domain], window: Window, spans: Spans
) -> Iterator[tuple[str, Row[Any]]]:
    """Return figures, made from the rows, of the parts of a window that are not rolled up."""
    nothing = (window.end, window.end)
    before = {domain.name: (window.start, spans.get(domain.name, nothing)[0]) for domain in domains}
    after = {domain.name: (spans.get(domain.name, nothing)[1], window.end) for domain in domains}
    for parts in (before, after):
        chosen = [domain for domain in domains if parts[domain.name][0] < parts[domain.name][1]]
        if not chosen:
            continue
        parameters: dict[str, Any] = {"width": int(window.step.total_seconds())}
        for at, domain in enumerate(chosen):
            parameters[f"since{at}"], parameters[f"until{at}"] = parts[domain.name]
        for figure in db.execute(rollups.figures(tuple(domain.model for domain in chosen)), parameters):
            yield chosen[figure.at].name, figure


def _percentiles(counted: Counter[int], seconds: float) -> Percentiles:
    classes, count = sorted(counted.items()), counted.total()
    if not count:
        return Percentiles(0, None, None, None, None)
    p50, p95, p99 = (_percentile(classes, count * share) for share in (0.50, 0.95, 0.99))
    bounds = tuple((rollups.upper_bound(number), rows) for number, rows in classes)
    return Percentiles(count, seconds / count, p50, p95, p99, bounds)


def _percentile(classes: list[tuple[int, int]], rank: float) -> float:
    passed = 0
    for number, rows in classes:
        passed += rows
        if passed >= rank:
            return rollups.middle(number)
    return rollups.middle(classes[-1][0])
