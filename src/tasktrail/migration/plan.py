"""The plan of a migration, as data: which legacy rows become which rows of which tracking table.

Nothing here touches a database. ``transform`` makes SQL of a plan, and ``inspection`` compares it with the
tables that are really there.

The words: a :class:`TableMigration` is about one legacy table. It has one :class:`Route` for each tracking
table that its rows go to. A route says with SQL expressions what a row becomes, and again with a function
in plain Python, its twin, which verification compares with what SQL made of the same row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, timedelta
from typing import Final, Literal, TypeAlias

from tasktrail.errors import ConfigurationError
from tasktrail.migration.difference import Difference

Disposition: TypeAlias = Literal["migrated", "consolidated", "quarantined", "archived"]
"""What became of a legacy row; see the words in DESIGN section 2."""

DISPOSITIONS: Final[tuple[Disposition, ...]] = ("migrated", "consolidated", "quarantined", "archived")

KEPT_BY_THE_ENGINE: Final = frozenset(
    {"next_attempt_at", "heartbeat_at", "worker", "dispatched_at", "celery_task_id", "attempt_log"}
)
"""Columns that no route writes: a mirrored row is held and not leased, and its log is that of its group."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A legacy row that becomes a row of the target.

    Attributes:
        values: values of the target's columns by name, exactly those that the route's ``columns`` name.
            Times have a zone; a JSON column's value is what ``json.loads`` makes of it; an array is a list.
        inferred: the columns whose values a declared fallback gave.
    """

    values: Mapping[str, object]
    inferred: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refused:
    """A legacy row that becomes no row of the target.

    Attributes:
        disposition: ``quarantined`` when somebody is to look at it, ``archived`` when its kind was
            declared not to be migrated.
        reason: a stable code, e.g. ``unknown_status``.
    """

    disposition: Literal["quarantined", "archived"]
    reason: str


Twin: TypeAlias = Callable[[Mapping[str, object]], Mapped | Refused]
"""A legacy row as the driver reads it, JSON columns as text -> what it becomes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule by which a route refuses a row; the first that applies gives the reason.

    Attributes:
        reason: a stable code, e.g. ``unknown_status``.
        condition: SQL that is true for the rows it refuses; NULL counts as false.
        disposition: where they go.
    """

    reason: str
    condition: str
    disposition: Literal["quarantined", "archived"] = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverse:
    """How a row of a tracking table is written to the legacy table, once the tracking tables are the truth.

    Attributes:
        columns: legacy column -> SQL over the row of the target as ``t``. For a unit of work that the legacy
            table does not know, a row of these is added; columns that are not named get their default.
        changed: those among them that are written to a legacy row that is there already; what the others
            hold stays as it was.
    """

    columns: Mapping[str, str]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDifference:
    """A difference that is not counted against the new tables, for a while.

    Attributes:
        name: of the rule, as it is shown.
        reason: why it is known and does no harm.
        expires: the last day on which it holds, in UTC.
        applies: whether a difference is of this kind. One that makes it raise is counted.
    """

    name: str
    reason: str
    expires: date
    applies: Callable[[Difference], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How the rows of a legacy table that meet a condition become rows of one tracking table.

    SQL expressions see the legacy row as ``s`` and the results of earlier ``steps`` by their bare names.
    They are evaluated in a session whose time zone is UTC. A row that is refused never reaches
    ``columns``, so only ``steps`` and ``refusals`` must be written so that no value whatever makes them
    raise.

    Attributes:
        name: of the route, e.g. ``exchange_rates``; at most 20 characters.
        condition: the filter; SQL over ``s`` alone that is true for the rows that take this route.
        selects: the same in plain Python, over the row that the twin gets.
        target: the tracking table, as ``schema.table`` or ``table``.
        domain: the domain tracked in it.
        key: columns of the target that say which unit of work a row is; several legacy rows with the same
            values are one row there. ``("id",)`` when rows keep their ids.
        steps: names and SQL, evaluated one mapping after the other; a later one sees the results of those
            before.
        refusals: what is not migrated, in the order in which reasons are looked for.
        columns: target column -> SQL.
        inferred: target column -> SQL that is true when a fallback gave its value; ``TRUE`` for a column
            that the legacy table has nothing for.
        statuses: the total status map, from the trimmed and case-folded legacy word to the new state; for
            the record of the plan, and for its validation.
        twin: what ``columns``, ``refusals`` and ``inferred`` say, in plain Python.
        reverse: the way back into the legacy table; without it there is no cutover.
        paired_by: columns of the target that say which work both systems did; by default the key.
        compared: which columns must agree where both did the same work, times within a tolerance, all else
            exactly.
    """

    name: str
    target: str
    domain: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    twin: Twin
    condition: str = "TRUE"
    selects: Callable[[Mapping[str, object]], bool] = lambda _: True
    steps: tuple[Mapping[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    inferred: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    reverse: Reverse | None = None
    paired_by: tuple[str, ...] = ()
    compared: Mapping[str, timedelta | None] = field(default_factory=lambda: {"status": None})

    @property
    def keeps_ids(self) -> bool:
        """Whether a row has the same id in the target as in the legacy table."""
        return self.key == ("id",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMigration:
    """What becomes of the rows of one legacy table; of each of them, whatever is in it.

    A row takes the first route whose condition it meets. One that takes none is archived when its kind is
    declared so, else it is quarantined as ``unknown_type``.

    Attributes:
        name: of the migration, e.g. that of the table; its name in the ledger, at most 40 characters.
        source: the legacy table, as ``schema.table``.
        key: its primary key.
        source_columns: the columns that the plan reads, each with the types it was written for, as
            PostgreSQL spells them.
        routes: where rows go.
        kind: SQL over ``s`` for the kind of a row, by which the account is grouped; at most a few dozen
            values.
        archived: kinds that are not migrated on purpose, each with the reason, a stable code.
        otherwise: what becomes of a row that takes no route, in plain Python.
        context: further values that a twin needs from other tables: name -> SQL over ``s``. The row that
            it gets holds them beside the table's own columns.
        chunk_size: how many rows one step of the backfill takes.
        rule_version: raised by whoever changes a rule; each ledger row has the one that decided it.
    """

    name: str
    source: str
    key: tuple[str, ...]
    source_columns: Mapping[str, tuple[str, ...]]
    routes: tuple[Route, ...]
    kind: str = "'all'"
    archived: Mapping[str, str] = field(default_factory=dict)
    otherwise: Twin = lambda _: Refused("quarantined", "unknown_type")
    context: Mapping[str, str] = field(default_factory=dict)
    chunk_size: int = 20_000
    rule_version: int = 1

    def route(self, name: str) -> Route:
        """Return the route of a name.

        Raises:
            ConfigurationError: there is none.
        """
        for route in self.routes:
            if route.name == name:
                return route
        raise ConfigurationError(f"{self.name} has no route {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """Everything that is migrated together, from phase to phase.

    Attributes:
        name: of the migration, e.g. ``portfolio``; at most 40 characters.
        tables: the legacy tables.
        known: differences that do not count in the parallel run.
    """

    name: str
    tables: tuple[TableMigration, ...]
    known: tuple[KnownDifference, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def table(self, name: str) -> TableMigration:
        """Return the migration of one legacy table.

        Raises:
            ConfigurationError: there is none of that name.
        """
        for table in self.tables:
            if table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables)
        raise ConfigurationError(f"the plan {self.name} has no table {name!r}; it has {known}")

    @property
    def fingerprint(self) -> str:
        """A digest of all that is data in the plan, 32 hex digits; the twins are code and not in it."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()[:32]


def _canonical(value: object) -> str:
    """Return a text that is the same for the same plan in every process."""
    if is_dataclass(value):
        inner = (
            f"{one.name}={_canonical(getattr(value, one.name))}"
            for one in fields(value)
            if not callable(getattr(value, one.name))
        )
        return f"{type(value).__name__}({', '.join(inner)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_canonical(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_canonical, value)) + ")"
    return repr(value)


def _check(plan: MigrationPlan) -> None:
    """Refuse a plan that contradicts itself.

    Raises:
        ConfigurationError: it does; the message names the table, the route and the rule.
    """
    _check_names("table", plan.name, [table.name for table in plan.tables], limit=40)
    if not plan.tables:
        raise ConfigurationError(f"the plan {plan.name} has no tables")
    for table in plan.tables:
        _check_names("route", table.name, [route.name for route in table.routes], limit=20)
        if not table.key:
            raise ConfigurationError(f"{table.name}: key is empty; a legacy row must be told from the others")
        absent = [column for column in table.key if column not in table.source_columns]
        if absent:
            raise ConfigurationError(f"{table.name}: source_columns lacks the key {', '.join(absent)}")
        if table.chunk_size < 1:
            raise ConfigurationError(f"{table.name}: chunk_size is {table.chunk_size}, but must be 1 or more")
        for route in table.routes:
            _check_route(f"{table.name}.{route.name}", table, route)
    targets = [route.target for table in plan.tables for route in table.routes]
    doubled = sorted({target for target in targets if targets.count(target) > 1})
    if doubled:
        raise ConfigurationError(f"the plan {plan.name} has two routes to {', '.join(doubled)}")


def _check_names(what: str, owner: str, names: list[str], *, limit: int) -> None:
    for name in names:
        if not name.isidentifier() or not name.islower() or len(name) > limit:
            raise ConfigurationError(
                f"{owner}: {name!r} is no name for a {what}; use up to {limit} small letters, digits and _"
            )
        if names.count(name) > 1:
            raise ConfigurationError(f"{owner}: two are called {name!r}")


def _check_route(where: str, table: TableMigration, route: Route) -> None:
    taken = sorted(KEPT_BY_THE_ENGINE & route.columns.keys())
    if taken:
        raise ConfigurationError(f"{where}: {', '.join(taken)} cannot be mapped, the migration keeps it")
    for column in ("status", "created_at", "updated_at"):
        if column not in route.columns:
            raise ConfigurationError(f"{where}: columns lacks {column}")
    absent = [column for column in route.key if column not in route.columns]
    if absent:
        raise ConfigurationError(f"{where}: columns lacks the key {', '.join(absent)}")
    unknown = sorted(route.inferred.keys() - route.columns.keys())
    if unknown:
        raise ConfigurationError(f"{where}: inferred names {', '.join(unknown)}, which columns lacks")
    strange = sorted({*route.paired_by, *route.compared} - route.columns.keys())
    if strange:
        raise ConfigurationError(
            f"{where}: paired_by or compared name {', '.join(strange)}, which columns lacks"
        )
    if route.reverse is not None:
        _check_reverse(where, table, route.reverse)
    if route.keeps_ids and len(table.key) != 1:
        raise ConfigurationError(f"{where}: ids can only be kept when the legacy key is one column")


def _check_reverse(where: str, table: TableMigration, reverse: Reverse) -> None:
    unknown = sorted(reverse.columns.keys() - table.source_columns.keys())
    if unknown:
        raise ConfigurationError(f"{where}: reverse writes {', '.join(unknown)}, which source_columns lacks")
    unknown = sorted(set(reverse.changed) - reverse.columns.keys())
    if unknown:
        raise ConfigurationError(
            f"{where}: reverse.changed names {', '.join(unknown)}, which it has no rule for"
        )
    fixed = sorted(set(reverse.changed) & set(table.key))
    if fixed:
        raise ConfigurationError(f"{where}: reverse.changed names the legacy key {', '.join(fixed)}")
