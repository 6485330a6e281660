"""A connection of the migration's own: SQL text in, rows out, with locks that go when it goes."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import IsolationLevel, errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from tasktrail.engines import Engines
from tasktrail.errors import MigrationBusy

Row: TypeAlias = dict[str, Any]

AS_TEXT: Final = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
"""What decides how a value is written as text: keys are such texts, and those of rows are hashed."""

SETTINGS: Final = {
    **AS_TEXT,
    "jit": "off",  # compiling a transform takes longer than running it on a chunk
    # The rows of a chunk are looked up by their keys, most of them were written or read a moment ago. As if
    # each came from a disk that turns, whole tables would be read instead.
    "random_page_cost": "1.1",
    "work_mem": "32MB",
    "temp_buffers": "64MB",
    # A role's own limits are meant for other work: a chunk, a dry run and the account take what they take.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

CONFLICTS: Final = (errors.SerializationFailure, errors.DeadlockDetected)
"""Somebody else wrote to the same rows; the same transaction, run again, sees what they wrote."""

PATIENCE: Final = 20
"""How often a transaction that met somebody else's is run again."""


def statement(text: str) -> sql.SQL:
    """Return text as what the driver takes for SQL; it comes from a plan, never from a row."""
    return sql.SQL(text)


class Session:
    """One connection. Outside ``snapshot`` and ``transaction`` each statement commits."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Set the connection up.

        Args:
            connection: in autocommit mode; the session owns it from now on.
        """
        self.connection = connection
        self._temporary: set[str] = set()
        for name, value in SETTINGS.items():
            self.run("SELECT set_config(%(name)s, %(value)s, false)", name=name, value=value)

    def run(self, text: str, **parameters: Any) -> int:
        """Run a statement.

        Args:
            text: the SQL; with parameters a ``%`` in it is written ``%%``.
            **parameters: values for its ``%(name)s``.

        Returns:
            How many rows it touched.
        """
        return self.connection.execute(statement(text), parameters or None).rowcount

    def ensure_temporary(self, table: str, columns: str) -> None:
        """Make a temporary table that is emptied at each commit, unless this connection has it.

        Asking the server each time would be a transaction of its own, at whose end it empties all of them.

        Args:
            table: its name, with or without ``pg_temp``.
            columns: their definitions.
        """
        name = table.removeprefix("pg_temp.")
        if name not in self._temporary:
            self.run(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS")
        if self.connection.info.transaction_status is TransactionStatus.IDLE:  # else it may be rolled back
            self._temporary.add(name)

    def rows(self, text: str, **parameters: Any) -> list[Row]:
        """Run a query and return all its rows."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement(text), parameters or None).fetchall()

    def row(self, text: str, **parameters: Any) -> Row | None:
        """Run a query and return its first row, if there is one."""
        found = self.rows(text, **parameters)
        return found[0] if found else None

    def value(self, text: str, **parameters: Any) -> Any:
        """Run a query and return the first value of its first row; None when there is no row."""
        first = self.connection.execute(statement(text), parameters or None).fetchone()
        return None if first is None else first[0]

    def close(self) -> None:
        """Close the connection, and with it give up its locks."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is inside together."""
        with self.connection.transaction():
            yield

    @contextmanager
    def not_waiting_for_disk(self) -> Iterator[None]:
        """Commit without waiting for the server's disk, which leaves it to those who need to wait for it.

        A crash of the server within a second may lose the last transactions, each of them whole. So it is for
        those that take their work from a queue, or move a cursor, in the same transaction: it is done again.
        """
        self.run("SET synchronous_commit = off")
        try:
            yield
        finally:
            if not self.connection.closed:
                self.run("RESET synchronous_commit")

    @contextmanager
    def snapshot(self, *, read_only: bool = False, keep: bool = True) -> Iterator[None]:
        """Commit what is inside together, every statement of it looking at the same moment.

        Args:
            read_only: have the server refuse any write.
            keep: commit at the end; else everything is undone.
        """
        self.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        self.connection.read_only = read_only
        try:
            with self.connection.transaction(force_rollback=not keep):
                yield
        finally:
            if not self.connection.closed:
                self.connection.isolation_level = None
                self.connection.read_only = None

    @contextmanager
    def locked(self, *names: str) -> Iterator[None]:
        """Wait for an advisory lock and hold it; it goes with the connection.

        Args:
            *names: what is locked, e.g. a migration and a table.
        """
        self.run("SELECT pg_advisory_lock(%(key)s)", key=lock_key(*names))
        try:
            yield
        finally:
            self._unlock(names)

    @contextmanager
    def alone(self, *names: str, doing: str, patience: float = 5.0) -> Iterator[None]:
        """Hold an advisory lock that nobody else holds.

        Args:
            *names: what is locked.
            doing: what is to be done, for the message.
            patience: how long to wait for somebody else, in seconds; the server notices a dead process
                only when it is done with its statement.

        Raises:
            MigrationBusy: somebody else has it; the message says which server process.
        """
        key = lock_key(*names)
        deadline = time.monotonic() + patience
        while not (is_ours := self.value("SELECT pg_try_advisory_lock(%(key)s)", key=key)):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        if not is_ours:
            holder = self.value(
                "SELECT string_agg(format('pid %%s of %%s, since %%s', a.pid, a.application_name, "
                "date_trunc('second', a.backend_start)), '; ') "
                "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' "
                "AND l.granted "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                "AND (l.classid::bigint << 32) | l.objid::bigint = %(key)s",
                key=key,
            )
            raise MigrationBusy(names[0], doing, holder or "it has ended meanwhile, try again")
        try:
            yield
        finally:
            self._unlock(names)

    def _unlock(self, names: Sequence[str]) -> None:
        if not self.connection.closed:
            self.run("SELECT pg_advisory_unlock(%(key)s)", key=lock_key(*names))


def lock_key(*names: str) -> int:
    """Return the key of the advisory lock for something, a signed 64-bit number."""
    digest = hashlib.sha256("\0".join(("tasktrail migration", *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # pg_locks shows its halves unsigned


@contextmanager
def opened(engines: Engines, purpose: str) -> Iterator[Session]:
    """Open a session.

    Args:
        engines: where the database is.
        purpose: what for; shown in ``pg_stat_activity``.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or went away.
    """
    with engines.errors():
        session = Session(engines.dedicated(f"tasktrail {purpose}"))
        try:
            yield session
        finally:
            session.close()


def pause_before_retry(attempt: int) -> None:
    """Wait a little, at random, so that two who met do not meet again."""
    time.sleep(random.uniform(0, min(0.02 * 2**attempt, 1.0)))  # noqa: S311  # no secret
