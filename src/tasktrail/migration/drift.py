"""What comparisons found, kept in tables: drift that is open, drift that healed, and the passes themselves.

An entry is one difference from when it was first seen until it is seen no more. One that comes back is a
new entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from tasktrail.errors import describe
from tasktrail.migration.compare import Comparison
from tasktrail.migration.difference import Difference, Way
from tasktrail.migration.plan import KnownDifference, MigrationPlan
from tasktrail.migration.session import Session
from tasktrail.migration.verify import MOST_SHOWN
from tasktrail.migration.workspace import Workspace

COMPARED: Final[tuple[Way, ...]] = ("account", "checksum", "pair")
"""Who finds differences in a pass; only their entries heal by a pass that does not see them any more."""

STORED: Final = "started_at, finished_at, compared, pending, pairs, only_new, mismatches, known, healed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One difference, from when it was first seen on.

    Attributes:
        difference: as it was seen last.
        known_as: the rule of the plan that explains it; None where none does.
        passes: how many passes saw it.
        first_seen_at: when it was first seen.
        last_seen_at: when it was last seen.
        healed_at: when it was seen no more; None while it is open.
    """

    difference: Difference
    known_as: str | None
    passes: int
    first_seen_at: datetime
    last_seen_at: datetime
    healed_at: datetime | None

    @property
    def is_transient(self) -> bool:
        """Whether it was gone at the next pass: most likely the two sides were only looked at in between."""
        return self.healed_at is not None and self.passes == 1 and self.difference.way in COMPARED


@dataclass(frozen=True, slots=True)
class Pass:
    """One comparison, as it was stored.

    Attributes:
        started_at: before the first row was looked at.
        finished_at: when it was stored.
        compared: rows and pairs that were looked at.
        pending: those left out, as a change is in the queue or one side has not finished.
        pairs: units of work that both sides did and that were compared.
        only_new: units of work that only the new side did.
        mismatches: open differences that no rule of the plan explains, and rows that were not named.
        known: open differences that a rule explains.
        healed: entries that were open before and are no more.
    """

    started_at: datetime
    finished_at: datetime
    compared: int
    pending: int
    pairs: int
    only_new: int
    mismatches: int
    known: int
    healed: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is open that no rule explains."""
        return self.mismatches == 0


@dataclass(frozen=True, slots=True)
class Explained:
    """What the plan's rules say about differences.

    Attributes:
        names: for each difference the rule that explains it, or None.
        warnings: rules that failed, and rules that would have explained something but have expired.
    """

    names: tuple[str | None, ...]
    warnings: tuple[str, ...]


def explain(plan: MigrationPlan, differences: Sequence[Difference], today: date) -> Explained:
    """Ask the known differences of a plan about each difference.

    A difference about which any rule that holds fails is explained by none: it counts.

    Args:
        plan: its ``known`` are the rules.
        differences: what was found.
        today: the day in UTC.
    """
    names: list[str | None] = []
    failures: dict[str, list[str]] = {}
    late: dict[str, list[str]] = {}
    for difference in differences:
        matching: list[str] = []
        has_failed = False
        for rule in plan.known:
            try:
                applies = rule.applies(difference)
            except Exception as error:  # noqa: BLE001  # a rule that breaks must not excuse anything
                if today <= rule.expires:
                    has_failed = True
                    failures.setdefault(rule.name, []).append(f"{_shown(difference)}: {describe(error)}")
                continue
            if applies and today <= rule.expires:
                matching.append(rule.name)
            elif applies:
                late.setdefault(rule.name, []).append(_shown(difference))
        names.append(matching[0] if matching and not has_failed else None)
    rules = {rule.name: rule for rule in plan.known}
    return Explained(tuple(names), (*_failed(failures), *_expired(late, rules)))


def store(session: Session, workspace: Workspace, comparison: Comparison) -> tuple[Pass, tuple[str, ...]]:
    """Store what a pass found: open new entries, refresh those seen again, and close the others.

    Of a way that found more than ``MOST_SHOWN`` rows nothing is closed, as not all of them are named.

    Args:
        session: within a transaction.
        workspace: the plan and the database.
        comparison: what was found.

    Returns:
        The pass as it was stored, and what is to be said of the plan's rules.
    """
    found = [one for verdict in comparison.verdicts for one in verdict.differences]
    warnings = record(session, workspace, found)
    complete = [verdict.way for verdict in comparison.verdicts if verdict.differing <= MOST_SHOWN]
    healed = session.run(
        f"UPDATE {_drift(workspace)} SET healed_at = clock_timestamp() WHERE migration = %(name)s "
        # Within a transaction now() stands still: it is what was just recorded as seen.
        "AND healed_at IS NULL AND found_by = ANY(%(complete)s) AND last_seen_at < now()",
        name=workspace.plan.name,
        complete=complete,
    )
    unnamed = sum(max(0, verdict.differing - MOST_SHOWN) for verdict in comparison.verdicts)
    rows = session.rows(
        f"INSERT INTO {workspace.own('tasktrail_comparisons')} (migration, {STORED}) "
        "SELECT %(name)s::text, %(started_at)s::timestamptz, clock_timestamp(), %(compared)s::bigint, "
        "%(pending)s::bigint, %(pairs)s::bigint, "
        "%(only_new)s::bigint, count(*) FILTER (WHERE known_as IS NULL) + %(unnamed)s::bigint, "
        "count(known_as), %(healed)s::bigint "
        f"FROM {_drift(workspace)} WHERE migration = %(name)s::text AND healed_at IS NULL "
        f"RETURNING {STORED}",
        name=workspace.plan.name,
        started_at=comparison.started_at,
        compared=comparison.compared,
        pending=comparison.pending,
        pairs=comparison.pairs,
        only_new=comparison.only_new,
        unnamed=unnamed,
        healed=healed,
    )
    return Pass(**rows[0]), warnings


def record(session: Session, workspace: Workspace, differences: Iterable[Difference]) -> tuple[str, ...]:
    """Open an entry for each difference, or note that an open one was seen again.

    Args:
        session: a connection; it is one statement.
        workspace: the plan and the database.
        differences: what was found, by whatever way.

    Returns:
        What is to be said of the plan's rules for known differences.
    """
    found = list({_identity(one): one for one in differences}.values())
    if not found:
        return ()
    today = session.value("SELECT (now() AT TIME ZONE 'UTC')::date")
    explained = explain(workspace.plan, found, today)
    session.run(
        f"INSERT INTO {_drift(workspace)} AS d (migration, table_name, found_by, row_key, what, "
        "column_name, expected, found, known_as, first_seen_at, last_seen_at) "
        "SELECT %(name)s::text, f.*, now(), now() FROM unnest(%(tables)s::text[], %(ways)s::text[], "
        "%(keys)s::text[], %(whats)s::text[], %(columns)s::text[], %(expected)s::text[], %(found)s::text[], "
        "%(known)s::text[]) AS f "
        "ON CONFLICT (migration, table_name, found_by, md5(row_key), what, column_name) "
        "WHERE healed_at IS NULL DO UPDATE SET passes = d.passes + 1, expected = excluded.expected, "
        "found = excluded.found, known_as = excluded.known_as, "
        "last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at)",
        name=workspace.plan.name,
        tables=[one.table for one in found],
        ways=[one.way for one in found],
        keys=[one.key for one in found],
        whats=[one.what for one in found],
        columns=[one.column for one in found],
        expected=[one.expected for one in found],
        found=[one.found for one in found],
        known=list(explained.names),
    )
    return explained.warnings


def settle(
    session: Session,
    workspace: Workspace,
    way: Way,
    keys: Sequence[str] | None = None,
    *,
    table: str | None = None,
) -> int:
    """Close open entries of some rows, because they are as they should be now.

    Args:
        session: a connection.
        workspace: the plan and the database.
        way: who found them.
        keys: of the rows; all, when none is named.
        table: only rows of this table of the plan.

    Returns:
        How many were closed.
    """
    return session.run(
        f"UPDATE {_drift(workspace)} SET healed_at = clock_timestamp() WHERE migration = %(name)s "
        "AND healed_at IS NULL AND found_by = %(way)s "
        "AND (%(keys)s::text[] IS NULL OR row_key = ANY(%(keys)s)) "
        "AND (%(table)s::text IS NULL OR table_name = %(table)s)",
        name=workspace.plan.name,
        way=way,
        keys=None if keys is None else list(keys),
        table=table,
    )


def entries(
    session: Session, workspace: Workspace, *, healed: bool = False, limit: int | None = None
) -> list[Entry]:
    """Return the open entries, those that no rule explains first; then, if wanted, those that healed.

    Args:
        session: a connection.
        workspace: the plan and the database.
        healed: whether healed ones are wanted, too, the latest first.
        limit: how many at most; None for all.
    """
    rows = session.rows(
        "SELECT found_by, table_name, row_key, what, column_name, expected, found, known_as, passes, "
        f"first_seen_at, last_seen_at, healed_at FROM {_drift(workspace)} WHERE migration = %(name)s "
        "AND (healed_at IS NULL OR %(healed)s) ORDER BY healed_at DESC NULLS FIRST, "
        "known_as NULLS FIRST, table_name, found_by, row_key, column_name, id LIMIT %(limit)s",
        name=workspace.plan.name,
        healed=healed,
        limit=limit,
    )
    return [_entry(row) for row in rows]


def passes(session: Session, workspace: Workspace, limit: int = 10) -> list[Pass]:
    """Return the last passes, the newest first.

    Args:
        session: a connection.
        workspace: the plan and the database.
        limit: how many at most.
    """
    rows = session.rows(
        f"SELECT {STORED} FROM {workspace.own('tasktrail_comparisons')} "
        "WHERE migration = %(name)s ORDER BY id DESC LIMIT %(limit)s",
        name=workspace.plan.name,
        limit=limit,
    )
    return [Pass(**row) for row in rows]


def clean_passes(session: Session, workspace: Workspace, since: datetime) -> int:
    """Return how many passes in a row were clean, the newest first.

    Args:
        session: a connection.
        workspace: the plan and the database.
        since: passes that began before are not counted, e.g. when the phase began.
    """
    return int(
        session.value(
            f"SELECT count(*) FROM {workspace.own('tasktrail_comparisons')} "
            "WHERE migration = %(name)s AND started_at >= %(since)s AND id > coalesce(("
            f"SELECT max(id) FROM {workspace.own('tasktrail_comparisons')} "
            "WHERE migration = %(name)s AND mismatches > 0), 0)",
            name=workspace.plan.name,
            since=since,
        )
    )


def _drift(workspace: Workspace) -> str:
    return workspace.own("tasktrail_drift")


def _identity(difference: Difference) -> tuple[str, ...]:
    return (difference.table, difference.way, difference.key, difference.what, difference.column)


def _entry(row: dict[str, Any]) -> Entry:
    difference = Difference(
        way=row.pop("found_by"),
        table=row.pop("table_name"),
        key=row.pop("row_key"),
        what=row.pop("what"),
        column=row.pop("column_name"),
        expected=row.pop("expected"),
        found=row.pop("found"),
    )
    return Entry(difference, **row)


def _shown(difference: Difference) -> str:
    return f"{difference.table} {difference.key} {difference.what} {difference.column}".rstrip()


def _failed(failures: dict[str, list[str]]) -> Iterable[str]:
    for name, examples in failures.items():
        yield (
            f"the rule {name!r} of the plan failed on {len(examples)} differences, which count as "
            f"mismatches; e.g. {examples[0]}"
        )


def _expired(late: dict[str, list[str]], rules: dict[str, KnownDifference]) -> Iterable[str]:
    for name, examples in late.items():
        yield (
            f"the rule {name!r} of the plan expired on {rules[name].expires}; it would explain "
            f"{len(examples)} differences, e.g. {examples[0]}"
        )
