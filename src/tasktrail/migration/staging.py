"""The working tables of one reconciliation: which keys it is about, and what their rows become.

They are temporary, made once for each connection, and empty after each commit. Nobody analyzes them, and
of a column that was not analyzed the planner believes that next to nothing in it is NULL; hence
``_is_fine`` and ``_has_failed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tasktrail.errors import DirectionTurned
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import in_schema, listed, matching, qualified, quoted
from tasktrail.migration.plan import Route
from tasktrail.migration.session import Session
from tasktrail.migration.state import REVERSED
from tasktrail.migration.transform import Transform
from tasktrail.migration.triggers import Side

WRITTEN_BACK: Final = "written_back"
"""Reason in the ledger: the new side worked on this unit, and the legacy row was written from it."""


@dataclass(frozen=True, slots=True)
class Staging:
    """The working tables for one legacy table.

    Attributes:
        transform: the SQL of its plan.
        number: of the table within the plan; part of the names.
        schema: where the library's own tables are.
        truth: which side is the truth. While it is the legacy one, a row that the new side worked on and that
            was written back is the migration's again as soon as its legacy row changes.
    """

    transform: Transform
    number: int
    schema: str | None
    truth: Side = "legacy"

    @property
    def keys(self) -> str:
        """The table of the keys that are reconciled."""
        return f"pg_temp.keys_{self.number}"

    def stage(self, route: Route) -> str:
        """The table of what the rows of a route become."""
        return f"pg_temp.stage_{self.number}_{self.transform.table.routes.index(route)}"

    def tail(self, route: Route) -> str:
        """The table of the units that were there before, each with its newest row, until that is broken."""
        return f"pg_temp.tail_{self.number}_{self.transform.table.routes.index(route)}"

    @property
    def shared(self) -> list[Route]:
        """The routes on which several legacy rows may be one unit of work."""
        return [route for route in self.transform.table.routes if not route.keeps_ids]

    @property
    def known(self) -> str:
        """The table of what the ledger said of the keys before."""
        return f"pg_temp.known_{self.number}"

    @property
    def ledger(self) -> str:
        """The ledger, quoted."""
        return in_schema(self.schema, "tasktrail_ledger")

    @property
    def is_known(self) -> str:
        """SQL that is true for the live ledger rows ``l`` of this table."""
        return f"l.table_name = {literal(self.transform.table.name)} AND l.deleted_at IS NULL"

    @property
    def joined(self) -> str:
        """SQL of a FROM clause: the keys ``k`` with their legacy rows ``s``."""
        table = self.transform.table
        on = " AND ".join(f"s.{quoted(name)} = k._k{number}" for number, name in enumerate(table.key))
        return f"{self.keys} k JOIN {self.transform.source} s ON {on}"

    @property
    def is_gone(self) -> str:
        """SQL that is true for the keys ``k`` whose legacy row is not there."""
        table = self.transform.table
        on = " AND ".join(f"s.{quoted(name)} = k._k{number}" for number, name in enumerate(table.key))
        return f"NOT EXISTS (SELECT FROM {self.transform.source} s WHERE {on})"

    @property
    def key_columns(self) -> str:
        """The typed columns of a key in the working tables."""
        return ", ".join(f"_k{number}" for number in range(len(self.transform.table.key)))

    def require_direction(self, session: Session, migration: str) -> None:
        """Make sure that the side is still the truth that was it when the work began.

        Args:
            session: within the transaction that carries changes over, under the lock of the table.
            migration: name of the plan.

        Raises:
            DirectionTurned: it is not.
        """
        phase = session.value(
            f"SELECT phase FROM {in_schema(self.schema, 'tasktrail_migrations')} WHERE name = %(name)s",
            name=migration,
        )
        if (phase in REVERSED) != (self.truth == "new"):
            raise DirectionTurned

    def create(self, session: Session) -> None:
        """Make the tables on a connection, unless it has them."""
        table = self.transform.table
        typed = ", ".join(
            f"_k{number} {self.transform.shape.source[name]}" for number, name in enumerate(table.key)
        )
        session.ensure_temporary(
            self.keys,
            f"_source_key text PRIMARY KEY, {typed}, _error text, _has_failed boolean GENERATED ALWAYS AS "
            "(_error IS NOT NULL) STORED, _old_row text, _round int NOT NULL DEFAULT 0",
        )
        session.ensure_temporary(
            self.known,
            "_source_key text, _round int, _source_hash uuid, _route text, _target_key text, "
            "_disposition text, _target_id bigint, _reason text, _inferred text[], _rule_version int, "
            "_is_live boolean",
        )
        for route in self.shared:
            session.ensure_temporary(
                self.tail(route),
                "_target_key text PRIMARY KEY, _source_key text, _target_id bigint, _updated_at timestamptz, "
                "_older int, _is_broken boolean NOT NULL DEFAULT FALSE",
            )
        for route in table.routes:
            types = self.transform.shape.targets[route.name]
            columns = ", ".join(f"{quoted(name)} {types[name]}" for name in route.columns)
            session.ensure_temporary(
                self.stage(route),
                f"_source_key text, {typed}, _hash uuid, _reason text, _disposition text, _inferred text[], "
                f"_target_key text, {columns}, _taken bigint, _is_pair boolean, "
                "_is_fine boolean GENERATED ALWAYS AS (_reason IS NULL) STORED",
            )

    def fill(self, session: Session, keys: Sequence[str], errors: Sequence[tuple[str, str]] = ()) -> int:
        """Take the keys named, those in ``errors`` as rows whose transform fails, with the reason.

        Args:
            session: within a transaction.
            keys: as the ledger writes them.
            errors: keys among them and reasons.

        Returns:
            How many there are.
        """
        values = ", ".join(self.transform.key_values("key"))
        return session.run(
            f"INSERT INTO {self.keys} (_source_key, {self.key_columns}, _error) "
            f"SELECT key, {values}, e.reason FROM unnest(%(keys)s::text[]) AS key "
            "LEFT JOIN unnest(%(bad)s::text[], %(reasons)s::text[]) AS e (bad, reason) ON e.bad = key "
            "ON CONFLICT DO NOTHING",
            keys=list(keys),
            bad=[key for key, _ in errors],
            reasons=[reason for _, reason in errors],
        )

    def recall(self, session: Session, number: int) -> int:
        """Look up what the ledger says of the keys of one round, also of rows that were deleted.

        Returns:
            Of how many it says something.
        """
        return session.run(f"""
            INSERT INTO {self.known}
            SELECT k._source_key, k._round, l.source_hash, l.route, l.target_key, l.disposition, l.target_id,
                l.reason, l.inferred, l.rule_version, l.deleted_at IS NULL
            FROM {self.keys} k JOIN {self.ledger} l ON l.source_key = k._source_key
                AND l.table_name = {literal(self.transform.table.name)}
            WHERE k._round = {number}
        """)

    def transform_round(self, session: Session, number: int) -> int:
        """Stage what the rows of the keys of one round become.

        Returns:
            How many rows took a route; the others take none, fail, or are gone.
        """
        new = f"k._round = {number} AND NOT k._has_failed"
        staged = 0
        for route in self.transform.table.routes:
            columns = (
                f"_source_key, {self.key_columns}, _hash, _reason, _disposition, _inferred, _target_key, "
                f"{listed(list(route.columns))}"
            )
            rows = self.transform.rows(route, self.joined, new)
            staged += session.run(f"INSERT INTO {self.stage(route)} ({columns}) {rows}")
        return staged

    def add_groups(self, session: Session, number: int) -> int:
        """Take the keys of the rows that share a unit of work with a staged one, or did before.

        Of a unit of which only the newest rows changed it is the newest one before.

        Args:
            session: within a transaction.
            number: of the round that the new keys belong to.

        Returns:
            How many were added.
        """
        if not self.shared:
            return 0
        staged = " UNION ALL ".join(
            f"SELECT {literal(route.name)} AS route, st._source_key, st._target_key AS target_key "
            f"FROM {self.stage(route)} st WHERE st._is_fine"
            for route in self.shared
        )
        tails = " UNION ALL ".join(
            f"SELECT {literal(route.name)} AS route, _target_key AS target_key, _source_key AS source_key, "
            f"_is_broken FROM {self.tail(route)}"
            for route in self.shared
        )
        before = f"n._is_live AND n._round = {number - 1}"
        if number == 1:
            groups = f"""
                SELECT route, target_key FROM ({staged}) now
                UNION
                SELECT _route, _target_key FROM {self.known} n WHERE {before} AND _target_key IS NOT NULL
            """
        else:  # all that the ledger counts to a group came with it; only a row that has left it leads on
            groups = f"""
                SELECT now.route, now.target_key
                FROM ({staged}) now JOIN {self.known} n ON n._source_key = now._source_key AND {before}
                WHERE (n._route, n._target_key) IS DISTINCT FROM (now.route, now.target_key)
                UNION SELECT route, target_key FROM ({tails}) tail WHERE _is_broken
            """
        values = ", ".join(self.transform.key_values("source_key"))
        return session.run(f"""
            WITH groups AS ({groups}), intact AS (SELECT * FROM ({tails}) tail WHERE NOT _is_broken),
            found AS (
                SELECT member.source_key
                FROM (SELECT * FROM groups EXCEPT SELECT route, target_key FROM intact) g
                CROSS JOIN LATERAL (
                    SELECT l.source_key FROM {self.ledger} l
                    WHERE l.target_key = g.target_key AND l.route = g.route
                        AND {self.is_known} AND l.target_key IS NOT NULL
                    OFFSET 0
                ) member
                UNION ALL
                SELECT source_key FROM intact
            )
            INSERT INTO {self.keys} (_source_key, {self.key_columns}, _round)
            SELECT source_key, {values}, {number} FROM found
            ON CONFLICT DO NOTHING
        """)

    def mark_taken(self, session: Session, route: Route) -> None:
        """Mark the staged rows whose unit of work is a row of the target that the migration does not own."""
        stage = self.stage(route)
        # Who owns a unit of work is asked once for all of its rows, of which there may be thousands.
        session.run(f"""
            UPDATE {stage} st SET _taken = u.id, _is_pair = {self.is_pair(route, "u", "st")}
            FROM (
                SELECT t.id, one._target_key
                FROM (SELECT DISTINCT {listed(route.key)}, _target_key FROM {stage} WHERE _is_fine) one
                JOIN {qualified(route.target)} t ON {matching("t", "one", route.key)}
                WHERE NOT ({self.owned(route, "t", "one._target_key")})
            ) u
            WHERE st._target_key = u._target_key AND st._is_fine
        """)

    def is_pair(self, route: Route, alias: str, source: str) -> str:
        """Return SQL that is true when a row of the target is the same unit of work as a legacy row.

        Where ids are kept, two units may have met in one id; then the ledger does not link them.

        Args:
            route: the route.
            alias: of the row of the target.
            source: alias of what the legacy row becomes.
        """
        if not route.keeps_ids:
            return "TRUE"
        return (
            f"EXISTS (SELECT FROM {self.ledger} l WHERE {self.is_known} AND l.route = {literal(route.name)} "
            f"AND l.source_key = {source}._source_key AND l.target_id = {alias}.id "
            "AND l.disposition IN ('migrated', 'consolidated'))"
        )

    def owned(self, route: Route, alias: str, target_key: str) -> str:
        """Return SQL that is true for rows of the target that the migration may write to.

        Whoever runs a job, or starts it again, gives the row a Celery id or a worker.

        Args:
            route: the route.
            alias: of the row of the target.
            target_key: SQL for its key, as the ledger writes it.
        """
        return (
            f"EXISTS (SELECT FROM {self.ledger} l WHERE {self.is_known} AND l.route = {literal(route.name)} "
            f"AND l.target_key = {target_key} AND l.target_key IS NOT NULL AND l.disposition = 'migrated' "
            f"AND l.target_id = {alias}.id AND {self.is_ours(alias)})"
        )

    def is_ours(self, alias: str, reason: str = "l.reason") -> str:
        """Return SQL that is true for rows of the target that the legacy rows of their unit decide.

        Args:
            alias: of the row of the target.
            reason: SQL for what the ledger gives as the reason of the legacy row.
        """
        untouched = f"{alias}.celery_task_id IS NULL AND {alias}.worker IS NULL"
        if self.truth == "legacy":
            return f"({reason} IS NOT DISTINCT FROM {literal(WRITTEN_BACK)} OR {untouched})"
        return f"({reason} IS DISTINCT FROM {literal(WRITTEN_BACK)} AND {untouched})"
