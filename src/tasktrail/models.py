"""The tracking row: the standard columns, constraints and indexes of every domain's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Final, ParamSpec, TypedDict, TypeVar, cast
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Computed,
    Connection,
    DateTime,
    DefaultClause,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.schema import SchemaItem

from tasktrail import partitioning
from tasktrail.errors import ConfigurationError
from tasktrail.fingerprints import group_text
from tasktrail.states import Status

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPT_LOG_LIMIT: Final = 50
"""How many entries of ``attempt_log`` are kept, the newest (DESIGN section 4)."""


class AttemptEntry(TypedDict):
    """One entry of ``attempt_log``: an attempt that did not complete.

    Attributes:
        number: which attempt it was, from 1.
        start: when it was claimed, ISO 8601 with offset; ``None`` where that is unknown.
        end: when it ended, ISO 8601 with offset.
        outcome: ``error``, ``lost``, ``timeout`` or ``cancelled``; ``superseded`` for a migrated row that a
            later one of the same unit of work took the place of.
        error: "Class: message" or a reason.
        worker: who ran it.
    """

    number: int
    start: str | None
    end: str
    outcome: str
    error: str
    worker: str | None


@dataclass(frozen=True, slots=True)
class NaturalKey:
    """The columns that say which unit of work a row is; two rows with the same ones cannot exist.

    Attributes:
        columns: names of NOT NULL columns (NULLs evade UNIQUE).
        name: name of the UNIQUE constraint.
    """

    columns: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The two integer columns that say how far a job has come.

    Attributes:
        done: name of the column that counts what is done.
        total: name of the column that says how much there is to do.
    """

    done: str
    total: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingOptions:
    """What a domain says about its tracking table, as ``__tracking__`` of its model.

    Attributes:
        domain: the domain's name; also part of the names of its constraints and indexes, so at most
            40 characters.
        schema: PostgreSQL schema of the table; ``None`` leaves it to the metadata and the search path.
        natural_key: makes enqueueing idempotent; ``None`` when every row is a unit of its own.
        partition_days: partitions the table, with one partition for the rows of so many days, from 1 to 366,
            so that pruning drops whole ones; ``None`` for a table in one piece (ADR 35).
        progress: the columns written by ``run.progress``.
        check: a rule over the fields of a new row that goes beyond their types; raises ``InvalidField``.
        extra: further constraints and indexes of the table.
        sensitive: names of domain columns whose values the API and the dashboard mask, and do not filter by.
    """

    domain: str
    schema: str | None = None
    natural_key: NaturalKey | None = None
    partition_days: int | None = None
    progress: Progress | None = None
    check: Callable[[Mapping[str, Any]], None] | None = None
    extra: tuple[SchemaItem, ...] = ()
    sensitive: tuple[str, ...] = ()


def _utc() -> DateTime:
    return DateTime(timezone=True)


def _group_if_failed() -> str:
    """Write the id of the group of failures that a FAILED row belongs to; other rows have none."""
    group = group_text("error_message")
    return f"CASE WHEN ((status)::text = '{Status.FAILED}'::text) THEN {group} ELSE NULL::uuid END"


class BaseTaskTracking:
    """Mixin with the standard columns of a tracking table; the row is the job.

    A domain adds its inputs as columns of its own and its ``__tracking__``::

        class ReportTracking(BaseTaskTracking, Base):
            __tablename__ = "report_tracking"
            __tracking__ = TrackingOptions(domain="report")

            customer_id: Mapped[int]

    Names and types of the standard columns are fixed by the plan (DESIGN section 4). The name of a domain's
    column begins with no underscore. Times are server times in UTC. Rows are written by
    ``tasktrail.statements`` only, never through the ORM.
    """

    __tracking__: ClassVar[TrackingOptions]

    @declared_attr
    def id(cls) -> Mapped[int]:  # noqa: N805  # SQLAlchemy passes the class
        """The row's number; that of a partitioned table says its day, too."""
        numbered: Any = Identity(always=False)
        if cls.__tracking__.partition_days is not None:
            numbered = DefaultClause(text(partitioning.next_id(*_name_of(cls))))
        return mapped_column(BigInteger, numbered, primary_key=True, sort_order=-100)

    status: Mapped[str] = mapped_column(String(20), server_default=Status.PENDING.value, sort_order=100)
    created_at: Mapped[datetime] = mapped_column(_utc(), server_default=func.now(), sort_order=101)
    updated_at: Mapped[datetime] = mapped_column(_utc(), server_default=func.now(), sort_order=102)
    started_at: Mapped[datetime | None] = mapped_column(_utc(), sort_order=103)
    completed_at: Mapped[datetime | None] = mapped_column(_utc(), sort_order=104)
    error_message: Mapped[str | None] = mapped_column(Text, sort_order=105)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"), sort_order=106)
    max_attempts: Mapped[int] = mapped_column(Integer, server_default=text("3"), sort_order=107)
    celery_task_id: Mapped[str | None] = mapped_column(String(255), sort_order=108)
    next_attempt_at: Mapped[datetime | None] = mapped_column(
        _utc(), server_default=func.now(), sort_order=109
    )
    heartbeat_at: Mapped[datetime | None] = mapped_column(_utc(), sort_order=110)
    worker: Mapped[str | None] = mapped_column(String(255), sort_order=111)
    dispatched_at: Mapped[datetime | None] = mapped_column(_utc(), sort_order=112)
    attempt_log: Mapped[list[AttemptEntry]] = mapped_column(
        JSONB, server_default=text("'[]'::jsonb"), sort_order=113
    )
    failure_group: Mapped[UUID | None] = mapped_column(
        Uuid, Computed(_group_if_failed(), persisted=True), sort_order=114
    )

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805  # SQLAlchemy passes the class
        """The constraints and indexes of the table, named after the domain."""
        options = cls.__tracking__
        items: list[Any] = [*standard_constraints(options.domain), *standard_indexes(options.domain)]
        table: dict[str, Any] = {"schema": options.schema} if options.schema else {}
        table["listeners"] = [("after_parent_attach", _refuse_names_of_parameters)]
        if options.partition_days is not None:
            table["postgresql_partition_by"] = "RANGE (id)"
            table["listeners"] += _made_with_partitions(cls, options)
        elif options.natural_key is not None:
            items.append(UniqueConstraint(*options.natural_key.columns, name=options.natural_key.name))
        items.extend(options.extra)
        return (*items, table)


STANDARD_COLUMNS: Final = (
    "id",
    *(name for name in BaseTaskTracking.__annotations__ if not name.startswith("__")),
)
"""Names of the columns every tracking table has."""


def _name_of(model: Any) -> tuple[str, str | None]:
    return model.__tablename__, model.__tracking__.schema or model.metadata.schema


def _refuse_names_of_parameters(table: Table, _: MetaData) -> None:
    """Leave names with an underscore in front to the parameters of statements (``tasktrail.guards``)."""
    for column in table.columns:
        if column.key.startswith("_"):
            raise ConfigurationError(f"{table.name}: a column cannot be named {column.key}, with _ in front")


def _made_with_partitions(model: Any, options: TrackingOptions) -> list[tuple[str, Callable[..., None]]]:
    """Return the listeners that make, and drop, what belongs to a partitioned table."""
    name, schema = _name_of(model)
    partitioning.check(name, options.partition_days)
    for item in options.extra:
        if isinstance(item, UniqueConstraint) or (isinstance(item, Index) and item.unique):
            raise ConfigurationError(
                f"{name}: {item.name} cannot be UNIQUE in a partitioned table, except for its natural key"
            )

    def run(statements: list[str], db: Connection) -> None:
        for statement in statements:
            db.execute(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]

    def before_create(_: Table, db: Connection, **__: Any) -> None:
        run(partitioning.before_table(name, schema), db)

    def after_create(table: Table, db: Connection, **__: Any) -> None:
        run(partitioning.after_table(name, schema), db)
        key = options.natural_key
        if key is not None:
            partitioning.keys_table(table, key.columns, key.name).create(db)
            run(partitioning.keep_keys(name, schema, key.columns), db)

    def after_drop(_: Table, db: Connection, **__: Any) -> None:
        run(partitioning.after_drop(name, schema), db)

    return [(function.__name__, function) for function in (before_create, after_create, after_drop)]


def built_once(build: Callable[P, R]) -> Callable[P, R]:
    """Cache what is made from a model, e.g. a statement, with the signature kept for the type checker."""
    return cast("Callable[P, R]", cache(build))


def standard_constraints(domain: str) -> list[CheckConstraint]:
    """Return the CHECKs of a tracking table.

    Args:
        domain: the domain's name.

    Returns:
        Constraints not yet attached to a table.
    """
    states = ", ".join(f"'{status}'" for status in Status)
    return [
        CheckConstraint(f"status IN ({states})", name=f"ck_{domain}_status"),
        CheckConstraint("attempts >= 0 AND max_attempts >= 1", name=f"ck_{domain}_attempts"),
    ]


def standard_indexes(domain: str) -> list[Index]:
    """Return the indexes of a tracking table: two by the plan, partial ones for live and for ended rows.

    Args:
        domain: the domain's name.

    Returns:
        Indexes not yet attached to a table.
    """
    failed = text(f"status = '{Status.FAILED}'")
    stopped = text(f"status IN ('{Status.FAILED}', '{Status.CANCELLED}')")
    return [
        Index(f"idx_{domain}_status", "status"),
        Index(f"idx_{domain}_dates", "created_at", "completed_at"),
        Index(
            f"idx_{domain}_due",
            "next_attempt_at",
            postgresql_where=text(f"status = '{Status.PENDING}'"),
        ),
        Index(
            f"idx_{domain}_leased",
            "heartbeat_at",
            postgresql_where=text(f"status = '{Status.PROCESSING}'"),
        ),
        Index(f"idx_{domain}_ended", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
        Index(f"idx_{domain}_failed", "completed_at", "failure_group", "id", postgresql_where=failed),
        Index(f"idx_{domain}_failure_group", "failure_group", "id", postgresql_where=failed),
        Index(f"idx_{domain}_stopped", "status", "id", postgresql_where=stopped),
    ]
