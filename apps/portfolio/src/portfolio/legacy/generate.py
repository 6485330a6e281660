"""Fills the legacy tables with rows as the old system left them, clean and dirty, for rehearsals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import cycle
from math import ceil
from random import Random
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from portfolio.legacy.dirt import (
    DAILY_DIRT,
    ETF_UPDATE_DIRT,
    JSON_COLUMN,
    NO_FOREIGN_KEY,
    NULLABLE_CREATED_AT,
    TASK_DIRT,
    TEXT_COLUMN,
    Dirt,
    fitting,
)
from portfolio.legacy.history import (
    ETF_IDS,
    Fields,
    daily_keys,
    daily_rows,
    etf_update_rows,
    published_days,
    task_rows,
)
from portfolio.legacy.tables import DAILY_UPDATES, ETF_UPDATES, MIGRATED, TASK_STATUS
from portfolio.rates.calendar import FIRST_DAY
from tasktrail import InvalidField, TasktrailError

Report: TypeAlias = Callable[[int], None]
"""Is told how many more rows were written."""

TASK_SHARE: Final = 0.5
DAILY_SHARE: Final = 0.12
BLOCK: Final = 2000
"""How many rows go to the server at once."""

_ADD_ETFS: Final = text("""
    INSERT INTO etfs (id, symbol, currency) SELECT id, id, 'EUR' FROM unnest(CAST(:ids AS text[])) AS id
    ON CONFLICT DO NOTHING
""")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL: Final = "\\N"


class LegacyTablesMissing(TasktrailError):
    """The database has not all three legacy tables."""


class LegacyTableNotEmpty(TasktrailError):
    """A legacy table holds rows, and nobody said that more may be added."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What was added.

    Attributes:
        rows: table -> how many rows.
        dirty: table -> kind of dirt -> how many of the rows.
    """

    rows: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many rows were added to all tables."""
        return sum(self.rows.values())


def generate(
    engine: Engine,
    *,
    rows: int,
    dirty: float,
    seed: int,
    until: date,
    append: bool = False,
    report: Report = lambda _: None,
) -> Generated:
    """Add rows to the legacy tables, all of them or none.

    The same arguments add the same rows to the same tables. The kinds of dirt that the tables let in take
    turns, so there is one of each where there are enough dirty rows.

    Args:
        engine: the database.
        rows: how many, in all three tables together.
        dirty: which part of them is dirty, from 0 to 1.
        seed: which rows.
        until: the last day that they are about.
        append: add them to those that are there.
        report: is told how far it is.

    Raises:
        InvalidField: one of the arguments is not acceptable.
        LegacyTablesMissing: there is no such table.
        LegacyTableNotEmpty: there are rows already; nothing was added.
    """
    if rows < 1:
        raise InvalidField("rows", rows, "must be at least 1")
    if not 0 <= dirty <= 1:
        raise InvalidField("dirty", dirty, "must be from 0 to 1, e.g. 0.02 for two rows in a hundred")
    if until < FIRST_DAY:
        raise InvalidField("until", until, f"the first rates are those of {FIRST_DAY}")
    days = published_days(until)
    with engine.begin() as db:
        properties = _inspected(db)
        if not append:
            _check_empty(db)
        db.execute(_ADD_ETFS, {"ids": list(ETF_IDS)})
        writer = _Writer(db, dirty, seed, properties, report)
        taken = _daily_keys_there(db) if append else set()
        counts = _shares(rows, daily_keys(days) - len(taken))
        writer.write(TASK_STATUS.name, task_rows, counts[0], days, TASK_DIRT)
        writer.write(ETF_UPDATES.name, etf_update_rows, counts[1], days, ETF_UPDATE_DIRT)
        make_daily = partial(daily_rows, taken=taken)
        writer.write(DAILY_UPDATES.name, make_daily, counts[2], days, DAILY_DIRT)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        for table in MIGRATED:
            db.execute(text(f"ANALYZE {table.name}"))
    return writer.done


def _shares(rows: int, most_daily: int) -> tuple[int, int, int]:
    """Return how many rows each table gets; of daily ones there is no more than one a day and type."""
    tasks = ceil(rows * TASK_SHARE)
    daily = max(0, min(int(rows * DAILY_SHARE), most_daily))
    return tasks, rows - tasks - daily, daily


def _inspected(db: Connection) -> set[str]:
    """Return what is true of the tables, in the words of ``Dirt.needs``."""
    inspector = inspect(db)
    missing = [table.name for table in MIGRATED if not inspector.has_table(table.name)]
    if missing:
        raise LegacyTablesMissing(
            f"there is no table {', '.join(missing)}; `portfolio db upgrade` makes the legacy tables"
        )
    metadata = _type_of(inspector, TASK_STATUS.name, "task_metadata")
    is_json = isinstance(metadata, JSON) and not isinstance(metadata, JSONB)
    found = set()
    if is_json or not isinstance(metadata, JSON):
        found.add(JSON_COLUMN)
    if not isinstance(metadata, JSON):
        found.add(TEXT_COLUMN)
    if not inspector.get_foreign_keys(ETF_UPDATES.name):
        found.add(NO_FOREIGN_KEY)
    if any(
        column["nullable"]
        for column in inspector.get_columns(ETF_UPDATES.name)
        if column["name"] == "created_at"
    ):
        found.add(NULLABLE_CREATED_AT)
    return found


def _type_of(inspector: Any, table: str, name: str) -> Any:
    return next(column["type"] for column in inspector.get_columns(table) if column["name"] == name)


def _check_empty(db: Connection) -> None:
    for table in MIGRATED:
        if db.scalar(text(f"SELECT EXISTS (SELECT FROM {table.name})")):  # noqa: S608  # a constant
            raise LegacyTableNotEmpty(f"{table.name} holds rows already; --append adds more to them")


def _daily_keys_there(db: Connection) -> set[tuple[str, str]]:
    keys = db.execute(text("SELECT date::text, update_type FROM daily_update_tracking"))
    return {(day, update_type) for day, update_type in keys}


class _Writer:
    """Writes rows with COPY, some of them dirtied."""

    def __init__(self, db: Connection, dirty: float, seed: int, properties: set[str], report: Report) -> None:
        self.done = Generated()
        self._cursor: Any = db.connection.cursor()
        self._dirty = dirty
        self._seed = seed
        self._properties = properties
        self._report = report

    def write(
        self,
        table: str,
        make: Callable[[int, Sequence[date], Random], Iterator[Fields]],
        count: int,
        days: Sequence[date],
        kinds: Sequence[Dirt],
    ) -> None:
        """Write the rows of one table.

        Args:
            table: its name.
            make: makes clean rows.
            count: how many.
            days: the days they are about.
            kinds: what may be wrong with some of them.
        """
        random = Random(f"{self._seed} {table}")  # the same rows for the same seed
        lines = self._lines(table, make(count, days, random), count, kinds)
        first = next(lines, None)
        self.done.rows[table] = 0
        if first is None:
            return
        columns, line = first
        with self._cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            block = [line]
            for _, line in lines:
                block.append(line)
                if len(block) == BLOCK:
                    self._send(copy, table, block)
                    block = []
            self._send(copy, table, block)

    def _send(self, copy: Any, table: str, block: list[str]) -> None:
        copy.write("".join(block))
        self.done.rows[table] += len(block)
        self._report(len(block))

    def _lines(
        self, table: str, rows: Iterator[Fields], count: int, kinds: Sequence[Dirt]
    ) -> Iterator[tuple[Fields, str]]:
        dirtied = self.done.dirty[table] = Counter()
        random = Random(f"{self._seed} {table} dirt")  # the same rows for the same seed
        places = set(random.sample(range(count), round(count * self._dirty)))
        turns = cycle(fitting(kinds, self._properties))
        for number, row in enumerate(rows):
            if number in places:
                kind = next(turns)
                row.update(kind.change(row))
                dirtied[kind.name] += 1
                values = (_NULL if value is None else value.translate(_ESCAPES) for value in row.values())
            else:  # nothing in a clean row needs an escape
                values = (_NULL if value is None else value for value in row.values())
            yield row, "\t".join(values) + "\n"
