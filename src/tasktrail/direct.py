"""Runs the built statements on the driver itself, prepared, for the few that every job runs.

SQLAlchemy's execution costs about twice the driver's for a statement by primary key (``bench/transitions.py``).
The statement is still SQLAlchemy's: compiled once for its dialect, and run with the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
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
        self.can_run = not compiled.post_compile_params and isinstance(dialect, DefaultDialect)
        self.text = str(compiled)
        self.defaults = {name: value for name, value in compiled.params.items() if value is not None}
        self.names = frozenset(compiled.params)
        self._binds = {name: bind for name, bind in compiled._bind_processors.items() if callable(bind)}  # noqa: SLF001
        self._columns: list[tuple[str, Convert]] = []
        for entry in compiled._result_columns:  # noqa: SLF001  # what SQLAlchemy itself converts rows by
            convert = entry.type._cached_result_processor(dialect, None)  # noqa: SLF001
            if convert is not None:
                self._columns.append((str(entry.keyname), convert))

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters in the form the driver takes."""
        values = {name: given[name] if name in given else self.defaults.get(name) for name in self.names}
        for name, bind in self._binds.items():
            values[name] = bind(values[name])
        return values

    def row(self, row: Any) -> Any:
        """Return a row with its columns converted."""
        if not self._columns or row is None:
            return row
        return row._replace(**{name: convert(getattr(row, name)) for name, convert in self._columns})


class Rows:
    """The rows of one statement, with the few ways of reading them that ``tasktrail.tracker`` uses."""

    def __init__(self, cursor: psycopg.Cursor[Any], prepared: Prepared) -> None:
        self._cursor = cursor
        self._prepared = prepared

    def __iter__(self) -> Iterator[Any]:
        return (self._prepared.row(row) for row in self._cursor)

    def first(self) -> Any:
        """Return the first row, or ``None``."""
        return self._prepared.row(self._cursor.fetchone())

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
        """Whether the server has not dropped the connection."""
        return not (self.connection.closed or self.connection.invalidated or self._cursor.connection.broken)

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
        """Give the connection back; a broken one is thrown away."""
        if self._cursor.connection.broken:
            self.connection.invalidate()
        self._cursor.close()
        self.connection.close()


_PREPARED: WeakKeyDictionary[Any, WeakKeyDictionary[Any, Prepared]] = WeakKeyDictionary()
