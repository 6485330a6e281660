"""Failed rows, grouped by what their errors have in common."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import ColumnElement, Integer, cast, func, literal, select

from tasktrail.errors import InvalidField
from tasktrail.fingerprints import fingerprint, fingerprint_sql, group_of, group_of_fingerprint, group_sql
from tasktrail.guards import in_state, table_of
from tasktrail.monitoring.windows import Source, Window
from tasktrail.registry import Domain
from tasktrail.states import Status

__all__ = [
    "MOST_GROUPS",
    "FailureGroup",
    "FailureGroups",
    "failures",
    "fingerprint",
    "group_of",
    "in_group",
]

MOST_GROUPS: Final = 100
"""How many groups are returned, the largest."""

GROUP_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Rows of one domain that failed alike.

    Attributes:
        domain: the domain's name.
        group: the group's id, 32 hexadecimal digits.
        fingerprint: what their errors have in common.
        rows: how many failed in the window and still are.
        first_at: when the first of them failed.
        last_at: when the last of them failed.
        example_id: the newest of them.
        bars: how many failed in each bar of the window.
    """

    domain: str
    group: str
    fingerprint: str
    rows: int
    first_at: datetime
    last_at: datetime
    example_id: int
    bars: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FailureGroups:
    """The failures of one domain in a window.

    Attributes:
        domain: the domain's name.
        window: the window.
        groups: the largest groups, largest first.
        rows: how many rows failed, in all groups.
        more_groups: how many groups are not shown.
    """

    domain: str
    window: Window
    groups: tuple[FailureGroup, ...]
    rows: int
    more_groups: int


def failures(db: Source, domain: Domain, window: Window, *, most: int = MOST_GROUPS) -> FailureGroups:
    """Group the rows that failed in a window, and still are, by the fingerprints of their errors.

    Args:
        db: what to read from.
        domain: the domain.
        window: the window, as ``Window.of`` makes it.
        most: how many groups to return.
    """
    table = table_of(domain.model)
    since = literal(window.start)
    seconds = int(window.step.total_seconds())
    bar = cast(func.floor(func.extract("epoch", table.c.completed_at - since) / seconds), Integer)
    failed = (
        select(
            fingerprint_sql(table.c.error_message).label("print"),
            table.c.completed_at,
            table.c.id,
            bar.label("bar"),
        )
        .where(
            in_state(table, Status.FAILED),
            table.c.completed_at >= window.start,
            table.c.completed_at < window.end,
        )
        .subquery()
    )
    rows = db.execute(
        select(
            failed.c.print,
            failed.c.bar,
            func.count().label("rows"),
            func.min(failed.c.completed_at).label("first_at"),
            func.max(failed.c.completed_at).label("last_at"),
            func.max(failed.c.id).label("example_id"),
        ).group_by(failed.c.print, failed.c.bar)
    )
    by_print = defaultdict(list)
    for row in rows:
        by_print[row.print].append(row)
    width = len(list(window.starts()))
    groups = []
    for text, parts in by_print.items():
        bars = [0] * width
        for part in parts:
            bars[part.bar] += part.rows
        groups.append(
            FailureGroup(
                domain=domain.name,
                group=group_of_fingerprint(text),
                fingerprint=text,
                rows=sum(bars),
                first_at=min(part.first_at for part in parts).astimezone(UTC),
                last_at=max(part.last_at for part in parts).astimezone(UTC),
                example_id=max(part.example_id for part in parts),
                bars=tuple(bars),
            )
        )
    groups.sort(key=lambda group: (-group.rows, group.fingerprint))
    return FailureGroups(
        domain=domain.name,
        window=window,
        groups=tuple(groups[:most]),
        rows=sum(group.rows for group in groups),
        more_groups=max(0, len(groups) - most),
    )


def in_group(domain: Domain, group: str) -> list[ColumnElement[bool]]:
    """Return the conditions of the FAILED rows of a group, to be joined to those of a filter.

    Args:
        domain: the domain.
        group: the group's id.

    Raises:
        InvalidField: that is no id of a group.
    """
    if len(group) != GROUP_DIGITS or not set(group) <= set("0123456789abcdef"):
        raise InvalidField(
            "group", group, f"is no group of failures, whose ids are {GROUP_DIGITS} hex digits"
        )
    table = table_of(domain.model)
    return [in_state(table, Status.FAILED), group_sql(table.c.error_message) == group]
