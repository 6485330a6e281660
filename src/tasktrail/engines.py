"""Database engines: one set per process, made when first needed, never shared across a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tasktrail.direct import Direct, is_dropped
from tasktrail.errors import DatabaseUnavailable
from tasktrail.sending import Sender
from tasktrail.settings import sqlalchemy_url

CONNECTION_ERRORS: Final = (
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
"""What SQLAlchemy and the driver raise when a connection fails, among other things."""

SILENCE: Final = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""When a network connection is given up whose other end is silent: after 30 s. The system's own limits are 15
minutes for what was sent, two hours for what is awaited; so long a worker could not renew its leases."""

SILENCE_OF_CLIENT: Final = {
    "tcp_keepalives_idle": "15s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
"""The same for the server's end: a host that is cut off within a transaction keeps its locks no longer, so
that whoever repeats its job does not wait for them. The last one is needed where the server's last answer was
not acknowledged yet; it also ends a client that does not take what it asked for. On a local socket they mean
nothing."""

UNLIMITED: Final = -1
"""How many connections a pool may add: as many as there are jobs at once, which the worker limits."""

Durability: TypeAlias = Literal["durable", "relaxed"]
Kind: TypeAlias = Literal["transactions", "maintenance", "durable", "relaxed"]
"""Two engines for transactions, and one for each kind of connection on which every statement commits."""

HeldT = TypeVar("HeldT", Direct, Sender)
"""A connection that a thread keeps."""

_LENT: Final = "tasktrail.lent"


class _Made:
    """The engines of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.engines: dict[Kind, Engine] = {}
        self.asynchronous: AsyncEngine | None = None
        self.connections = threading.local()

    def forget(self) -> None:
        """Drop the parent's connections without saying goodbye to the server on its sockets."""
        for engine in self.engines.values():
            engine.dispose(close=False)
        if self.asynchronous is not None:
            self.asynchronous.sync_engine.dispose(close=False)


class Engines:
    """The engines of the present process for one database.

    A forked child finds engines of another process id, forgets them and makes its own.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: int = 5,
        application_name: str = "tasktrail",
        prepared_statements: bool = True,
        silence: float = 60.0,
        setting: str = "TASKTRAIL_DATABASE_URL",
    ) -> None:
        """Remember where the database is; nothing is connected.

        Args:
            url: a PostgreSQL URL.
            connect_timeout: longest wait for a connection, in seconds.
            application_name: shown in ``pg_stat_activity``.
            prepared_statements: whether the server keeps statements for a connection.
            silence: how long a transaction of maintenance may wait for its next statement, in seconds; for a
                lock it waits twice as long.
            setting: where the URL comes from, for messages.
        """
        self._url = sqlalchemy_url(url)
        self._connect_timeout = connect_timeout
        self._application_name = application_name
        self._prepared_statements = prepared_statements
        self._silence = silence
        self._setting = setting
        self._current = _Made()

    @property
    def sync(self) -> Engine:
        """The engine for sync sessions."""
        return self._engine("transactions")

    @property
    def maintenance(self) -> Engine:
        """The engine for transactions of maintenance, which the server ends when they are silent or stuck.

        A leader that is paused or cut off within one must not hold up the leader that takes its place.
        """
        return self._engine("maintenance")

    @property
    def asynchronous(self) -> AsyncEngine:
        """The engine for async sessions; use it on one event loop only."""
        made = self._of_this_process()
        with made.lock:
            if made.asynchronous is None:
                made.asynchronous = create_async_engine(
                    self._url,
                    connect_args=self._arguments("transactions"),
                    max_overflow=UNLIMITED,
                    hide_parameters=True,
                )
                _replace_dropped(made.asynchronous.sync_engine)
            return made.asynchronous

    @contextmanager
    def pooled(self, durability: Durability = "durable") -> Iterator[Connection]:
        """Lend a connection on which each statement is a transaction of its own: one round trip.

        Args:
            durability: ``"durable"`` waits at each commit until it is on disk; ``"relaxed"`` does not, for
                what maintenance can repair after a crash of the database.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or went away.
        """
        with self.errors(), self._engine(durability).connect() as connection:
            yield connection

    @contextmanager
    def kept(self, durability: Durability = "durable") -> Iterator[Direct]:
        """Give this thread's own connection of the kind ``pooled`` lends, kept for the thread's life.

        It runs statements on the driver, and is replaced when the server dropped it. For the threads of a
        worker, which live as long as their process and would otherwise fetch a connection from the pool for
        every statement.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or went away.
        """
        try:
            yield self._held(durability, Direct, durability)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error

    @contextmanager
    def sender(self) -> Iterator[Sender]:
        """Give this thread's own connection for statements whose answers are read later, kept for its life.

        Their commits are durable.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or went away.
        """
        try:
            yield self._held("sender", Sender, "durable")
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error

    def dedicated(self, application_name: str) -> psycopg.Connection[Any]:
        """Open a connection of the driver's own for one owner, outside the pools; each statement commits.

        Args:
            application_name: shown in ``pg_stat_activity``.

        Returns:
            The connection, which the caller closes.

        Raises:
            DatabaseUnavailable: the server cannot be reached.
        """
        named = self._url.translate_connect_args(username="user", database="dbname")
        asked = {name: ",".join(_many(value)) for name, value in self._url.query.items()}
        arguments: dict[str, Any] = {**named, **asked, **self._arguments("transactions")}
        arguments |= {"application_name": application_name, "prepare_threshold": None}
        with self.errors():
            return psycopg.connect(**arguments, autocommit=True)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn "cannot connect" and "connection lost" into one clear line.

        Raises:
            DatabaseUnavailable: in place of the driver's error.
        """
        try:
            yield
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from error

    def dispose(self) -> None:
        """Close this thread's connections and the pools of the sync engines."""
        made = self._of_this_process()
        for name, held in list(vars(made.connections).items()):
            delattr(made.connections, name)
            held.close()
        for kind in list(made.engines):
            made.engines.pop(kind).dispose()

    def _held(self, name: str, kind: type[HeldT], durability: Durability) -> HeldT:
        """Return this thread's own connection of a name; a new one if there is none that can be used."""
        made = self._of_this_process()
        held: HeldT | None = getattr(made.connections, name, None)
        if held is not None:
            if held.usable:
                return held
            setattr(made.connections, name, None)  # before a reconnection that may fail
            held.close()
        fresh = kind(self._engine(durability).connect())
        setattr(made.connections, name, fresh)
        return fresh

    def _engine(self, kind: Kind) -> Engine:
        made = self._of_this_process()
        engine = made.engines.get(kind)
        if engine is None:
            with made.lock:
                engine = made.engines.get(kind)
                if engine is None:
                    engine = self._create(kind)
                    _replace_dropped(engine)
                    made.engines[kind] = engine
        return engine

    def _create(self, kind: Kind) -> Engine:
        arguments = self._arguments(kind)
        if kind in {"transactions", "maintenance"}:
            return create_engine(
                self._url, connect_args=arguments, max_overflow=UNLIMITED, hide_parameters=True
            )
        # Nothing is open when such a connection goes back, so there is nothing to roll back.
        return create_engine(
            self._url,
            connect_args=arguments,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            max_overflow=UNLIMITED,
            hide_parameters=True,
        )

    def _arguments(self, kind: Kind) -> dict[str, object]:
        """Return what a connection is made with; what the URL says wins, but for what tasktrail rests on."""
        said = self._url.query
        options = [f"-c {name}={value}" for name, value in SILENCE_OF_CLIENT.items()]
        options += [*_many(said.get("options")), "-c timezone=UTC"]
        if kind == "relaxed":
            options.append("-c synchronous_commit=off")
        if kind == "maintenance":
            options.append(f"-c idle_in_transaction_session_timeout={round(self._silence * 1000)}")
            # Longer than that, so that locks of a leader that fell silent are waited for.
            options.append(f"-c lock_timeout={round(2 * self._silence * 1000)}")
        return {
            "connect_timeout": said.get("connect_timeout", self._connect_timeout),
            "application_name": said.get("application_name", self._application_name),
            "options": " ".join(options),
            **{name: said.get(name, value) for name, value in SILENCE.items()},
            # With None the driver prepares nothing, also where that is asked for.
            **({} if self._prepared_statements else {"prepare_threshold": None}),
        }

    def _of_this_process(self) -> _Made:
        if self._current.pid != os.getpid():
            self._current.forget()
            self._current = _Made()
        return self._current

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        """Translate a connection error; an error that is none is raised as it is."""
        if isinstance(error, DBAPIError):
            is_gone, driver_error = is_connection_error(error), error.orig
        else:
            is_gone, driver_error = is_connection_state(getattr(error, "sqlstate", None)), error
        if not is_gone:
            raise error
        return DatabaseUnavailable(self._one_line(driver_error))

    def _one_line(self, error: BaseException | None) -> str:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return (
            f"the database at {_shown(self._url)} cannot be used: {lines[0]}. "
            f"Is it running, and is {self._setting} right?"
        )


def _replace_dropped(engine: Engine) -> None:
    """Have the pool replace connections that the server dropped while they lay there, before it lends them.

    An attempt must not fail because the database was restarted before it. ``pool_pre_ping`` would do it too,
    with a round trip for each loan.
    """

    def look(_: object, record: ConnectionPoolEntry, __: object) -> None:
        if record.info.get(_LENT) and is_dropped(record.driver_connection):
            raise InvalidatePoolError
        record.info[_LENT] = True  # a fresh one is not looked at: its first bytes may still be on their way

    event.listen(engine, "checkout", look)


def _shown(url: URL) -> str:
    """Return a URL without its password, wherever that stands."""
    secrets = {"password", "passfile", "sslpassword"} & url.query.keys()
    shown = url.difference_update_query(secrets).set(drivername=url.get_backend_name())
    return shown.render_as_string()


def _many(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the values of a part of a URL's query, which may be there more than once."""
    return (value,) if isinstance(value, str) else value or ()


def is_connection_error(error: DBAPIError) -> bool:
    """Say whether an error means that there is no usable connection, rather than a bad statement."""
    return error.connection_invalidated or is_connection_state(getattr(error.orig, "sqlstate", None))


def is_connection_state(state: str | None) -> bool:
    """Say whether an SQLSTATE means that there is no usable connection.

    The SQLSTATEs are those of PostgreSQL's appendix A: class 08 "connection exception", class 28 "not let
    in", 57P0x "shutdown", 3D000 "no such database"; none at all when the driver never got an answer.
    """
    return state is None or state[:2] in {"08", "28"} or state[:4] in {"57P0", "3D00"}
