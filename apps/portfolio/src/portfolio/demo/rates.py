"""The first part: 62 updates of exchange rates, one of which fails twice, and one for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from rich.table import Table
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from portfolio.demo.stage import Stage, coloured, table
from portfolio.models import ExchangeRate, ExchangeRateUpdateTracking
from portfolio.rates.sources import BundledHistory
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Status

BUSINESS_DAYS: Final = 60
FLAKY_FAILURES: Final = 2


@dataclass(frozen=True, slots=True)
class Days:
    """The days that are updated.

    Attributes:
        business: the last published days of the bundled file, oldest first.
        flaky: the published day before them; its source fails twice before it works.
        saturday: a day on which the ECB publishes nothing.
    """

    business: tuple[date, ...]
    flaky: date
    saturday: date

    @classmethod
    def of(cls, source: BundledHistory) -> Days:
        """Choose them from the published days of the bundled file."""
        flaky, *business = source.published_days()[-BUSINESS_DAYS - 1 :]
        newest = business[-1]
        return cls(tuple(business), flaky, newest - timedelta(days=(newest.weekday() - 5) % 7))

    def all(self) -> list[date]:
        """Return every day once, oldest first."""
        return sorted({*self.business, self.flaky, self.saturday})


def play(stage: Stage) -> bool:
    """Update the exchange rates of all days, and return whether the database says what it should."""
    days = Days.of(BundledHistory())
    total = len(days.all())
    stage.console.print(f"[bold]3.[/] enqueueing {total} updates, each a row and a message")
    created = stage.application.tasks.update_exchange_rates.enqueue_many(
        update_fields(day, DEFAULT_CURRENCIES, stage.application.source.name) for day in days.all()
    )
    stage.console.print(f"   {created.created} new rows, {created.existing} were there already")
    stage.watch(
        "updating",
        lambda: (_ended(stage.engine, days), total),
        lambda: _ended(stage.engine, days) >= total,
    )
    return _report(stage, days)


def _ended(engine: Engine, days: Days) -> int:
    row = ExchangeRateUpdateTracking
    query = select(row.status, func.count()).where(row.update_date.in_(days.all())).group_by(row.status)
    with Session(engine) as db:
        return sum(count for status, count in db.execute(query) if Status(status).is_ended)


def _report(stage: Stage, days: Days) -> bool:
    row = ExchangeRateUpdateTracking
    rates_of_these_days = ExchangeRate.date.in_(days.all())
    with Session(stage.engine) as db:
        rows = db.scalars(select(row).where(row.update_date.in_(days.all())).order_by(row.update_date)).all()
        rates = db.scalar(select(func.count()).select_from(ExchangeRate).where(rates_of_these_days)) or 0
    stage.console.print(_table(rows))
    counts = Counter(tracked.status for tracked in rows)
    flaky = next(tracked for tracked in rows if tracked.update_date == days.flaky)
    succeeded = sum(tracked.success_count for tracked in rows)
    stage.console.print(
        f"[bold]{counts[Status.COMPLETED]} COMPLETED, {counts[Status.FAILED]} FAILED[/] "
        f"of {len(rows)} tracked updates"
    )
    for tracked in rows:
        if tracked.status == Status.FAILED:
            stage.console.print(f"failed: {tracked.update_date}, {tracked.error_message}")
    stage.console.print(
        f"retries: {flaky.attempts} failed attempts of {flaky.update_date} before it completed\n"
        f"rates stored: {rates}, counted by the jobs: {succeeded}"
    )
    return stage.verdict(
        as_it_should_be=counts == {Status.COMPLETED: BUSINESS_DAYS + 1, Status.FAILED: 1}
        and len(rows) == len(days.all())
        and flaky.status == Status.COMPLETED
        and flaky.attempts == FLAKY_FAILURES
        and rates == succeeded == (BUSINESS_DAYS + 1) * len(DEFAULT_CURRENCIES)
    )


def _table(rows: Sequence[ExchangeRateUpdateTracking]) -> Table:
    made = table(
        "tracking.exchange_rate_update_tracking",
        ("id", "right"),
        ("date", "left"),
        ("status", "left"),
        ("rates", "right"),
        ("failed", "right"),
        ("took", "right"),
        ("process", "left"),
    )
    for row in rows:
        started, ended = row.started_at, row.completed_at
        took = f"{(ended - started).total_seconds() * 1000:.0f} ms" if started and ended else ""
        made.add_row(
            str(row.id),
            f"{row.update_date:%a %Y-%m-%d}",
            coloured(row.status),
            f"{row.success_count}/{row.total_count}",
            str(row.attempts),
            took,
            row.worker,
        )
    return made
