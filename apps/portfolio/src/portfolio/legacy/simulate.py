"""Old workers, several processes of them, that write all along while a migration is rehearsed."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_bool
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import RawValue
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import NullPool, create_engine, inspect
from sqlalchemy.engine import URL

from portfolio.legacy.generate import LegacyTablesMissing
from portfolio.legacy.history import ETF_IDS
from portfolio.legacy.tables import MIGRATED
from portfolio.legacy.workers import DAYS, OldWorker, Tally
from tasktrail import InvalidField, TasktrailError

LOOKS_UP_EVERY: Final = 0.05
"""A process looks so often whether it is to stop, or its parent is gone, in seconds."""

START_PATIENCE: Final = 120.0
"""How long the processes may take to start, in seconds; each imports the whole application."""

PATIENCE: Final = 30.0
"""How long a process may take to end once it is told to, in seconds."""

_ADD_ETFS: Final = (
    "INSERT INTO etfs (id, symbol) SELECT id, id FROM unnest(%s::text[]) AS id ON CONFLICT DO NOTHING"
)


class SimulationNotStarted(TasktrailError):
    """The processes of the simulation did not start in time."""

    def __init__(self) -> None:
        super().__init__(
            f"the old workers were not there after {START_PATIENCE:g} s; is the machine overloaded?"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What the workers did, all together.

    Attributes:
        seconds: how long they wrote.
        changes: kind of write -> how many succeeded.
        errors: class of error -> how many writes ended in it.
        first_error: the text of one of them, if there was any.
        writes: when each write that succeeded ended, by the monotonic clock, and how long it took, its commit
            included, in seconds.
    """

    seconds: float
    changes: Counter[str]
    errors: Counter[str]
    first_error: str | None
    writes: Sequence[tuple[float, float]]

    @property
    def p50(self) -> float:
        """Median of the time a write took, in seconds; 0 without a write."""
        return self.exceeded_by(0.5)

    @property
    def p99(self) -> float:
        """The time that 99 of 100 writes did not exceed, in seconds; 0 without a write."""
        return self.exceeded_by(0.01)

    @property
    def longest(self) -> float:
        """The longest time that a write took, in seconds; 0 without a write."""
        return self.exceeded_by(0.0)

    def exceeded_by(self, part: float, since: float = -math.inf, until: float = math.inf) -> float:
        """Return the time that no more than a part of the writes exceeded, in seconds; 0 without a write.

        Args:
            part: of all, from 0 to below 1.
            since: only of writes that ended at this moment of the monotonic clock or later.
            until: and before this one.
        """
        took = sorted(seconds for at, seconds in self.writes if since <= at < until)
        return took[min(len(took) - 1, int(len(took) * (1 - part)))] if took else 0.0

    @property
    def changes_per_second(self) -> float:
        """How many writes succeeded, a second."""
        return self.changes.total() / self.seconds if self.seconds else 0.0


class Simulation:
    """Old workers as processes of their own, from ``start`` to ``stop``; also a context manager.

    Args:
        url: the database.
        rate: writes a second, of all processes together.
        processes: how many.
        seed: decides what they do.
        days: how many of the newest days they are busy with; a multiple of ten.

    Raises:
        InvalidField: one of the numbers is not acceptable.
    """

    def __init__(self, url: URL, *, rate: float, processes: int = 2, seed: int = 1, days: int = DAYS) -> None:
        if not rate > 0:
            raise InvalidField("rate", rate, "must be above 0 writes a second")
        if processes < 1:
            raise InvalidField("processes", processes, "must be at least 1")
        if days < 10 or days % 10:  # noqa: PLR2004  # workers have days of their own, ten of them at most
            raise InvalidField("days", days, "must be a multiple of 10")
        self._days = days
        self._url = url.render_as_string(hide_password=False)
        self._rate = rate
        self._count = processes
        self._seed = seed
        self._processes: list[tuple[Any, Pipe]] = []
        self._context = multiprocessing.get_context("spawn")
        # No Event: a process that is killed while it waits for one keeps the others from ever setting it.
        self._told_to_stop = RawValue(c_bool)
        self._since = 0.0

    def start(self) -> None:
        """Start the processes; they write from the moment that all of them are there.

        Raises:
            LegacyTablesMissing: there is no such table.
            SimulationNotStarted: the processes are not there in time; none is left.
        """
        self._prepare()
        all_there = self._context.Barrier(self._count + 1)
        with _interrupts_are_ours():
            for number in range(self._count):
                ours, theirs = self._context.Pipe(duplex=False)
                what = (self._url, self._rate / self._count, self._seed, self._days)
                given = (*what, number, self._told_to_stop, theirs)
                process = self._context.Process(target=_work, args=(*given, all_there), daemon=True)
                process.start()
                theirs.close()
                self._processes.append((process, ours))
        try:
            all_there.wait(START_PATIENCE)
        except threading.BrokenBarrierError:
            self.stop()
            raise SimulationNotStarted from None
        self._since = time.monotonic()

    def stop(self) -> Summary:
        """End the processes after the write that each of them is at, and return what they did."""
        seconds = time.monotonic() - self._since
        self._told_to_stop.value = True
        tallies = [_collected(process, pipe) for process, pipe in self._processes]
        self._processes.clear()
        return _summed(tallies, seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._processes:
            self.stop()

    def _prepare(self) -> None:
        engine = create_engine(self._url, poolclass=NullPool)
        with engine.begin() as db:
            missing = [table.name for table in MIGRATED if not inspect(db).has_table(table.name)]
            if missing:
                raise LegacyTablesMissing(
                    f"there is no table {', '.join(missing)}; `portfolio db upgrade` makes the legacy tables"
                )
            db.exec_driver_sql(_ADD_ETFS, (list(ETF_IDS),))


@contextmanager
def _interrupts_are_ours() -> Iterator[None]:
    """Let processes be born deaf to Ctrl-C, which a terminal sends to them as well as to us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(
    url: str, rate: float, seed: int, days: int, number: int, told_to_stop: Any, pipe: Pipe, all_there: Any
) -> None:
    """Be an old worker; the body of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    engine = create_engine(url, poolclass=NullPool)
    worker = OldWorker(engine, seed, number, days)

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not told_to_stop.value and os.getppid() == parent:
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, LOOKS_UP_EVERY))
        return True

    try:
        all_there.wait(START_PATIENCE)
    except threading.BrokenBarrierError:
        return
    worker.work(rate, wait)
    pipe.send(worker.tally)
    pipe.close()


def _collected(process: Any, pipe: Pipe) -> Tally:
    try:
        tally: Tally = pipe.recv() if pipe.poll(PATIENCE) else _lost("did not end when it was told to")
    except EOFError:
        tally = _lost("ended without a word")
    process.join(1)
    if process.is_alive():
        process.kill()
        process.join()
    return tally


def _lost(what: str) -> Tally:
    return Tally(errors=Counter({"WorkerLost": 1}), first_error=f"a process of the simulation {what}")


def _summed(tallies: list[Tally], seconds: float) -> Summary:
    return Summary(
        seconds=seconds,
        changes=sum((tally.changes for tally in tallies), Counter()),
        errors=sum((tally.errors for tally in tallies), Counter()),
        first_error=next((tally.first_error for tally in tallies if tally.first_error), None),
        writes=[write for tally in tallies for write in tally.writes],
    )
