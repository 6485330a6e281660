"""Writing back: once the tracking tables are the truth, each change of them is written to the legacy tables.

A unit of work that the legacy table knows is written to its newest row, where old readers look; one that it
does not know gets a row. The ledger says ``written_back`` of such rows, and which hash they were left with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tasktrail.migration.difference import Difference
from tasktrail.migration.drift import record, settle
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, key_values, listed, qualified, quoted
from tasktrail.migration.plan import Reverse, Route
from tasktrail.migration.reconcile import DATA_ERRORS
from tasktrail.migration.session import CONFLICTS, PATIENCE, Session, pause_before_retry
from tasktrail.migration.staging import WRITTEN_BACK, Staging
from tasktrail.migration.sync import newest_entry
from tasktrail.migration.transform import HASH
from tasktrail.migration.triggers import NOT_NOTED, Noted
from tasktrail.migration.workspace import Workspace

BATCH: Final = 500
"""How many rows one transaction writes back."""


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Writes the rows of one route back.

    Attributes:
        workspace: the plan and the database.
        staging: of the legacy table.
        route: whose target is read.
        reverse: its way back.
    """

    workspace: Workspace
    staging: Staging
    route: Route
    reverse: Reverse

    @property
    def name(self) -> str:
        """The target's name in the queue."""
        return f"{self.staging.transform.table.name}.{self.route.name}"

    @property
    def noted(self) -> Noted:
        """The triggers of the target."""
        label = f"new_{self.route.target.rpartition('.')[2]}"
        target = qualified(self.route.target)
        return Noted("new", self.name, label, target, self.route.key, self.workspace.schema)

    def create(self, session: Session) -> None:
        """Make the working table on a connection, unless it has it."""
        columns = "_target_key text PRIMARY KEY, _source_key text, _is_new boolean NOT NULL DEFAULT FALSE"
        session.ensure_temporary(self._work, columns)

    def apply(self, session: Session) -> int:
        """Write back what is in the queue, until it is empty or only holds what came meanwhile.

        A row that the legacy table cannot hold is reported as drift, and is no longer in the queue.

        Args:
            session: outside any transaction.

        Returns:
            How many rows were written back, or found to be impossible.

        Raises:
            DirectionTurned: the legacy side has become the truth; nothing was changed.
        """
        newest = newest_entry(session, self.workspace, "new", self.name)
        if newest is None:
            return 0
        self.create(session)
        done = 0
        while keys := self.waiting(session, newest):
            with session.locked(self.workspace.plan.name, self.staging.transform.table.name):
                written = self._by_halves(session, keys, newest)
            if not written:
                break  # all that is left waits for what an old worker wrote to the same rows
            done += written
        return done

    def within(self, session: Session, keys: Sequence[str], newest: int) -> int:
        """Write some rows back within a transaction of the caller's, who holds the lock of the table.

        Args:
            session: within a snapshot that carries changes over, the working table made.
            keys: of the target, as the ledger writes them.
            newest: id of the last entry of the queue to take.

        Returns:
            How many were written back; the others wait for what an old worker wrote to the same rows.

        Raises:
            psycopg.Error: the legacy table cannot hold one of them, or somebody else wrote to it.
        """
        session.run(f"DELETE FROM {self._work}")
        session.run(
            f"INSERT INTO {self._work} (_target_key) SELECT unnest(%(keys)s::text[])", keys=list(keys)
        )
        session.run(self._link)
        session.run(self._name_new)
        session.run(self._leave_to_stragglers)
        session.run(
            f"DELETE FROM {self._changes} c USING {self._work} b WHERE {self._is_entry('c')} "
            "AND c.source_key = b._target_key AND c.id <= %(newest)s",
            newest=newest,
        )
        session.run(self._delete)
        session.run(self._update)
        session.run(self._insert)
        session.run(self._note)
        session.run(self._note_older)
        return int(session.value(f"SELECT count(*) FROM {self._work}"))

    def note_since(self, session: Session, moment: datetime) -> None:
        """Note all rows that changed or went since a moment at which no trigger was on any more.

        Args:
            session: within a transaction.
            moment: from then on.
        """
        target, key = qualified(self.route.target), key_text("t", self.route.key)
        session.run(
            f"INSERT INTO {self._changes} (side, table_name, source_key, operation) "
            f"SELECT 'new', {literal(self.name)}, {key}, 'U' FROM {target} t "
            "WHERE t.updated_at >= %(moment)s OR t.created_at >= %(moment)s "
            f"UNION ALL SELECT 'new', {literal(self.name)}, l.target_key, 'D' FROM {self.staging.ledger} l "
            f"WHERE {self.staging.is_known} AND l.route = {literal(self.route.name)} "
            "AND l.disposition = 'migrated' AND l.target_key IS NOT NULL "
            f"AND NOT EXISTS (SELECT FROM {target} t WHERE t.id = l.target_id)",
            moment=moment,
        )

    def waiting(self, session: Session, newest: int) -> list[str]:
        """Return the keys of a batch of entries of the queue, the oldest first.

        Args:
            session: a connection.
            newest: id of the last entry that counts.
        """
        return [
            row["source_key"]
            for row in session.rows(
                f"SELECT source_key FROM {self._changes} c WHERE {self._is_entry('c')} AND id <= %(newest)s "
                f"GROUP BY source_key ORDER BY min(id) LIMIT {BATCH}",
                newest=newest,
            )
        ]

    def _by_halves(self, session: Session, keys: list[str], newest: int) -> int:
        """Write rows back, each as soon as those that cannot be written are set apart."""
        try:
            return self._once(session, keys, newest)
        except DATA_ERRORS as error:
            if len(keys) > 1:
                half = len(keys) // 2
                first = self._by_halves(session, keys[:half], newest)
                return first + self._by_halves(session, keys[half:], newest)
            self._report(session, keys[0], newest, str(error).splitlines()[0])
            return 1

    def _once(self, session: Session, keys: list[str], newest: int) -> int:
        for attempt in range(PATIENCE):
            try:
                with session.snapshot():
                    session.run(NOT_NOTED)
                    self.staging.require_direction(session, self.workspace.plan.name)
                    written = self.within(session, keys, newest)
                    settle(session, self.workspace, "unwritable", [self._said(key) for key in keys])
                    return written
            except CONFLICTS:
                if attempt == PATIENCE - 1:
                    raise
                pause_before_retry(attempt)
        raise AssertionError("the loop above returns or raises")

    def _report(self, session: Session, key: str, newest: int, why: str) -> None:
        table = self.staging.transform.table
        with session.transaction():
            session.run(
                f"DELETE FROM {self._changes} c WHERE {self._is_entry('c')} AND c.source_key = %(key)s "
                "AND id <= %(newest)s",
                key=key,
                newest=newest,
            )
            difference = Difference(
                "unwritable", table.name, self._said(key), f"{table.source} cannot hold it", found=why
            )
            record(session, self.workspace, [difference])

    def _said(self, key: str) -> str:
        return f"{self.route.name} {key}"

    # The SQL

    @property
    def _work(self) -> str:
        number = self.staging.transform.table.routes.index(self.route)
        return f"pg_temp.back_{self.staging.number}_{number}"

    @property
    def _changes(self) -> str:
        return self.workspace.own("tasktrail_changes")

    def _is_entry(self, alias: str) -> str:
        return f"{alias}.side = 'new' AND {alias}.table_name = {literal(self.name)}"

    @property
    def _source_types(self) -> dict[str, str]:
        return dict(self.staging.transform.shape.source)

    @property
    def _targets(self) -> str:
        """SQL of a FROM clause: the rows ``t`` of the target whose keys ``b`` are worked on."""
        return f"{self._work} b JOIN {qualified(self.route.target)} t ON {self._is_target}"

    @property
    def _is_target(self) -> str:
        """SQL that is true for the row ``t`` of the target of the key ``b``."""
        types = self.staging.transform.shape.targets[self.route.name]
        values = key_values("b._target_key", self.route.key, types)
        return " AND ".join(
            f"t.{quoted(name)} = {value}" for name, value in zip(self.route.key, values, strict=True)
        )

    @property
    def _legacy(self) -> str:
        """SQL that is true for the legacy row ``s`` of the key ``b``."""
        table = self.staging.transform.table
        values = self.staging.transform.key_values("b._source_key")
        return " AND ".join(
            f"s.{quoted(name)} = {value}" for name, value in zip(table.key, values, strict=True)
        )

    def _values(self, names: Sequence[str]) -> str:
        """SQL of a select list: what legacy columns are to hold, of their types."""
        return ", ".join(
            f"({self.reverse.columns[name]})::{self._source_types[name]} AS {quoted(name)}" for name in names
        )

    @property
    def _members(self) -> str:
        """SQL of a condition: live ledger rows ``l`` of the units of work ``b``."""
        return (
            f"{self.staging.is_known} AND l.route = {literal(self.route.name)} "
            "AND l.target_key = b._target_key AND l.target_key IS NOT NULL "
            "AND l.disposition IN ('migrated', 'consolidated')"
        )

    @property
    def _link(self) -> str:
        """Name the newest legacy row of each unit of work, where old readers look."""
        newest = ", ".join(f"{value} DESC" for value in self.staging.transform.key_values("l.source_key"))
        return f"""
            UPDATE {self._work} w SET _source_key = newest.source_key FROM (
                SELECT DISTINCT ON (b._target_key) b._target_key, l.source_key
                FROM {self._work} b JOIN {self.staging.ledger} l ON {self._members}
                ORDER BY b._target_key, {newest}
            ) newest WHERE w._target_key = newest._target_key
        """

    @property
    def _name_new(self) -> str:
        """Give a key to the legacy rows that are to be added."""
        table = self.staging.transform.table
        if set(table.key) <= self.reverse.columns.keys():
            names = [f"({self.reverse.columns[name]})" for name in table.key]
            key = f"{names[0]}::text" if len(names) == 1 else f"jsonb_build_array({', '.join(names)})::text"
        else:
            sequence = f"pg_get_serial_sequence({literal(qualified(table.source))}, {literal(table.key[0])})"
            key = f"nextval({sequence})::text"
        return f"""
            UPDATE {self._work} w SET _source_key = named.key, _is_new = TRUE FROM (
                SELECT b._target_key, {key} AS key FROM {self._targets} WHERE b._source_key IS NULL
            ) named WHERE w._target_key = named._target_key
        """

    @property
    def _leave_to_stragglers(self) -> str:
        """Leave alone what an old worker has written to since: that comes first."""
        name = literal(self.staging.transform.table.name)
        return (
            f"DELETE FROM {self._work} b USING {self._changes} c WHERE c.side = 'legacy' "
            f"AND c.table_name = {name} AND c.source_key = b._source_key"
        )

    @property
    def _is_gone(self) -> str:
        return f"NOT EXISTS (SELECT FROM {qualified(self.route.target)} t WHERE {self._is_target})"

    @property
    def _delete(self) -> str:
        """Delete the legacy rows of a unit of work that was deleted on the new side; keep them as they were.

        It is one statement, since no index finds ledger rows of which it says that they are deleted.
        """
        transform = self.staging.transform
        raw, name = self.workspace.own("tasktrail_raw"), literal(transform.table.name)
        values = transform.key_values("gone.source_key")
        is_its_row = " AND ".join(
            f"s.{quoted(column)} = {value}" for column, value in zip(transform.table.key, values, strict=True)
        )
        return f"""
            WITH gone AS (
                UPDATE {self.staging.ledger} l SET deleted_at = now() FROM {self._work} b
                WHERE {self._members} AND {self._is_gone} RETURNING l.source_key, l.source_hash
            ),
            kept AS (
                INSERT INTO {raw} AS w (table_name, source_key, source_hash, raw)
                SELECT {name}, gone.source_key, gone.source_hash, row_to_json(s)::text
                FROM gone JOIN {transform.source} s ON {is_its_row}
                ON CONFLICT (table_name, source_key) DO UPDATE SET source_hash = excluded.source_hash,
                    raw = excluded.raw, noted_at = now()
            )
            DELETE FROM {transform.source} s USING gone WHERE {is_its_row}
        """

    @property
    def _update(self) -> str:
        names = self.reverse.changed
        if not names:
            return "SELECT"
        assignments = ", ".join(f"{quoted(name)} = v.{quoted(name)}" for name in names)
        keys = ", ".join(
            f"{value} AS _k{number}"
            for number, value in enumerate(self.staging.transform.key_values("b._source_key"))
        )
        on = " AND ".join(
            f"s.{quoted(name)} = v._k{number}" for number, name in enumerate(self.staging.transform.table.key)
        )
        # As text, since plain JSON cannot be compared.
        return f"""
            UPDATE {self.staging.transform.source} s SET {assignments} FROM (
                SELECT {keys}, {self._values(names)} FROM {self._targets} WHERE NOT b._is_new
            ) v WHERE {on}
                AND ROW({listed(names, "s")})::text IS DISTINCT FROM ROW({listed(names, "v")})::text
        """

    @property
    def _insert(self) -> str:
        table = self.staging.transform.table
        names = list(self.reverse.columns)
        rows = self._values(names)
        if not set(table.key) <= set(names):
            names = [*table.key, *names]
            rows = f"{self.staging.transform.key_values('b._source_key')[0]}, {rows}"
        return (
            f"INSERT INTO {self.staging.transform.source} ({listed(names)}) OVERRIDING SYSTEM VALUE "
            f"SELECT {rows} FROM {self._targets} WHERE b._is_new"
        )

    @property
    def _note(self) -> str:
        """Say in the ledger which legacy row stands for the unit of work now, and with which hash."""
        transform = self.staging.transform
        name, version = literal(transform.table.name), transform.table.rule_version
        said = ("source_hash", "disposition", "route", "target_key", "target_id", "reason", "inferred",
                "rule_version", "deleted_at")  # fmt: skip
        assignments = ", ".join(f"{column} = excluded.{column}" for column in said)
        return f"""
            INSERT INTO {self.staging.ledger} AS l (table_name, source_key, source_hash, disposition, route,
                target_key, target_id, reason, inferred, rule_version, chunk)
            SELECT {name}, b._source_key, {HASH}, 'migrated', {literal(self.route.name)}, b._target_key, t.id,
                {literal(WRITTEN_BACK)}, NULL, {version}, 0
            FROM {self._targets} JOIN {transform.source} s ON {self._legacy}
            ON CONFLICT (table_name, source_key) DO UPDATE SET {assignments}
        """

    @property
    def _note_older(self) -> str:
        return f"""
            UPDATE {self.staging.ledger} l SET disposition = 'consolidated', reason = 'newer_row'
            FROM {self._work} b WHERE {self._members} AND l.source_key <> b._source_key
                AND l.disposition = 'migrated'
        """


def ways_back(workspace: Workspace, stagings: Sequence[Staging]) -> list[WriteBack]:
    """Return what writes back each route of a plan that has a way back.

    Args:
        workspace: the plan and the database.
        stagings: of the tables.
    """
    return [
        WriteBack(workspace, staging, route, route.reverse)
        for staging in stagings
        for route in staging.transform.table.routes
        if route.reverse is not None
    ]


def lost_on_the_way_back(session: Session, way: WriteBack) -> list[Difference]:
    """Return rows that the legacy table could hold only as something else, by the rules of the way forth.

    Args:
        session: a connection; what is in the queue was written back.
        way: of one route.
    """
    transform = way.staging.transform
    written = (
        f"(SELECT l.source_key, l.target_id FROM {way.staging.ledger} l WHERE {way.staging.is_known} "
        f"AND l.route = {literal(way.route.name)} AND l.reason = {literal(WRITTEN_BACK)})"
    )
    among = f"{written} w JOIN {transform.source} s ON {transform.source_key} = w.source_key"
    key = key_text("t", way.route.key)
    rows = session.rows(f"""
        SELECT {key} AS key, t.status AS expected,
            coalesce(r.status, r._reason) AS found
        FROM ({transform.rows(way.route, among)}) r JOIN {written} w ON w.source_key = r._source_key
        JOIN {qualified(way.route.target)} t ON t.id = w.target_id
        WHERE r.status IS DISTINCT FROM t.status OR r._target_key IS DISTINCT FROM {key}
        ORDER BY t.id
    """)
    table = transform.table.name
    return [
        Difference(
            "unwritable", table, f"{way.route.name} {row['key']}", "comes back as something else", "status",
            row["expected"], row["found"],
        )
        for row in rows
    ]  # fmt: skip
