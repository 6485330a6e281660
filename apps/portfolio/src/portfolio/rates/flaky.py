"""A source that fails on demand: a demonstration of the retry path, and no part of a real deployment.

The first calls for chosen days fail the way a server under maintenance does. The calls are counted in
files, so that the processes of a worker pool, and a worker that is killed and started again, share one
count.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path

from portfolio.rates.calendar import check_day
from portfolio.rates.errors import SourceDown
from portfolio.rates.sources.protocol import NAME_LIMIT, DailyRates, RatesSource
from tasktrail import InvalidField


class FlakySource:
    """Wraps a source and fails the first calls for the given days.

    Args:
        inner: the source that answers all other calls.
        failures: how many calls fail, per day.
        folder: where the calls are counted, one file per day of ``failures``; made when missing. A fresh
            folder starts the count again.
        retry_after: what the failing server asks for, in seconds.

    Raises:
        InvalidField: a key of ``failures`` is no day, or a number is negative.
    """

    def __init__(
        self,
        inner: RatesSource,
        failures: Mapping[date, int],
        folder: Path,
        *,
        retry_after: float | None = None,
    ) -> None:
        for day, count in failures.items():
            check_day(day)
            if count < 0:
                raise InvalidField("failures", count, f"the number for {day} cannot be negative")
        self.name = f"flaky {inner.name}"[:NAME_LIMIT]
        self._inner = inner
        self._failures = dict(failures)
        self._folder = folder
        self._retry_after = retry_after

    async def fetch(self, day: date, currencies: Collection[str]) -> DailyRates:
        """Return what the inner source returns, or fail as planned.

        Args:
            day: the day asked for.
            currencies: the currencies asked for.

        Raises:
            SourceDown: this call is one of those that are to fail.
            RatesError: whatever the inner source raises.
            InvalidField: whatever the inner source refuses.
        """
        failing = self._failures.get(day, 0)
        if failing:
            call = self._count(day)
            if call <= failing:
                raise SourceDown(
                    self.name, f"planned failure {call} of {failing} for {day}", self._retry_after
                )
        return await self._inner.fetch(day, currencies)

    def calls(self, day: date) -> int:
        """Return how many calls were counted for ``day``, in all processes.

        Args:
            day: a day that is to fail at least once; for any other the answer is 0, since nobody counts.
        """
        file = self._file(day)
        return file.stat().st_size if file.exists() else 0

    def _count(self, day: date) -> int:
        """Count this call and return its number, from 1."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file(day), os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            # POSIX appends the byte and moves the offset behind it in one step, so that no two calls see
            # the same offset. The size of the file could already include a later call.
            os.write(descriptor, b".")
            return os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)

    def _file(self, day: date) -> Path:
        return self._folder / f"{day.isoformat()}.calls"
