"""Runs the built statements on the driver itself, prepared, for the few that every job runs.

SQLAlchemy's execution costs about twice the driver's for a statement by primary key; see
``bench/transitions.py``. The statement is still SQLAlchemy's: compiled once for its dialect, and run with the
same parameters.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Executable
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Convert: TypeAlias = Callable[[Any], Any]


class Prepared:
    """A statement as text, with the conversions of its parameters and columns that the driver lacks."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect)
        # The columns of an INSERT depend on its parameters, so it is not the same text each time.
        is_constant = not compiled.post_compile_params and not compiled.isinsert
        self.can_run = is_constant and isinstance(dialect, DefaultDialect)
        self.text = str(compiled)
        self.defaults = {name: value for name, value in compiled.params.items() if value is not None}
        self.names = frozenset(compiled.params)
        self._binds = {name: bind for name, bind in compiled._bind_processors.items() if callable(bind)}  # noqa: SLF001
        self._dialect = dialect
        self._entries = compiled._result_columns  # noqa: SLF001  # what SQLAlchemy itself converts rows by
        self._columns: list[tuple[str, Convert]] | None = None

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters in the form the driver takes."""
        values = {name: given[name] if name in given else self.defaults.get(name) for name in self.names}
        for name, bind in self._binds.items():
            values[name] = bind(values[name])
        return values

    def row(self, row: Any, cursor: psycopg.Cursor[Any]) -> Any:
        """Return a row with its columns converted."""
        if row is None:
            return None
        if self._columns is None:
            self._columns = self._conversions(cursor)
        if not self._columns:
            return row
        return row._replace(**{name: convert(getattr(row, name)) for name, convert in self._columns})

    def _conversions(self, cursor: psycopg.Cursor[Any]) -> list[tuple[str, Convert]]:
        """Return how columns are converted; that of a number depends on the type the server sends it as."""
        codes = [column.type_code for column in cursor.description or ()]
        found: list[tuple[str, Convert]] = []
        for entry, code in zip(self._entries, codes, strict=False):  # a text does not say what it returns
            convert = entry.type._cached_result_processor(self._dialect, code)  # noqa: SLF001
            if convert is not None:
                found.append((str(entry.keyname), convert))
        return found


class Rows:
    """The rows of one statement, with the few ways of reading them that ``tasktrail.tracker`` uses."""

    def __init__(self, cursor: psycopg.Cursor[Any], prepared: Prepared) -> None:
        self._cursor = cursor
        self._prepared = prepared

    def __iter__(self) -> Iterator[Any]:
        return (self._prepared.row(row, self._cursor) for row in self._cursor)

    def first(self) -> Any:
        """Return the first row, or ``None``."""
        return self._prepared.row(self._cursor.fetchone(), self._cursor)

    def all(self) -> list[Any]:
        """Return all rows."""
        return list(self)

    def scalars(self) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self]

    def scalar(self) -> Any:
        """Return the first column of the first row, or ``None``."""
        row = self.first()
        return None if row is None else row[0]


class Direct:
    """A connection that runs statements on the driver, each a transaction of its own."""

    def __init__(self, connection: Connection) -> None:
        """Take over a connection of SQLAlchemy's pool.

        Args:
            connection: its isolation level is AUTOCOMMIT.
        """
        self.connection = connection
        driver: Any = connection.connection.driver_connection
        self._cursor: psycopg.Cursor[Any] = driver.cursor(row_factory=namedtuple_row)
        self._prepared: WeakKeyDictionary[Any, Prepared] = _PREPARED.setdefault(
            connection.engine.dialect, WeakKeyDictionary()
        )

    @property
    def usable(self) -> bool:
        """Whether the connection is idle and the server has not dropped it.

        A statement that was interrupted, e.g. by a soft time limit, leaves its connection busy.
        """
        if self.connection.closed or self.connection.invalidated:
            return False
        driver = self._cursor.connection
        return driver.info.transaction_status is TransactionStatus.IDLE and not is_dropped(driver)

    def execute(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run a statement.

        Args:
            statement: any statement of SQLAlchemy's; one that is kept is compiled once.
            parameters: its values by name.

        Returns:
            The rows.

        Raises:
            psycopg.Error: what the server or the driver says.
        """
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepared[statement] = Prepared(statement, self.connection.dialect)
        if not prepared.can_run:
            return self.connection.execute(statement, parameters)
        self._cursor.execute(prepared.text, prepared.parameters(parameters or {}), prepare=True)
        return Rows(self._cursor, prepared)

    def close(self) -> None:
        """Give the connection back; one that is not usable is thrown away."""
        if self.connection.closed:
            return
        if not self.usable:
            self.connection.invalidate()
        self._cursor.close()
        self.connection.close()


def is_dropped(driver: Any) -> bool:
    """Say whether the server has closed an idle connection, without a round trip.

    The server says nothing on an idle connection but farewell, so whatever there is to read is that.

    Args:
        driver: a connection of psycopg, sync or async, on which no statement runs.
    """
    if driver.closed:
        return True
    socket = select.poll()
    socket.register(driver.fileno(), select.POLLIN)
    return bool(socket.poll(0))


_PREPARED: WeakKeyDictionary[Any, WeakKeyDictionary[Any, Prepared]] = WeakKeyDictionary()
