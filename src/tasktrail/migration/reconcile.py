"""The one way in which legacy rows reach the new tables: reconciling those of some keys.

Backfill, live sync, the anti-join for rows that were missed, and redrive differ only in the keys they
name. All statements of a reconciliation see one snapshot, under a lock on the legacty table's migration,
and commit together with the cursor or the queue entries that gave the keys. So it can be repeated,
interrupted and cut into pieces of any size, and ends in the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from psycopg import errors

from tasktrail.errors import ErrorBudgetExceeded
from tasktrail.migration import tails
from tasktrail.migration.expressions import literal
from tasktrail.migration.groups import logged, ranked
from tasktrail.migration.names import in_schema, listed, matching, qualified, quoted
from tasktrail.migration.plan import Route
from tasktrail.migration.session import CONFLICTS, PATIENCE, Session, pause_before_retry
from tasktrail.migration.staging import Staging
from tasktrail.migration.transform import HASH
from tasktrail.migration.triggers import NOT_NOTED

Fill: TypeAlias = Callable[[Session], int]
"""Puts keys into the working table, within the transaction; returns how many."""

DATA_ERRORS: Final = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded)
"""What a row raises that its transform did not expect."""

HELD: Final = ("next_attempt_at", "heartbeat_at", "worker", "dispatched_at", "celery_task_id")
"""NULL in a mirrored row, so that nothing dispatches or rescues it (ADR 9)."""

RENEWED: Final = (
    "ON CONFLICT (table_name, source_key) DO UPDATE SET source_hash = excluded.source_hash, "
    "raw = excluded.raw, noted_at = now(), accepted_at = NULL, accepted_by = NULL, accepted_note = NULL"
)
"""What becomes of a raw row that is there already."""


@dataclass(slots=True)
class Budget:
    """How many rows may make their transform fail before a run is given up.

    Attributes:
        allowed: so many; None for any number.
        failed: keys and what went wrong.
    """

    allowed: int | None = 0
    failed: dict[str, str] = field(default_factory=dict)


class Reconciler:
    """Reconciles the rows of one legacy table.

    Attributes:
        migration: name of the plan.
        staging: the working tables.
        budget: rows that may fail.
        revisited: how many rows the last reconciliation took besides those it was told to, since they share a
            unit of work with them.
    """

    def __init__(self, migration: str, staging: Staging, budget: Budget | None = None) -> None:
        """Remember what to work with.

        Args:
            migration: name of the plan.
            staging: the working tables.
            budget: rows that may fail; by default none.
        """
        self.migration = migration
        self.staging = staging
        self.budget = budget or Budget()
        self.revisited = 0
        self._failing_now: dict[str, str] = {}
        self._transform = staging.transform
        self._table = staging.transform.table
        self._ledger = staging.ledger
        self._raw = in_schema(staging.schema, "tasktrail_raw")

    def run(
        self,
        session: Session,
        fill: Fill,
        *,
        chunk: int = 0,
        finish: Callable[[Session, int], None] | None = None,
    ) -> int:
        """Reconcile a set of keys in one transaction.

        Args:
            session: outside any transaction.
            fill: names the keys; called again when the transaction is repeated.
            chunk: the number noted in the ledger.
            finish: what is to commit together with it; it is given the number of keys.

        Returns:
            How many keys ``fill`` named.

        Raises:
            DirectionTurned: the other side has become the truth; nothing was changed.
            ErrorBudgetExceeded: more rows failed than may; nothing of this transaction is kept.
        """
        self.staging.create(session)
        self._failing_now = {}  # a row that failed before may have been corrected
        with session.locked(self.migration, self._table.name):
            for attempt in range(PATIENCE):
                try:
                    return self._once(session, fill, chunk, finish)
                except CONFLICTS:
                    if attempt == PATIENCE - 1:
                        raise
                    pause_before_retry(attempt)
                except DATA_ERRORS as error:
                    self._find_failing(session, fill, error)
        raise AssertionError("the loop above returns or raises")

    def _once(
        self, session: Session, fill: Fill, chunk: int, finish: Callable[[Session, int], None] | None
    ) -> int:
        with session.snapshot():
            session.run(NOT_NOTED)
            # To a snapshot from before an ALTER TABLE that rewrites the table, or a TRUNCATE, it is empty.
            session.run(f"LOCK TABLE {self._transform.source} IN ACCESS SHARE MODE")
            self.staging.require_direction(session, self.migration)
            count = self.within(session, fill, chunk)
            if finish is not None:
                finish(session, count)
        return count

    def within(self, session: Session, fill: Fill, chunk: int = 0) -> int:
        """Reconcile a set of keys within a transaction of the caller's, who holds the lock of the table.

        Args:
            session: within a snapshot that carries changes over, its working tables made and empty.
            fill: names the keys.
            chunk: the number noted in the ledger.

        Returns:
            How many keys ``fill`` named.

        Raises:
            psycopg.Error: a row makes its transform fail, or somebody else wrote to the same rows.
        """
        count = fill(session)
        if count:
            self._mark_failing(session)
            self._apply(session, chunk, count)
        return count

    def _apply(self, session: Session, chunk: int, named: int) -> None:
        number, staged, known = 0, 0, 0
        added = keys = named
        while added:
            known += self.staging.recall(session, number)
            staged += self.staging.transform_round(session, number)
            number += 1
            tails.review(session, self.staging, number)
            added = self.staging.add_groups(session, number)
            keys += added
        self.revisited = keys - named
        for route in self._table.routes:
            self.staging.mark_taken(session, route)
            if known:
                session.run(self._delete_abandoned(route))
        for route in self._table.routes:
            session.run(self._write(route, chunk, forget=bool(known)))
        if staged < keys:
            session.run(self._note_others(chunk))
            self._note_gone(session, chunk)
        if known:
            self._keep_raw_of_named(session)

    def _write(self, route: Route, chunk: int, *, forget: bool) -> str:
        """Write what is staged for a route: the target, the ledger, and the raw rows.

        It is one statement, so that groups are ranked once, and the ids of new rows need no looking up.
        """
        rows, older = f"{self.staging.stage(route)} st", "0"
        if not route.keeps_ids:
            rows += f" LEFT JOIN {self.staging.tail(route)} tail USING (_target_key)"
            older = "coalesce(tail._older, 0)"
        return f"""
            WITH ranked AS MATERIALIZED ({ranked(self._table, route, rows, "_is_fine", older)}),
            logged AS ({logged(route, "ranked r")}),
            written AS ({self._upsert(route)}),
            noted AS ({self._note(route, chunk)})
            {f", forgotten AS ({self._forget_raw})" if forget else ""}
            {self._keep_raw}
        """

    # The target

    def _upsert(self, route: Route) -> str:
        names = list(route.columns)
        changed = [name for name in names if name not in route.key] + list(HELD) + ["attempt_log"]
        log = "'[]'::jsonb" if route.keeps_ids else tails.log(self.staging, route, "_log")
        assignments = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changed)
        return f"""
            INSERT INTO {qualified(route.target)} AS t
                ({listed(names)}, {listed(HELD)}, attempt_log)
            SELECT {listed(names)}, {", ".join(["NULL"] * len(HELD))}, {log}
            FROM logged WHERE _place = 1 AND _taken IS NULL
            ON CONFLICT ({listed(route.key)}) DO UPDATE SET {assignments}
            WHERE ({listed(changed, "t")}) IS DISTINCT FROM ({listed(changed, "excluded")})
            RETURNING {listed(list(dict.fromkeys([*route.key, "id"])), "t")}
        """

    def _delete_abandoned(self, route: Route) -> str:
        """Delete rows of the target that we wrote and that no legacy row stands for any more."""
        return f"""
            DELETE FROM {qualified(route.target)} t
            USING {self.staging.known} k
            WHERE k._is_live AND k._route = {literal(route.name)} AND k._disposition = 'migrated'
                AND t.id = k._target_id AND {self.staging.is_ours("t", "k._reason")} AND NOT EXISTS (
                    SELECT FROM {self.staging.stage(route)} st WHERE st._target_key = k._target_key
                )
        """

    # The ledger

    def _note(self, route: Route, chunk: int) -> str:
        rows, target_id, is_written = "ranked r", "r.id", "FALSE"
        if not route.keeps_ids:
            # A FULL JOIN is never done in nested loops, whatever the planner believes of the sizes. A row
            # of the target that is as it should be already is not in "written".
            rows = f"ranked r FULL JOIN written w ON {matching('r', 'w', route.key)}"
            there = f"SELECT t.id FROM {qualified(route.target)} t WHERE {matching('t', 'r', route.key)}"
            target_id = f"coalesce(w.id, r._taken, ({there}))"
            is_written = "_place = 1 AND w.id IS NOT NULL"
        return self._say(
            f"""
            SELECT _source_key, _hash,
                CASE WHEN _is_pair IS FALSE THEN 'quarantined' WHEN _place = 1 AND _taken IS NULL THEN
                'migrated' ELSE 'consolidated' END, {literal(route.name)}, _target_key, {target_id},
                CASE WHEN _is_pair THEN 'paired' WHEN _taken IS NOT NULL THEN 'id_taken' WHEN _place > 1 THEN
                'newer_row' END,
                _inferred, {is_written}
            FROM {rows}
            UNION ALL
            SELECT _source_key, _hash, _disposition, {literal(route.name)}, NULL, NULL, _reason, NULL, FALSE
            FROM {self.staging.stage(route)} WHERE NOT _is_fine
            """,
            chunk,
        )

    def _note_others(self, chunk: int) -> str:
        """Note the rows that take no route, and those whose transform fails."""
        rows = self._transform.others(self.staging.joined, "NOT k._has_failed")
        said = self._say(
            f"""
            SELECT _source_key, _hash, _disposition, NULL::text, NULL::text, NULL::bigint, _reason,
                NULL::text[], FALSE
            FROM (
                {rows}
                UNION ALL
                SELECT k._source_key, {HASH}, k._error, 'quarantined'
                FROM {self.staging.joined} WHERE k._has_failed
            ) others
            """,
            chunk,
        )
        return f"WITH noted AS ({said}) {self._keep_raw}"

    def _say(self, rows: str, chunk: int) -> str:
        """Write to the ledger what it does not say yet.

        Most rows of a batch are there since they share a unit of work with one that changed. Of them the
        ledger says it already; an upsert would lock each. But who wrote to the target writes to the ledger,
        too: tails know by it that nobody else has.

        Args:
            rows: a SELECT of key, hash, disposition, route, target key, target id, reason, inferred columns,
                and whether the row of the target was written for this one.
            chunk: the number noted.
        """
        columns = ("source_hash", "disposition", "route", "target_key", "target_id", "reason", "inferred",
                   "rule_version")  # fmt: skip
        changes = ", ".join(f"{name} = excluded.{name}" for name in (*columns, "deleted_at", "chunk"))
        before = ", ".join(f"n._{name}" for name in columns)
        return f"""
            INSERT INTO {self._ledger} AS l (table_name, source_key, {listed(columns)}, chunk)
            SELECT {literal(self._table.name)}, source_key, {listed(columns[:-1])},
                {self._table.rule_version}, {chunk}
            FROM ({rows}) AS said (source_key, {listed(columns[:-1])}, is_written)
            WHERE NOT EXISTS (  -- "is_written OR" before it would have it looked up row by row
                SELECT FROM {self.staging.known} n WHERE n._source_key = said.source_key AND n._is_live
                    AND NOT said.is_written AND ({before}) IS NOT DISTINCT FROM (
                        {listed(columns[:-1], "said")}, {self._table.rule_version})
            )
            ON CONFLICT (table_name, source_key) DO UPDATE SET {changes}
            RETURNING l.source_key, l.source_hash, l.disposition, l.route, l.inferred
        """

    def _note_gone(self, session: Session, chunk: int) -> None:
        """Leave tombstones of rows that were deleted, also of those that came and went unseen."""
        name = literal(self._table.name)
        session.run(f"""
            UPDATE {self._ledger} l SET deleted_at = now(), chunk = {chunk} FROM {self.staging.keys} k
            WHERE {self.staging.is_known} AND l.source_key = k._source_key AND {self.staging.is_gone}
        """)
        session.run(f"""
            INSERT INTO {self._ledger} (table_name, source_key, source_hash, disposition, reason,
            rule_version, chunk,
                deleted_at)
            SELECT {name}, k._source_key, md5(k._old_row)::uuid, 'archived', 'deleted_before_copy',
                {self._table.rule_version}, {chunk}, now()
            FROM {self.staging.keys} k WHERE k._old_row IS NOT NULL AND {self.staging.is_gone}
            ON CONFLICT (table_name, source_key) DO NOTHING
        """)
        session.run(f"""
            INSERT INTO {self._raw} AS w (table_name, source_key, source_hash, raw)
            SELECT {name}, k._source_key, l.source_hash, k._old_row FROM {self.staging.keys} k
            JOIN {self._ledger} l ON l.table_name = {name} AND l.source_key = k._source_key
            WHERE k._old_row IS NOT NULL AND l.deleted_at IS NOT NULL
            {RENEWED}
        """)

    @property
    def _as_it_was(self) -> str:
        """SQL that is true for ledger rows ``l`` whose legacy row arrived whole.

        What the legacy table has no column for is inferred for every row, and nothing is lost by it.
        """
        cases = " ".join(
            f"WHEN {literal(route.name)} THEN ARRAY[{', '.join(map(literal, always))}]::text[]"
            for route in self._table.routes
            if (always := [name for name, condition in route.inferred.items() if condition == "TRUE"])
        )
        harmless = f"coalesce(CASE l.route {cases} END, '{{}}')" if cases else "'{}'"
        return f"l.disposition = 'migrated' AND (l.inferred IS NULL OR l.inferred <@ {harmless}::text[])"

    @property
    def _keep_raw(self) -> str:
        """The statement that keeps rows as they are: those just ``noted`` that were not migrated so.

        Each is fetched by its key. Joined, the planner may read the whole table for every chunk.
        """
        values = self._transform.key_values("l.source_key")
        key = " AND ".join(
            f"s.{quoted(name)} = {value}" for name, value in zip(self._table.key, values, strict=True)
        )
        return f"""
            INSERT INTO {self._raw} AS w (table_name, source_key, source_hash, raw)
            SELECT {literal(self._table.name)}, l.source_key, l.source_hash, s.raw
            FROM noted l CROSS JOIN LATERAL (
                SELECT row_to_json(s)::text AS raw FROM {self._transform.source} s WHERE {key} LIMIT 1
            ) s
            WHERE NOT ({self._as_it_was})
            {RENEWED} WHERE w.source_hash IS DISTINCT FROM excluded.source_hash
        """

    @property
    def _forget_raw(self) -> str:
        """The statement that forgets what was kept of rows just ``noted`` that are migrated whole now."""
        return f"""
            DELETE FROM {self._raw} w USING noted l
            WHERE w.table_name = {literal(self._table.name)} AND w.source_key = l.source_key
                AND {self._as_it_was}
        """

    def _keep_raw_of_named(self, session: Session) -> None:
        """Keep and forget raw rows of the keys that were named as the plan has it now.

        That is, also where the ledger says what it said before.
        """
        name = literal(self._table.name)
        named = f"n._round = 0 AND l.source_key = n._source_key AND {self.staging.is_known}"
        session.run(f"""
            INSERT INTO {self._raw} AS w (table_name, source_key, source_hash, raw)
            SELECT {name}, k._source_key, l.source_hash, row_to_json(s)::text
            FROM {self.staging.joined} JOIN {self.staging.known} n ON n._source_key = k._source_key
            JOIN {self._ledger} l ON {named}
            WHERE k._round = 0 AND NOT ({self._as_it_was})
            {RENEWED} WHERE w.source_hash IS DISTINCT FROM excluded.source_hash
        """)
        session.run(f"""
            DELETE FROM {self._raw} w USING {self.staging.known} n, {self._ledger} l
            WHERE w.table_name = {name} AND w.source_key = n._source_key AND {named} AND {self._as_it_was}
        """)

    # Rows that fail

    def _mark_failing(self, session: Session) -> None:
        if self._failing_now:
            session.run(
                f"UPDATE {self.staging.keys} SET _error = e.reason "
                "FROM unnest(%(keys)s::text[], %(reasons)s::text[]) AS e (key, reason) "
                "WHERE _source_key = e.key",
                keys=list(self._failing_now),
                reasons=[reason.partition(":")[0] for reason in self._failing_now.values()],
            )

    def _find_failing(self, session: Session, fill: Fill, error: Exception) -> None:
        """Find the rows that make the statements fail, by halves, without keeping anything.

        Raises:
            ErrorBudgetExceeded: there are more than may be.
            Exception: the one given, when no row fails by itself.
        """
        with session.snapshot(keep=False):
            fill(session)
            keys = [
                row["_source_key"] for row in session.rows(f"SELECT _source_key FROM {self.staging.keys}")
            ]
        found = self._failing(session, [key for key in keys if key not in self._failing_now])
        if not found:
            raise error
        self._failing_now.update(found)
        self.budget.failed.update(found)
        if self.budget.allowed is not None and len(self.budget.failed) > self.budget.allowed:
            examples = [f"{key}: {why}" for key, why in list(self.budget.failed.items())[:3]]
            raise ErrorBudgetExceeded(
                self._table.name, len(self.budget.failed), self.budget.allowed, examples
            )

    def _failing(self, session: Session, keys: Sequence[str]) -> dict[str, str]:
        try:
            with session.snapshot(keep=False):
                count = self.staging.fill(session, keys)
                self._mark_failing(session)
                self._apply(session, 0, count)
        except DATA_ERRORS as error:
            if len(keys) == 1:
                first_line = str(error).splitlines()[0]
                return {keys[0]: f"error_{error.sqlstate}: {first_line}"}
            half = len(keys) // 2
            return {**self._failing(session, keys[:half]), **self._failing(session, keys[half:])}
        return {}
