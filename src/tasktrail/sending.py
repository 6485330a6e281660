"""Sends a statement without waiting for its answer, which is read when somebody needs it.

A write costs its client little but the wait: for the server, and for the server's disk. What is sent this
way is run and committed meanwhile. It uses libpq as the driver wraps it in ``psycopg.pq``, since the driver's
cursors wait.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from tasktrail.direct import is_dropped


class Sent:
    """A statement that was sent, and its answer once that was read."""

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._count = 0
        self._error: psycopg.Error | None = None
        self.is_answered = False

    def rows(self) -> int:
        """Wait for the answer; any thread may ask, and ask again.

        Returns:
            How many rows the statement returned.

        Raises:
            psycopg.Error: what the server or the driver says.
        """
        with self._lock:
            while not self.is_answered:  # an interruption here, e.g. by a time limit, loses nothing
                self._read()
        if self._error is not None:
            raise self._error
        return self._count

    def _read(self) -> None:
        connection = self._driver.pgconn
        try:
            while connection.is_busy():
                _wait(connection.socket, select.POLLIN)
                connection.consume_input()
            result: Any = connection.get_result()
        except psycopg.Error as error:
            self._error = error
            self.is_answered = True
            return
        if result is None:
            self.is_answered = True
        elif result.status in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK}:
            self._count += result.ntuples
        else:
            self._error = error_from_result(result)


class Sender:
    """A connection that sends statements, one at a time, each a transaction of its own."""

    def __init__(self, connection: Connection) -> None:
        """Take over a connection of SQLAlchemy's pool.

        Args:
            connection: its isolation level is AUTOCOMMIT.
        """
        self.connection = connection
        self._driver: Any = connection.connection.driver_connection
        self._names: WeakKeyDictionary[UpdateBase, bytes] = WeakKeyDictionary()
        self._last: Sent | None = None

    @property
    def usable(self) -> bool:
        """Whether a statement can be sent: no answer is awaited, and the connection is not dropped."""
        is_awaiting = self._last is not None and not self._last.is_answered
        if is_awaiting or self.connection.closed or self.connection.invalidated:
            return False
        return not is_dropped(self._driver)

    def send(self, statement: UpdateBase, parameters: Mapping[str, Any]) -> Sent:
        """Send a statement.

        Args:
            statement: one that is kept; it is prepared at its first use, unless the connection prepares
                nothing. Its parameters need no conversion but the driver's own.
            parameters: its values by name.

        Raises:
            psycopg.Error: the connection is lost, or the statement cannot be prepared.
        """
        numbered = _NUMBERED.get(statement)
        if numbered is None:
            numbered = _NUMBERED[statement] = Numbered(statement)
        name = self._names.get(statement)
        if name is None and self._driver.prepare_threshold is not None:
            name = self._prepare(statement, numbered)
        values = [parameters[parameter] for parameter in numbered.names]
        texts = Transformer(self._driver).dump_sequence(values, [PyFormat.TEXT] * len(values))
        self._last = Sent(self._driver)  # now, since an interruption could leave it half sent
        if name is None:
            self._driver.pgconn.send_query_params(numbered.text.encode(), texts)
        else:
            self._driver.pgconn.send_query_prepared(name, texts)
        self._flush()
        return self._last

    def close(self) -> None:
        """Give the connection back; one that is not usable is thrown away."""
        if self.connection.closed:
            return
        if not self.usable:
            self.connection.invalidate()
        self.connection.close()

    def _flush(self) -> None:
        connection = self._driver.pgconn
        while connection.flush():
            _wait(connection.socket, select.POLLIN | select.POLLOUT)
            connection.consume_input()

    def _prepare(self, statement: UpdateBase, numbered: Numbered) -> bytes:
        name = b"tasktrail_%d" % len(self._names)
        self._last = Sent(self._driver)
        self._driver.pgconn.send_prepare(name, numbered.text.encode())
        self._flush()
        self._last.rows()
        self._names[statement] = name
        return name


class Numbered:
    """A statement as the server takes it, with numbered parameters.

    Attributes:
        text: the statement.
        names: the names of its parameters, in their order.
    """

    def __init__(self, statement: UpdateBase) -> None:
        compiled: SQLCompiler = statement.compile(dialect=_DIALECT)
        self.text = str(compiled)
        self.names: list[str] = list(compiled.positiontup or ())


_DIALECT: Final = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_NUMBERED: WeakKeyDictionary[UpdateBase, Numbered] = WeakKeyDictionary()


def _wait(socket: int, events: int) -> None:
    poll = select.poll()
    poll.register(socket, events)
    poll.poll()
