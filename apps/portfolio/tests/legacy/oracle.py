"""What must be in the new tables, by a path of its own: plain text from COPY, the twins, and Python's dicts.

It shares nothing with the engine but the twins, which were written from ``docs/reference/legacy-mapping.md``:
no SQL of the plan, no ledger, no verification.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import psycopg
from apps.portfolio.tests.legacy.case import CREATION, DAILY, RATES, UPDATES
from apps.portfolio.tests.legacy.judge import TWINS

from portfolio.legacy.twins import ETF_EXISTS
from tasktrail.migration.plan import Mapped, Refused

KEYS: Final = {
    RATES: ("update_date", "base_currency"),
    CREATION: ("etf_id",),
    UPDATES: ("id",),
    DAILY: ("update_date", "update_type"),
}
"""Target -> its unit of work."""

LEGACY_KEYS: Final = {
    "task_status": ("id",),
    "etf_updates": ("id",),
    "daily_update_tracking": ("date", "update_type"),
}
HELD: Final = ("next_attempt_at", "heartbeat_at", "worker", "dispatched_at", "celery_task_id")
LOG_LIMIT: Final = 50
TYPES: Final = (
    "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
    "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)

Key = tuple[Any, ...]


@dataclass(slots=True)
class Unit:
    """The legacy rows of one unit of work: their age and key, and what the twin makes of each."""

    rows: list[tuple[Key, Key, Mapping[str, object]]] = field(default_factory=list)


def differences(url: str, limit: int = 20) -> list[str]:
    """Compare the new tables with what the legacy ones must have become, row by row.

    Args:
        url: the database; nobody writes to it.
        limit: how many differences are named.

    Returns:
        What differs, in words; empty when nothing does.
    """
    found: list[str] = []
    with psycopg.connect(url) as db:
        etfs = {row["id"] for row in _rows(db, "public.etfs")}
        for source, legacy_key in LEGACY_KEYS.items():
            units, fates = _mapped(db, source, legacy_key, etfs)
            for difference in _compared(db, source, units, fates):
                found.append(difference)
                if len(found) == limit:
                    return found
    return found


def _mapped(
    db: psycopg.Connection[Any], source: str, legacy_key: Key, etfs: set[str]
) -> tuple[dict[str, dict[Key, Unit]], dict[Key, tuple[str, str | None]]]:
    """Return the units of work of each target, and what must have become of each legacy row."""
    targets = [RATES, CREATION] if source == "task_status" else [source]
    units: dict[str, dict[Key, Unit]] = {target: {} for target in targets}
    fates: dict[Key, tuple[str, str | None]] = {}
    for row in _rows(db, f"public.{source}"):
        if source == "etf_updates":
            row[ETF_EXISTS] = row["etf_id"] in etfs
        made, key = TWINS[source](row), tuple(row[name] for name in legacy_key)
        if isinstance(made, Refused):
            fates[key] = (made.disposition, made.reason)
            continue
        target = _target(source, made)
        unit = units[target].setdefault(tuple(made.values[name] for name in KEYS[target]), Unit())
        unit.rows.append(((made.values["updated_at"], *key), key, made.values))
    for target_units in units.values():
        for unit in target_units.values():
            unit.rows.sort(key=lambda one: one[0])
            fates.update((key, ("consolidated", "newer_row")) for _, key, _ in unit.rows[:-1])
            fates[unit.rows[-1][1]] = ("migrated", None)
    return units, fates


def _target(source: str, made: Mapped) -> str:
    if source == "task_status":
        return RATES if "base_currency" in made.values else CREATION
    return source


def _compared(
    db: psycopg.Connection[Any],
    source: str,
    units: Mapping[str, dict[Key, Unit]],
    fates: dict[Key, tuple[str, str | None]],
) -> Iterator[str]:
    for target, expected in units.items():
        for row in _rows(db, f"tracking.{target}"):
            key = tuple(row[name] for name in KEYS[target])
            unit = expected.pop(key, None)
            if unit is None:
                yield f"{target} {key}: no legacy row became this"
            else:
                yield from _row_differences(target, key, row, unit)
        yield from (f"{target} {key}: is missing" for key in expected)
    yield from _fate_differences(db, source, fates)


def _row_differences(target: str, key: Key, row: Mapping[str, Any], unit: Unit) -> Iterator[str]:
    *others, (_, _, values) = unit.rows
    log = [_entry(number, older) for number, (_, _, older) in enumerate(others, start=1)][-LOG_LIMIT:]
    wanted = {**values, **dict.fromkeys(HELD), "attempt_log": log}
    found = {name: row.get(name) for name in wanted}
    found["attempt_log"] = [_with_moments(entry) for entry in json.loads(row["attempt_log"])]
    if isinstance(found.get("task_metadata"), str):
        found["task_metadata"] = json.loads(found["task_metadata"])
    for name, value in found.items():
        if value != wanted[name]:
            yield f"{target} {key}: {name} is {value!r}, must be {wanted[name]!r}"


def _entry(number: int, values: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = {"FAILED": "error", "CANCELLED": "cancelled"}
    superseded = f"a later legacy row took its place; this one was {values['status']}"
    error = values["error_message"]
    return {
        "number": number,
        "start": values["started_at"] or values["created_at"],
        "end": values["completed_at"] or values["updated_at"],
        "outcome": outcomes.get(values["status"], "superseded"),
        "error": superseded if error is None else error,
        "worker": None,
    }


def _with_moments(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "start": _moment(entry["start"]), "end": _moment(entry["end"])}


def _fate_differences(
    db: psycopg.Connection[Any], source: str, fates: dict[Key, tuple[str, str | None]]
) -> Iterator[str]:
    """Compare with what the ledger says of the rows that are there."""
    for row in _rows(db, "tracking.tasktrail_ledger", f"table_name = '{source}' AND deleted_at IS NULL"):
        parts = json.loads(row["source_key"])  # a number, or an array of two texts
        key: Key = (_day(parts[0]), parts[1]) if isinstance(parts, list) else (parts,)
        said, wanted = (row["disposition"], row["reason"]), fates.pop(key, None)
        if said != wanted:
            yield f"{source} {key}: the ledger says {said}, must be {wanted or 'gone'}"
    yield from (f"{source} {key}: the ledger has nothing, must be {fate}" for key, fate in fates.items())


def _rows(db: psycopg.Connection[Any], table: str, where: str = "true") -> Iterator[dict[str, Any]]:
    """Read a table as PostgreSQL writes it; what Python has no value for stays text, as the twins expect."""
    columns = [(name, READERS.get(kind, str)) for name, kind in db.execute(TYPES, (table,))]
    with db.cursor().copy(f"COPY (SELECT * FROM {table} WHERE {where}) TO STDOUT") as copy:
        for values in copy.rows():
            yield {
                name: None if text is None else read(text)
                for (name, read), text in zip(columns, values, strict=True)
            }


def _day(text: str) -> date | str:
    with suppress(ValueError):
        return date.fromisoformat(text)
    return text


def _moment(text: str) -> datetime | str:
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return text


def _list_of(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return what reads an array of one dimension whose elements need no quotes."""

    def read_list(text: str) -> list[Any]:
        return [None if part == "NULL" else read(part) for part in text[1:-1].split(",") if part]

    return read_list


READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "integer": int,
    "bigint": int,
    "boolean": lambda text: text == "t",
    "date": _day,
    "timestamp without time zone": _moment,
    "timestamp with time zone": _moment,
    "date[]": _list_of(_day),
    "character varying[]": _list_of(str),
}
