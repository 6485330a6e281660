"""Quarantine as a workflow: see the reason, change the rule, drive just those rows again, or accept them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tasktrail.access.audit import whoever
from tasktrail.errors import ConfigurationError
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Row, Session
from tasktrail.migration.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Heap:
    """Quarantined rows of one table with one reason.

    Attributes:
        table: its name in the plan.
        reason: the code.
        rows: how many there are.
        accepted: how many of them somebody has accepted.
        example: key of one of them, one that is not accepted where there is such a one.
    """

    table: str
    reason: str
    rows: int
    accepted: int
    example: str


class Quarantine:
    """The quarantined rows of one migration."""

    def __init__(self, workspace: Workspace) -> None:
        """Remember which one."""
        self._workspace = workspace
        self._from = (
            f"{workspace.own('tasktrail_ledger')} l JOIN {workspace.own('tasktrail_raw')} w "
            "USING (table_name, source_key) WHERE l.disposition = 'quarantined' AND l.deleted_at IS NULL "
            "AND l.table_name = ANY(%(tables)s)"
        )

    def heaps(self, session: Session) -> list[Heap]:
        """Return what is quarantined, by table and reason."""
        rows = session.rows(
            "SELECT table_name, l.reason, count(*) AS rows, count(accepted_at) AS accepted, "
            "(array_agg(source_key ORDER BY accepted_at IS NOT NULL, source_key))[1] AS example "
            f"FROM {self._from} GROUP BY 1, 2 ORDER BY 1, 2",
            tables=self._tables(None),
        )
        return [
            Heap(row["table_name"], row["reason"], row["rows"], row["accepted"], row["example"])
            for row in rows
        ]

    def show(self, session: Session, table: str, key: str) -> Row:
        """Return what is known of one legacy row: the ledger row, and the raw row if that was kept.

        Raises:
            ConfigurationError: the ledger has no such row.
        """
        row = session.row(
            f"SELECT l.*, w.raw, w.noted_at, w.accepted_at, w.accepted_by, w.accepted_note "
            f"FROM {self._workspace.own('tasktrail_ledger')} l "
            f"LEFT JOIN {self._workspace.own('tasktrail_raw')} w USING (table_name, source_key) "
            "WHERE table_name = %(table)s AND source_key = %(key)s",
            table=self._workspace.plan.table(table).name,
            key=key,
        )
        if row is None:
            raise ConfigurationError(f"{table} {key}: the ledger has no such row")
        return row

    def redrive(
        self,
        session: Session,
        reconcilers: list[Reconciler],
        table: str | None = None,
        reason: str | None = None,
    ) -> dict[str, int]:
        """Drive quarantined rows through the transform again, e.g. after a rule was changed.

        Args:
            session: outside any transaction.
            reconcilers: of all tables.
            table: only rows of this one.
            reason: only rows with this one.

        Returns:
            How many rows were driven, and how many of them are quarantined no more.
        """
        driven = left = 0
        for reconciler in reconcilers:
            name = reconciler.staging.transform.table.name
            if name not in self._tables(table):
                continue
            keys = self._keys(session, name, reason)
            size = reconciler.staging.transform.table.chunk_size
            for start in range(0, len(keys), size):
                part = keys[start : start + size]
                reconciler.run(session, partial(_fill, reconciler, part))
            driven += len(keys)
            left += len(set(keys) & set(self._keys(session, name, None)))
        self._workspace.journal.note(session, "redrive", table=table, reason=reason, rows=driven, left=left)
        return {"driven": driven, "released": driven - left}

    def accept(self, session: Session, *, table: str, reason: str, note: str, key: str | None = None) -> int:
        """Accept that rows stay where they are, by name; one that changes is to be accepted anew.

        Args:
            session: outside any transaction.
            table: of which table.
            reason: with which reason.
            note: why, for the record.
            key: only this row.

        Returns:
            How many rows were accepted.
        """
        name = self._workspace.plan.table(table).name
        # Under the lock of those who carry rows over: they write to many raw rows at once, too.
        with session.locked(self._workspace.plan.name, name), session.transaction():
            count = session.run(
                f"UPDATE {self._workspace.own('tasktrail_raw')} w SET accepted_at = now(), "
                "accepted_by = %(who)s, "
                f"accepted_note = %(note)s FROM {self._workspace.own('tasktrail_ledger')} l "
                "WHERE l.table_name = w.table_name AND l.source_key = w.source_key AND l.deleted_at IS NULL "
                "AND l.disposition = 'quarantined' AND w.table_name = %(table)s AND l.reason = %(reason)s "
                "AND (%(key)s::text IS NULL OR w.source_key = %(key)s) AND w.accepted_at IS NULL",
                who=whoever(),
                note=note,
                table=name,
                reason=reason,
                key=key,
            )
            self._workspace.journal.note(
                session, "accepted", table=table, reason=reason, key=key, note=note, rows=count
            )
        return count

    def _keys(self, session: Session, table: str, reason: str | None) -> list[str]:
        return [
            row["source_key"]
            for row in session.rows(
                f"SELECT source_key FROM {self._from} "
                "AND (%(reason)s::text IS NULL OR l.reason = %(reason)s)",
                tables=[table],
                reason=reason,
            )
        ]

    def _tables(self, name: str | None) -> list[str]:
        plan = self._workspace.plan
        return [table.name for table in plan.tables] if name is None else [plan.table(name).name]


def _fill(reconciler: Reconciler, keys: list[str], db: Session) -> int:
    return reconciler.staging.fill(db, keys)
