"""Triggers that note which rows of a table changed: keys and operations, in the queue ``tasktrail_changes``.

The same on both sides: on legacy tables while they are followed, on tracking tables once they are the truth.
Whoever carries changes over says so in its transaction, and is not noted itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tasktrail.migration.ddl import with_short_locks
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import in_schema, key_text, listed, quoted
from tasktrail.migration.session import AS_TEXT, Session

Side: TypeAlias = Literal["legacy", "new"]

EVENTS: Final = {
    "insert": ("AFTER INSERT", "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"),
    "update": ("AFTER UPDATE", "REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"),
    "rekey": ("AFTER UPDATE", "FOR EACH ROW WHEN ({moved})"),
    "delete": ("AFTER DELETE", "REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT"),
    "truncate": ("BEFORE TRUNCATE", "FOR EACH STATEMENT"),
}
"""What notes which event: a statement at once, and each row that gets another key besides.

Hardly any update does that, and asking each row costs next to nothing. Comparing all rows of a statement with
what they were costs as much again as noting them.
"""

NOT_NOTED: Final = "SET LOCAL tasktrail.applying = 'yes'"
"""For the start of a transaction that carries changes from one side to the other."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A table whose changes are noted.

    Attributes:
        side: which one it belongs to.
        name: its name in the queue.
        label: part of the names of its triggers and their function.
        table: the table, quoted.
        key: the columns that say which row it is.
        schema: where the library's own tables are.
    """

    side: Side
    name: str
    label: str
    table: str
    key: tuple[str, ...]
    schema: str | None

    @property
    def function(self) -> str:
        """The trigger function, quoted."""
        return in_schema(self.schema, f"tasktrail_note_{self.label}"[:63])

    @property
    def queue(self) -> str:
        """SQL of a FROM clause with WHERE: what was noted of this table."""
        changes = in_schema(self.schema, "tasktrail_changes")
        return f"{changes} WHERE side = {literal(self.side)} AND table_name = {literal(self.name)}"

    def trigger(self, event: str) -> str:
        """Return the name of a trigger, quoted."""
        return quoted(f"tasktrail_{event}_{self.label}"[:63])

    def put_on(self, session: Session) -> None:
        """Put the triggers on; within a transaction, which holds the lock that this takes."""
        changes = _resolved(session, in_schema(self.schema, "tasktrail_changes"))
        session.run(self._definition(changes, _resolved(session, self.table)))
        moved = f"({listed(self.key, 'OLD')}) IS DISTINCT FROM ({listed(self.key, 'NEW')})"
        for event, (when, which) in EVENTS.items():
            session.run(
                f"CREATE OR REPLACE TRIGGER {self.trigger(event)} {when} ON {self.table} "
                f"{which.format(moved=moved)} EXECUTE FUNCTION {self.function}()"
            )
            session.run(f"ALTER TABLE {self.table} ENABLE ALWAYS TRIGGER {self.trigger(event)}")

    def take_off(self, session: Session) -> None:
        """Take the triggers off and forget what they noted; within a transaction."""
        for event in EVENTS:
            session.run(f"DROP TRIGGER IF EXISTS {self.trigger(event)} ON {self.table}")
        session.run(f"DROP FUNCTION IF EXISTS {self.function}()")
        session.run(f"DELETE FROM {self.queue}")

    def install(self, session: Session) -> None:
        """Put the triggers on.

        Args:
            session: outside any transaction.

        Raises:
            MigrationError: the lock was not had; nothing was changed.
        """
        with_short_locks(session, f"put triggers on {self.table}", self.put_on)

    def uninstall(self, session: Session) -> None:
        """Take the triggers off, and forget what they noted.

        Args:
            session: outside any transaction.

        Raises:
            MigrationError: the lock was not had; nothing was changed.
        """
        with_short_locks(session, f"take the triggers off {self.table}", self.take_off)

    def is_on(self, session: Session) -> bool:
        """Return whether any of the triggers is there."""
        return not self._states(session).keys().isdisjoint(map(self._bare, EVENTS))

    def problems(self, session: Session) -> list[str]:
        """Return which triggers are missing or disabled, in words."""
        there = self._states(session)
        plain = self.table.replace('"', "")
        found = []
        for name in map(self._bare, EVENTS):
            if name not in there:
                found.append(f"{plain} lacks the trigger {name}")
            elif there[name] != "A":
                found.append(f"the trigger {name} of {plain} is disabled")
        return found

    def _bare(self, event: str) -> str:
        return self.trigger(event).strip('"')

    def _states(self, session: Session) -> dict[str, str]:
        """Return all triggers of the table, and when each fires."""
        rows = session.rows(
            "SELECT tgname AS name, tgenabled::text AS state FROM pg_trigger "
            "WHERE tgrelid = to_regclass(%(table)s) AND NOT tgisinternal",
            table=self.table,
        )
        return {row["name"]: row["state"] for row in rows}

    def _definition(self, changes: str, table: str) -> str:
        """Return the trigger function.

        It runs with its owner's rights, since old writers have none on our tables, writes keys as the ledger
        does, whatever the writer's settings are, and turns any error of its own into a warning: a change that
        was not noted is found by the comparison, a writer that failed is not made good again.
        """
        head = f"INSERT INTO {changes} (side, table_name, source_key, operation"
        who = f"{literal(self.side)}, {literal(self.name)}"
        new, old, moved, all_rows = (key_text(alias, self.key) for alias in ("n", "o", "OLD", "s"))
        body = f"""
            BEGIN
                IF current_setting('tasktrail.applying', TRUE) = 'yes' THEN
                    RETURN NULL;
                ELSIF TG_LEVEL = 'ROW' THEN
                    {head}, old_row) VALUES ({who}, {moved}, 'D', row_to_json(OLD)::text);
                ELSIF TG_OP = 'INSERT' THEN
                    {head}) SELECT {who}, {new}, 'I' FROM new_rows n;
                ELSIF TG_OP = 'UPDATE' THEN
                    {head}) SELECT {who}, {new}, 'U' FROM new_rows n;
                ELSIF TG_OP = 'DELETE' THEN
                    {head}, old_row) SELECT {who}, {old}, 'D', row_to_json(o)::text FROM old_rows o;
                ELSE
                    {head}, old_row) SELECT {who}, {all_rows}, 'D', row_to_json(s)::text FROM {table} s;
                END IF;
                RETURN NULL;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'tasktrail did not note a change of %: %', TG_RELID::regclass, SQLERRM;
                RETURN NULL;
            END
        """
        settings = " ".join(f"SET {name} = {literal(value)}" for name, value in AS_TEXT.items())
        return (
            f"CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp {settings} AS $tasktrail${body}$tasktrail$"
        )


def _resolved(session: Session, name: str) -> str:
    """Return the name of a table with its schema: a trigger function has a search path of its own."""
    found = session.value(
        "SELECT format('%%I.%%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = "
        "relnamespace WHERE pg_class.oid = to_regclass(%(name)s)",
        name=name,
    )
    return str(found)
