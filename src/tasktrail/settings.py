"""The settings: one frozen object, read from the environment in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tasktrail.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

ENVIRONMENT_PREFIX = "TASKTRAIL_"
BROKERS: Final = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp")
"""The transports of Celery that tasktrail is tested with, and their variants."""


class Settings(BaseSettings):
    """What tasktrail can be told from outside, each as ``TASKTRAIL_<NAME>`` in the environment.

    Attributes:
        database_url: PostgreSQL; empty means the embedded server (DESIGN section 7).
        replica_url: a read replica of it, from which the figures of monitoring are read; empty means the
            database itself.
        broker_url: Redis or RabbitMQ; empty means the embedded Redis.
        home: folder of the embedded servers' data, sockets and logs.
        eta_horizon: longest delay, in seconds, that goes out as an ETA message; a longer one stays in
            PostgreSQL until it is due, since brokers redeliver and double long ETAs.
        connect_timeout: longest wait for a database connection, in seconds.
        prepared_statements: whether the server keeps prepared statements for a connection; switch it off
            behind a pooler that gives each transaction another server connection.
        database_patience: how long an attempt waits for a database that went away, in seconds.
        heartbeat_interval: time between two renewals of the leases of running rows, in seconds.
        lease: how old a heartbeat may be before its row counts as lost, in seconds.
        maintenance: whether workers run the maintenance loop; switch it off where ``tasktrail maintain``
            runs.
        maintenance_interval: time between two rounds of maintenance, in seconds.
        redispatch_after: how long a due row waits for a worker before its message is sent again, in
            seconds; the wait doubles each time.
        rollup_interval: time between two rounds of rolling up figures, in seconds.
        prune_interval: time between two rounds of pruning, in seconds.
        retention: age at which ended rows are deleted, in days, unless their task says otherwise.
        shutdown_grace: how long running work may take after SIGTERM, in seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    database_url: SecretStr | None = None
    replica_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    home: Path = Path(".tasktrail")
    eta_horizon: Seconds = 15 * 60
    connect_timeout: Annotated[int, Field(ge=1)] = 5
    prepared_statements: bool = True
    database_patience: Seconds = 30.0
    heartbeat_interval: Seconds = 10.0
    lease: Seconds = 60.0
    maintenance: bool = True
    maintenance_interval: Seconds = 1.0
    redispatch_after: Seconds = 60.0
    rollup_interval: Seconds = 10.0
    prune_interval: Seconds = 60.0
    retention: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    shutdown_grace: Seconds = 30.0

    @field_validator("database_url", "replica_url")
    @classmethod
    def _database_is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            raise ValueError("is not a database URL; write postgresql://user@host:5432/name") from None
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            raise ValueError(f"names {url.get_backend_name()!r}; tasktrail works on postgresql:// only")
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        _check_broker(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease < 2 * self.heartbeat_interval:
            raise ValueError(
                f"is {self.lease:g} s, but must be at least two heartbeat intervals of "
                f"{self.heartbeat_interval:g} s, or one late heartbeat loses a running row"
            )
        return self

    @property
    def overdue_after(self) -> float:
        """How long a row may be due before every page, command and metric calls it overdue, in seconds."""
        return 2 * self.redispatch_after

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the environment.

        Args:
            **overrides: settings that win over the environment.

        Returns:
            The settings.

        Raises:
            ConfigurationError: a variable has a value that cannot be used; the message names it.
        """
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # validated by pydantic
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = "_".join(str(part) for part in first["loc"]) or "lease"  # the one rule across fields
            name = ENVIRONMENT_PREFIX + field.upper()
            reason = first["msg"].removeprefix("Value error, ")
            if first["type"] != "value_error":  # one of pydantic's own sentences
                reason = f"is {_said(error, field)}: {_lowered(reason)}"
            raise ConfigurationError(f"{name} {reason}") from None


def _said(error: ValidationError, field: str) -> str:
    """Return what was set, for a setting that is no secret."""
    is_secret = "Secret" in str(Settings.model_fields[field].annotation)
    return "not usable" if is_secret else repr(error.errors(include_url=False)[0]["input"])


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _check_broker(url: str) -> None:
    """Refuse what Celery's transports would only stumble over when they connect.

    Raises:
        ValueError: the URL names no broker; the password is not shown.
    """
    example = "write redis://host:6379/0 or amqp://user@host//"
    for part in url.split(";"):  # several brokers, the first that answers is used
        scheme, separator, _ = part.partition("://")
        if not separator:
            raise ValueError(f"is not a broker URL; {example}")
        if scheme not in BROKERS:
            raise ValueError(f"names the transport {scheme!r}; {example}")
        try:
            parts = urlsplit(part)
            _ = parts.port  # parsed when asked for
        except ValueError:  # its message may repeat a password that was not encoded
            raise ValueError(
                f"has no usable host and port; {example}, with %2F for a / in the password"
            ) from None
        if scheme == "redis+socket" and not parts.path.strip("/"):
            raise ValueError("names no socket; write redis+socket:///path/to/redis.sock")
        database = parts.path.strip("/")
        if scheme in {"redis", "rediss"} and database and not database.isdecimal():
            raise ValueError(f"names a database of Redis, which has numbers for them; {example}")


def sqlalchemy_url(url: str) -> URL:
    """Return ``url`` with psycopg as its driver, the one driver that serves sync and async alike.

    Args:
        url: a PostgreSQL URL, with or without a driver.

    Returns:
        The URL SQLAlchemy connects with.
    """
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg")
