"""The third way of verification: each row as plain Python would have it, beside what is in the new tables.

The rows come over one COPY stream, those of a unit of work after each other, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final

from psycopg.abc import Buffer
from psycopg.adapt import Loader

from tasktrail.migration.difference import Difference
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import qualified, quoted
from tasktrail.migration.plan import Mapped, Refused, TableMigration
from tasktrail.migration.session import Session, statement
from tasktrail.migration.staging import WRITTEN_BACK, Staging
from tasktrail.migration.verify import Verdict, as_text, pending_groups, queued
from tasktrail.migration.workspace import Workspace
from tasktrail.models import ATTEMPT_LOG_LIMIT

JSON_TYPES: Final = frozenset({"json", "jsonb"})


class _Day(Loader):
    """A date; one that Python cannot hold, e.g. infinity, as text."""

    def load(self, data: Buffer) -> date | str:
        text = bytes(data).decode()
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text


class _Moment(Loader):
    """A timestamp with or without a zone; one that Python cannot hold, e.g. infinity, as text."""

    def load(self, data: Buffer) -> datetime | str:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return text


@dataclass(frozen=True, slots=True)
class _Seen:
    """A legacy row, what the ledger says of it, and the row of the target that it became."""

    key: str
    row: Mapping[str, Any]
    route: str | None
    disposition: str | None
    reason: str | None
    inferred: frozenset[str]
    target_key: str | None
    target: Mapping[str, Any] | None
    is_pending: bool


def verify_twins(session: Session, workspace: Workspace, stagings: list[Staging]) -> Verdict:
    """Compare every row with what its twin says.

    Args:
        session: within a snapshot.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    verdict = Verdict("twin")
    for staging in stagings:
        table = staging.transform.table
        rows = _stream(session, workspace, staging)
        # Rows that became no row of a target have no target key, and are groups of one.
        for _, group in groupby(rows, lambda seen: (seen.route, seen.target_key or object())):
            _judge(verdict, table, list(group))
    return verdict


def _judge(verdict: Verdict, table: TableMigration, group: Sequence[_Seen]) -> None:
    if any(seen.is_pending for seen in group):
        verdict.pending += len(group)
        return
    verdict.compared += len(group)
    said = [(seen, _twin(table, seen)) for seen in group]
    for seen, outcome in said:
        verdict.add(_judge_alone(table, seen, outcome))
    migrated = [(seen, outcome) for seen, outcome in said if isinstance(outcome, Mapped)]
    migrated = [(seen, outcome) for seen, outcome in migrated if seen.target_key]
    if migrated and any(seen.reason in {"paired", "id_taken", WRITTEN_BACK} for seen, _ in migrated):
        return  # what the new side did itself is compared in the parallel run
    if migrated:
        verdict.add(_judge_group(table, migrated))


def _twin(table: TableMigration, seen: _Seen) -> Mapped | Refused:
    for route in table.routes:
        if route.selects(seen.row):
            return route.twin(seen.row)
    return table.otherwise(seen.row)


def _judge_alone(table: TableMigration, seen: _Seen, outcome: Mapped | Refused) -> Iterator[Difference]:
    """Compare what the ledger says with what the twin says."""

    def differs(column: str, expected: object, found: object) -> Difference:
        return Difference(
            "twin", table.name, seen.key, "different", column, as_text(expected), as_text(found)
        )

    if seen.reason == WRITTEN_BACK:
        return  # the row of the target is the original
    if seen.disposition is None:
        yield Difference("twin", table.name, seen.key, "unaccounted")
    elif isinstance(outcome, Refused):
        if (outcome.disposition, outcome.reason) != (seen.disposition, seen.reason):
            expected = f"{outcome.disposition} {outcome.reason}"
            yield differs("disposition", expected, f"{seen.disposition} {seen.reason or ''}".strip())
    elif seen.disposition not in {"migrated", "consolidated"} and seen.reason != "id_taken":
        yield differs("disposition", "migrated", f"{seen.disposition} {seen.reason}")
    else:
        route = table.route(seen.route or "")
        wrong = sorted(route.columns.keys() ^ outcome.values.keys())
        if wrong:
            yield differs(", ".join(wrong), "a column of the twin and of the plan", "of one of them only")
        if outcome.inferred != seen.inferred:
            yield differs("inferred", sorted(outcome.inferred), sorted(seen.inferred))


def _judge_group(table: TableMigration, members: Sequence[tuple[_Seen, Mapped]]) -> Iterator[Difference]:
    """Compare the row of the target with the newest of its legacy rows, and its log with the others."""
    route = table.route(members[0][0].route or "")

    def age(member: tuple[_Seen, Mapped]) -> tuple[Any, ...]:
        seen, mapped = member
        return (mapped.values["updated_at"], *(seen.row[name] for name in table.key))

    ordered = sorted(members, key=age)
    newest, mapped = ordered[-1]

    def differs(seen: _Seen, column: str, expected: object, found: object) -> Difference:
        return Difference(
            "twin", table.name, seen.key, "different", column, as_text(expected), as_text(found)
        )

    for seen, other in members:
        wanted = "migrated" if seen is newest else "consolidated"
        if seen.disposition != wanted:
            yield differs(seen, "disposition", wanted, seen.disposition)
        if [other.values[name] for name in route.key] != [mapped.values[name] for name in route.key]:
            yield differs(seen, ", ".join(route.key), "another unit of work", newest.target_key)
    if newest.target is None:
        yield Difference("twin", table.name, newest.key, "missing")
        return
    for name, value in mapped.values.items():
        if name in newest.target and newest.target[name] != value:
            yield differs(newest, name, value, newest.target[name])
    entries = [_entry(number, other) for number, (_, other) in enumerate(ordered[:-1], start=1)]
    found = [_comparable(entry) for entry in newest.target["attempt_log"]]
    if entries[-ATTEMPT_LOG_LIMIT:] != found:
        yield differs(newest, "attempt_log", entries[-ATTEMPT_LOG_LIMIT:], found)


def _entry(number: int, mapped: Mapped) -> dict[str, Any]:
    """Return the entry of a consolidated row, in plain Python."""
    values = mapped.values
    outcome = {"FAILED": "error", "CANCELLED": "cancelled"}.get(str(values["status"]), "superseded")
    error = values.get("error_message")
    if error is None:
        error = f"a later legacy row took its place; this one was {values['status']}"
    return {
        "number": number,
        "start": values.get("started_at") or values["created_at"],
        "end": values.get("completed_at") or values["updated_at"],
        "outcome": outcome,
        "error": error,
        "worker": None,
    }


def _comparable(entry: Mapping[str, Any]) -> dict[str, Any]:
    moments = {name: datetime.fromisoformat(entry[name]) for name in ("start", "end")}
    return {**entry, **moments}


def _stream(session: Session, workspace: Workspace, staging: Staging) -> Iterator[_Seen]:
    """Read the legacy rows with their ledger rows and targets, unit of work by unit of work."""
    transform = staging.transform
    table = transform.table
    own = ["key", "route", "disposition", "reason", "inferred", "target_key", "is_pending"]
    columns = [
        f"{transform.source_key} AS key", "l.route", "l.disposition", "l.reason", "l.inferred",
        "l.target_key", f"{transform.source_key} IN ({queued(workspace, staging)})"
        + "".join(
            f" OR l.route = {literal(route.name)} AND l.target_key IN "
            f"({pending_groups(workspace, staging, route)})"
            for route in table.routes
        ) + " AS is_pending",
    ]  # fmt: skip
    columns += [
        f"s.{quoted(name)}::text" if kind in JSON_TYPES else f"s.{quoted(name)}"
        for name, kind in transform.shape.source.items()
    ]
    columns += [f"({expression})" for expression in table.context.values()]
    source_names = [*transform.shape.source, *table.context]
    joins, target_names = [], []
    for number, route in enumerate(table.routes):
        alias = f"t{number}"
        joins.append(
            f"LEFT JOIN {qualified(route.target)} {alias} ON l.route = {literal(route.name)} "
            f"AND l.disposition = 'migrated' AND {alias}.id = l.target_id"
        )
        names = ["id", *(name for name in route.columns if name != "id"), "attempt_log"]
        columns += [f"{alias}.{quoted(name)}" for name in names]
        target_names.append((route.name, names))
    query = (
        f"SELECT {', '.join(columns)} FROM {transform.source} s "
        f"LEFT JOIN {staging.ledger} l ON {staging.is_known} AND l.source_key = {transform.source_key} "
        f"{' '.join(joins)} ORDER BY l.route, l.target_key"
    )
    with session.connection.cursor() as cursor:
        types = [
            column.type_code for column in cursor.execute(statement(f"{query} LIMIT 0")).description or ()
        ]
        for name in ("date", "timestamp", "timestamptz"):
            cursor.adapters.register_loader(name, _Day if name == "date" else _Moment)
        with cursor.copy(statement(f"COPY ({query}) TO STDOUT")) as copy:
            copy.set_types(types)
            for values in copy.rows():
                ledger = dict(zip(own, values, strict=False))
                start = len(own) + len(source_names)
                row = dict(zip(source_names, values[len(own) : start], strict=True))
                target = None
                for route_name, names in target_names:
                    if ledger["route"] == route_name and values[start] is not None:
                        target = dict(zip(names, values[start : start + len(names)], strict=True))
                    start += len(names)
                yield _Seen(
                    key=ledger["key"],
                    row=row,
                    route=ledger["route"],
                    disposition=ledger["disposition"],
                    reason=ledger["reason"],
                    inferred=frozenset(ledger["inferred"] or ()),
                    target_key=ledger["target_key"],
                    target=target,
                    is_pending=bool(ledger["is_pending"]),
                )
