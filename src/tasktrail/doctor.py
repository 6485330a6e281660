"""What is wrong with an installation: the plan's success criteria, and settings that lose or double work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, func, inspect, select, text

from tasktrail import partitions, references
from tasktrail import schema as tasktrail_schema
from tasktrail.celery.trail import TASK_OPTIONS, Trail
from tasktrail.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from tasktrail.guards import CLOCK, in_state, table_of
from tasktrail.keys import keys_of
from tasktrail.models import STANDARD_COLUMNS, standard_constraints, standard_indexes
from tasktrail.partitioning import first_id
from tasktrail.registry import Domain
from tasktrail.states import Status

CLOCK_SKEW: Final = 2.0
"""Largest difference between this machine's clock and the server's that is not reported, in seconds."""

REDIS_VISIBILITY: Final = 3600.0
"""Kombu's default visibility timeout on Redis, in seconds."""

MOST_BEHIND: Final = 60.0
"""How far a replica may be behind before that is reported, in seconds."""

BEHIND: Final = text(
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() "
    "AND pg_last_wal_replay_lsn() < CAST(:written AS pg_lsn) "
    "THEN coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) "
    "ELSE 0 END::float8"
)
"""Whether a server is a replica, and for how long it has replayed nothing, if it lacks what was written."""

INVALID_INDEXES: Final = text(
    "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid AND indrelid = to_regclass(:table)"
)

STRAYS: Final = "SELECT count(*) FROM (SELECT FROM {} LIMIT 10000) AS strays"
MOST_STRAYS: Final = 10_000
KEY_TRIGGERS: Final = frozenset({"tasktrail_keys", "tasktrail_keys_truncate"})
ENABLED_TRIGGERS: Final = text(
    "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(:table) AND tgenabled IN ('O', 'A')"
)


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Work can be lost, doubled or stranded, or the plan's criteria are not met."""
    WARNING = "warning"
    """It works, but not as well as it could."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: which check found it.
        severity: how bad it is.
        subject: what it is about: a task, a table, a setting.
        message: what is wrong, and what to do.
    """

    check: str
    severity: Severity
    subject: str
    message: str


Check: TypeAlias = Callable[[Trail, Connection], Iterable[Finding]]


def examine(trail: Trail) -> list[Finding]:
    """Run all checks.

    Args:
        trail: the installation.

    Returns:
        What is wrong, errors first; empty when nothing is.

    Raises:
        DatabaseUnavailable: the database cannot be reached, so most checks cannot be made.
    """
    found: list[Finding] = []
    with trail.engines.pooled() as db:
        for check in CHECKS:
            found.extend(check(trail, db))
        for extra in trail.checks:
            found.extend(
                Finding("application", Severity.ERROR, subject, message) for subject, message in extra(db)
            )
    return sorted(found, key=lambda finding: (finding.severity, finding.check, finding.subject))


def untracked_tasks(trail: Trail, _: Connection) -> Iterator[Finding]:
    """Every Celery task is tracked, or declared untracked with a reason."""
    tracked = {domain.task_name for domain in trail.registry}
    for name in sorted(trail.app.tasks):
        if not name.startswith("celery.") and name not in tracked and name not in trail.untracked:
            yield Finding(
                "untracked tasks",
                Severity.ERROR,
                name,
                "has no tracking row; make it a @trail.task, or declare it with "
                f'trail.leave_untracked("{name}", reason=...)',
            )


def applied_schema(trail: Trail, db: Connection) -> Iterator[Finding]:
    """Library tables, tracking tables and their columns are there, at this release's version."""
    for problem in tasktrail_schema.problems(db, trail.registry, schema=trail.schema):
        yield Finding("schema", Severity.ERROR, "database", f"{problem}; apply the pending migrations")


def constraints_and_indexes(trail: Trail, db: Connection) -> Iterator[Finding]:
    """Each tracking table has its CHECKs, its required indexes, and the unique key of its domain."""
    inspector = inspect(db)
    for domain in trail.registry:
        options = domain.model.__tracking__
        table = table_of(domain.model)
        if not inspector.has_table(table.name, schema=options.schema):
            continue
        name, schema = table.name, options.schema
        there = {check["name"] for check in inspector.get_check_constraints(name, schema=schema)}
        there |= {index["name"] for index in inspector.get_indexes(name, schema=schema)}
        there |= {unique["name"] for unique in inspector.get_unique_constraints(name, schema=schema)}
        wanted = [item.name for item in standard_constraints(options.domain)]
        wanted += [item.name for item in standard_indexes(options.domain)]
        keys = keys_of(domain.model)
        if keys is not None and inspector.has_table(keys.name, schema=schema):
            there |= {unique["name"] for unique in inspector.get_unique_constraints(keys.name, schema=schema)}
        if options.natural_key is not None:
            wanted.append(options.natural_key.name)
        for item_name in wanted:
            if item_name not in there:
                yield Finding(
                    "constraints and indexes",
                    Severity.ERROR,
                    str(table),
                    f"lacks {item_name}; add it in a migration",
                )
        quoted = db.dialect.identifier_preparer.format_table(table)
        for index in db.execute(INVALID_INDEXES, {"table": quoted}).scalars():
            message = "is INVALID, left by an interrupted CREATE INDEX CONCURRENTLY; drop and build it again"
            yield Finding("constraints and indexes", Severity.ERROR, str(index), message)


def partitions_and_keys(trail: Trail, db: Connection) -> Iterator[Finding]:
    """A partitioned table has partitions for the next days and for all its rows, and its keys are kept."""
    check = "partitions"
    for domain in trail.registry:
        table = table_of(domain.model)
        name = partitions.name_of(table)
        if domain.model.__tracking__.partition_days is None or not _has_standard_columns(db, domain):
            continue
        ahead = partitions.partitions_of(db, domain.model)
        tomorrow = first_id(partitions.today(db) + 1)
        if not any(one.first <= tomorrow < one.end for one in ahead):
            message = "has no partition for tomorrow; run maintenance, by a role that owns the table"
            yield Finding(check, Severity.ERROR, str(table), message)
        default = {"name": partitions.default_of(table)}
        if db.execute(text("SELECT to_regclass(:name)"), default).scalar() is None:
            message = "has no default partition, so a job is refused where no other partition takes it"
            yield Finding(check, Severity.ERROR, str(table), message)
        elif count := db.execute(text(STRAYS.format(partitions.default_of(table)))).scalar_one():
            rows = {1: "1 row", MOST_STRAYS: f"{MOST_STRAYS} rows or more"}.get(count, f"{count} rows")
            message = f"has {rows} in its default partition, since nobody made theirs; they go row by row"
            yield Finding(check, Severity.WARNING, str(table), message)
        if keys_of(domain.model) is not None:
            enabled = db.execute(ENABLED_TRIGGERS, {"table": name}).scalars()
            for trigger in sorted(KEY_TRIGGERS.difference(enabled)):
                message = f"lacks the trigger {trigger}, or it is disabled: natural keys can be doubled"
                yield Finding(check, Severity.ERROR, str(table), message)


def legacy_tables(trail: Trail, db: Connection) -> Iterator[Finding]:
    """The tables that tracking replaces are gone."""
    inspector = inspect(db)
    for name in trail.legacy_tables:
        schema, _, table = name.rpartition(".")
        if inspector.has_table(table, schema=schema or None):
            yield Finding(
                "legacy tables",
                Severity.ERROR,
                name,
                "is still there; finish its migration, archive it and drop it",
            )


def legacy_references(trail: Trail, db: Connection) -> Iterator[Finding]:
    """Nothing in the database or in the application's source refers to the tables that tracking replaces."""
    for name in trail.legacy_tables:
        for what in references.objects_on(db, name):
            yield Finding(
                "legacy references",
                Severity.ERROR,
                name,
                f"{what} refers to it; let it use the tracking tables, or drop it",
            )
    own = {table_of(domain.model).name for domain in trail.registry}  # a new table may have an old one's name
    names = {name.rpartition(".")[2] for name in trail.legacy_tables} - own
    tasks: Any = trail.app.tasks
    modules = {task.__module__ for name, task in tasks.items() if not name.startswith("celery.")}
    modules |= {domain.service.__module__ for domain in trail.registry}
    for mention in references.mentions(modules, names, except_in=("tasktrail", *trail.legacy_modules)):
        yield Finding(
            "legacy references",
            Severity.ERROR,
            f"{mention.path}:{mention.line}",
            f"names {mention.word}, which tracking replaces",
        )


def celery_settings(trail: Trail, _: Connection) -> Iterator[Finding]:
    """Celery is set so that no message is lost, doubled or run outside a worker."""
    conf: Any = trail.app.conf
    if conf.task_always_eager:
        message = "runs jobs inside the caller, unrecovered; use it in tests only"
        yield Finding("Celery settings", Severity.ERROR, "task_always_eager", message)
    if conf.task_acks_late and not conf.task_reject_on_worker_lost:
        yield Finding(
            "Celery settings",
            Severity.ERROR,
            "task_acks_late",
            "without task_reject_on_worker_lost loses the message of a killed worker; set both",
        )
    if _has_visibility_timeout(trail):
        timeout = float(conf.broker_transport_options.get("visibility_timeout", REDIS_VISIBILITY))
        if timeout < trail.settings.eta_horizon:
            yield Finding(
                "Celery settings",
                Severity.ERROR,
                "visibility_timeout",
                f"of {timeout:g} s is below the longest ETA of {trail.settings.eta_horizon:g} s, so the "
                "broker doubles ETA messages; raise it, or lower TASKTRAIL_ETA_HORIZON",
            )
    for domain in trail.registry:
        task: Any = trail.app.tasks.get(domain.task_name or "")
        for option, wanted in TASK_OPTIONS.items():
            if task is not None and option != "Request" and getattr(task, option) != wanted:
                message = f"must be {wanted!r} for a tracked task, it is {getattr(task, option)!r}"
                yield Finding("Celery settings", Severity.ERROR, f"{domain.task_name}.{option}", message)
    try:
        trail.publisher.require_broker()
    except (BrokerUnavailable, ConfigurationError) as error:
        yield Finding("Celery settings", Severity.ERROR, "broker", str(error))


def clock_skew(_: Trail, db: Connection) -> Iterator[Finding]:
    """This machine's clock agrees with the server's; ETA messages are held back by the worker's clock."""
    before = datetime.now(UTC)
    server: datetime = db.execute(select(CLOCK)).scalar_one()
    after = datetime.now(UTC)
    skew = max((before - server).total_seconds(), (server - after).total_seconds(), 0.0)
    if skew > CLOCK_SKEW:
        message = f"differs from the database server's by {skew:.1f} s; synchronise both with NTP"
        yield Finding("clock skew", Severity.WARNING, "this machine's clock", message)


def durability(_: Trail, db: Connection) -> Iterator[Finding]:
    """The server keeps what it said was committed."""
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        if db.execute(text("SELECT current_setting(:name)"), {"name": setting}).scalar() == "off":
            message = "is off: a crash of the server loses completed jobs; switch it on"
            yield Finding("durability", Severity.ERROR, setting, message)


def stuck_rows(trail: Trail, db: Connection) -> Iterator[Finding]:
    """No row is stuck: its lease ran out long ago, or it is due for long without being dispatched."""
    settings = trail.settings
    for domain in trail.registry:
        if not _has_standard_columns(db, domain):
            continue  # which is the finding of another check
        table = table_of(domain.model)
        silent = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 2 * settings.lease)
        overdue = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, settings.overdue_after)
        cases = (
            (
                "PROCESSING with an expired lease",
                in_state(table, Status.PROCESSING),
                table.c.heartbeat_at < silent,
            ),
            (
                "PENDING, due and never dispatched",
                in_state(table, Status.PENDING) & table.c.dispatched_at.is_(None),
                table.c.next_attempt_at < overdue,
            ),
        )
        for what, *guard in cases:
            count = db.execute(select(func.count()).select_from(table).where(*guard)).scalar_one()
            if count:
                rows = "1 row is" if count == 1 else f"{count} rows are"
                message = f"{rows} {what}; run a worker with maintenance, or `tasktrail maintain`"
                yield Finding("stuck rows", Severity.ERROR, domain.name, message)


def _has_standard_columns(db: Connection, domain: Domain) -> bool:
    inspector = inspect(db)
    name, schema = table_of(domain.model).name, domain.model.__tracking__.schema
    if not inspector.has_table(name, schema=schema):
        return False
    there = {column["name"] for column in inspector.get_columns(name, schema=schema)}
    return there.issuperset(STANDARD_COLUMNS)


def _has_visibility_timeout(trail: Trail) -> bool:
    """Say whether the broker delivers a message again when it was not acknowledged in time."""
    driver = trail.app.connection_for_write().transport.driver_type
    options: Any = trail.app.conf.broker_transport_options
    return driver == "redis" or (driver != "amqp" and "visibility_timeout" in options)


def replica(trail: Trail, db: Connection) -> Iterator[Finding]:
    """The replica that figures are read from, if there is one, answers, is a replica, and keeps up."""
    if trail.figures is trail.engines:
        return
    check, subject = "replica", "TASKTRAIL_REPLICA_URL"
    written = db.execute(text("SELECT pg_current_wal_lsn()::text")).scalar_one()
    try:
        with trail.figures.pooled() as other:
            is_replica, behind = other.execute(BEHIND, {"written": written}).one()
    except DatabaseUnavailable as error:
        yield Finding(check, Severity.ERROR, subject, f"{error} No figures are shown meanwhile")
        return
    if not is_replica:
        message = "names a server that follows no other; its figures need not be those of the jobs"
        yield Finding(check, Severity.ERROR, subject, message)
    elif behind > MOST_BEHIND:
        message = f"is {behind:.0f} s behind, and so are the overview, failures, workers and metrics"
        yield Finding(check, Severity.WARNING, subject, message)


CHECKS: Final[tuple[Check, ...]] = (
    untracked_tasks,
    applied_schema,
    constraints_and_indexes,
    partitions_and_keys,
    legacy_tables,
    legacy_references,
    celery_settings,
    clock_skew,
    durability,
    stuck_rows,
    replica,
)
