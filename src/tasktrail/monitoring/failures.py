"""Failed rows, grouped by what their errors have in common."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    Row,
    Select,
    bindparam,
    func,
    select,
    true,
)

from tasktrail.errors import InvalidField
from tasktrail.fingerprints import LONGEST_READ, fingerprint, group_of
from tasktrail.guards import Model, in_state, table_of
from tasktrail.models import built_once
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

MOST_BARS: Final = 30
"""In so many bars the failures of a window are shown, at most."""

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
        window: the window, in the bars of the groups.
        groups: the largest groups, largest first.
        rows: how many rows failed, in all groups.
        more_groups: how many groups are not shown.
    """

    domain: str
    window: Window
    groups: tuple[FailureGroup, ...]
    rows: int
    more_groups: int

    @property
    def start(self) -> datetime:
        """When the first bar begins."""
        return self.window.start

    @property
    def bar_seconds(self) -> float:
        """Length of a bar."""
        return self.window.step.total_seconds()


def failures(db: Source, domain: Domain, window: Window, *, most: int = MOST_GROUPS) -> FailureGroups:
    """Group the rows that failed in a window, and still are, by the fingerprints of their errors.

    Args:
        db: what to read from.
        domain: the domain.
        window: the window, as ``Window.of`` makes it.
        most: how many groups to return.
    """
    shown = window.in_fewer_bars(MOST_BARS)
    parameters = {"start": shown.start, "end": shown.end, "step": shown.step, "most": most}
    found = db.execute(_grouped(domain.model), parameters).all()
    bars = sum(1 for _ in shown.starts())
    named = sorted(
        (_group(domain, row, bars) for row in found), key=lambda group: (-group.rows, group.fingerprint)
    )
    return FailureGroups(
        domain=domain.name,
        window=shown,
        groups=tuple(named),
        rows=int(found[0].all_rows) if found else 0,
        more_groups=found[0].all_groups - len(found) if found else 0,
    )


@built_once
def _grouped(model: Model) -> Select[Any]:
    """Select the largest groups; parameters: ``start``, ``end``, ``step`` and ``most``."""
    table = table_of(model)
    moment = DateTime(timezone=True)
    start, end = (bindparam(name, type_=moment) for name in ("start", "end"))
    step = bindparam("step", type_=Interval())
    series = func.generate_series(start, end, step).table_valued("bar", with_ordinality="number", name="bars")
    bars = series.render_derived()
    bar = bars.c.bar
    # Bar by bar: a bar has few groups, and its rows lie side by side in the index.
    of_bar = (
        select(
            table.c.failure_group,
            func.count().label("rows"),
            func.min(table.c.completed_at).label("first_at"),
            func.max(table.c.completed_at).label("last_at"),
            func.max(table.c.id).label("example_id"),
        )
        .where(
            in_state(table, Status.FAILED),
            table.c.completed_at >= bar,
            table.c.completed_at < func.least(bar + step, end),
        )
        .group_by(table.c.failure_group)
        .lateral("of_bar")
    )
    cells = (
        select(
            of_bar.c.failure_group.label("group"),
            bars.c.number,
            of_bar.c.rows,
            of_bar.c.first_at,
            of_bar.c.last_at,
            of_bar.c.example_id,
        )
        .select_from(bars.join(of_bar, true()))
        .subquery("cells")
    )
    total = func.sum(cells.c.rows)
    groups = (
        select(
            cells.c.group,
            total.label("rows"),
            func.min(cells.c.first_at).label("first_at"),
            func.max(cells.c.last_at).label("last_at"),
            func.max(cells.c.example_id).label("example_id"),
            func.array_agg(cells.c.number).label("bar_numbers"),
            func.array_agg(cells.c.rows).label("bar_rows"),
            func.sum(total).over().label("all_rows"),
            func.count().over().label("all_groups"),
        )
        .group_by(cells.c.group)
        .order_by(total.desc(), cells.c.group)
        .limit(bindparam("most", type_=Integer()))
        .subquery("groups")
    )
    error = func.left(table.c.error_message, LONGEST_READ).label("error")
    return select(groups, error).join(table, table.c.id == groups.c.example_id)


def _group(domain: Domain, row: Row[Any], bars: int) -> FailureGroup:
    rows = [0] * bars
    for number, count in zip(row.bar_numbers, row.bar_rows, strict=True):
        rows[number - 1] = count
    return FailureGroup(
        domain=domain.name,
        group=row.group.hex,
        fingerprint=fingerprint(row.error),
        rows=int(row.rows),
        first_at=row.first_at.astimezone(UTC),
        last_at=row.last_at.astimezone(UTC),
        example_id=row.example_id,
        bars=tuple(rows),
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
    return [in_state(table, Status.FAILED), table.c.failure_group == UUID(group)]
