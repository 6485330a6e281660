"""The SQL of a plan: what each legacy row becomes, one row at a time, without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, key_values, listed, qualified, quoted
from tasktrail.migration.plan import Route, TableMigration

HASH = "md5((s.*)::text)::uuid"
"""SQL for the source hash: any change of any column changes it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The types of a legacy table's columns and of the targets of its routes, as they are in the database.

    Attributes:
        source: column -> type, as ``format_type`` writes it.
        targets: route -> column -> type.
    """

    source: Mapping[str, str]
    targets: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Transform:
    """The SQL of one table's migration.

    Attributes:
        table: what the plan says.
        shape: what the database says.
    """

    table: TableMigration
    shape: Shape

    @property
    def source(self) -> str:
        """The legacy table, quoted."""
        return qualified(self.table.source)

    @property
    def source_key(self) -> str:
        """SQL for the key of the row ``s``, as the ledger writes it."""
        return key_text("s", self.table.key)

    def key_values(self, text: str) -> list[str]:
        """Return SQL for the typed values of a key that the ledger wrote."""
        return key_values(text, self.table.key, self.shape.source)

    def is_within(self, cursor: str | None, bound: str | None) -> str:
        """Return SQL that is true for the rows ``s`` with a key after one of the ledger, up to another.

        The columns are compared, and not their texts, which may be sorted otherwise.

        Args:
            cursor: the key before the first; None for the beginning.
            bound: the last key; None where there is no row.
        """
        if bound is None:
            return "FALSE"
        columns = f"({listed(self.table.key, 's')})"
        return " AND ".join(
            f"{columns} {operator} ({', '.join(self.key_values(literal(key)))})"
            for key, operator in ((cursor, ">"), (bound, "<="))
            if key is not None
        )

    def takes(self, route: Route) -> str:
        """Return SQL over ``s`` that is true for rows of a route: the first whose condition holds."""
        earlier = self.table.routes[: self.table.routes.index(route)]
        conditions = [f"({route.condition})", *(f"({other.condition}) IS NOT TRUE" for other in earlier)]
        return " AND ".join(conditions)

    @property
    def takes_none(self) -> str:
        """SQL over ``s`` that is true for the rows that take no route."""
        return " AND ".join(f"({route.condition}) IS NOT TRUE" for route in self.table.routes)

    @property
    def archived_reason(self) -> str:
        """SQL over ``s`` for the reason why a row that takes no route is archived; NULL when it is not."""
        if not self.table.archived:
            return "NULL::text"
        cases = " ".join(
            f"WHEN {literal(kind)} THEN {literal(reason)}" for kind, reason in self.table.archived.items()
        )
        return f"CASE ({self.table.kind}) {cases} END"

    def rows(self, route: Route, among: str, where: str = "TRUE") -> str:
        """Return a SELECT of what the rows of a route become, one row for each of them.

        Its columns: ``_source_key``, the legacy key's values ``_k0`` and so on, ``_hash``, ``_reason``
        (NULL for a row that is migrated), ``_disposition`` of a refused row, ``_inferred``,
        ``_target_key``, and the target's own, which are NULL for a refused row.

        Args:
            route: the route.
            among: SQL of a FROM clause in which ``s`` is the legacy row.
            where: a further condition over it.
        """
        # OFFSET 0 keeps the planner from working out an expression again at each of its uses.
        steps = [
            "CROSS JOIN LATERAL (SELECT "
            + ", ".join(f"({sql}) AS {quoted(name)}" for name, sql in step.items())
            + f" OFFSET 0) AS step_{number}"
            for number, step in enumerate(route.steps)
        ]
        refusals = " ".join(f"WHEN {rule.condition} THEN {literal(rule.reason)}" for rule in route.refusals)
        archived = [literal(rule.reason) for rule in route.refusals if rule.disposition == "archived"]
        is_archived = f"r.reason IN ({', '.join(archived)})" if archived else "FALSE"
        values = ", ".join(
            f"CASE WHEN r.reason IS NULL THEN ({sql}) END AS {quoted(name)}"
            for name, sql in route.columns.items()
        )
        flags = ", ".join(
            f"CASE WHEN {condition} THEN {literal(name)} END" for name, condition in route.inferred.items()
        )
        keys = ", ".join(f"s.{quoted(name)} AS _k{number}" for number, name in enumerate(self.table.key))
        inferred = (
            f"CASE WHEN r.reason IS NULL THEN nullif(array_remove(ARRAY[{flags}]::text[], NULL), '{{}}') END"
            if flags
            else "NULL::text[]"
        )
        return f"""
            SELECT {self.source_key} AS _source_key, {keys}, {HASH} AS _hash,
                r.reason AS _reason,
                CASE WHEN {is_archived} THEN 'archived' WHEN r.reason IS NOT NULL THEN 'quarantined' END
                    AS _disposition,
                c._inferred,
                CASE WHEN r.reason IS NULL THEN {key_text("c", route.key)} END AS _target_key,
                {listed(list(route.columns), "c")}
            FROM {among}
            {" ".join(steps)}
            CROSS JOIN LATERAL (SELECT {f"CASE {refusals} END" if refusals else "NULL::text"} AS reason
            OFFSET 0) AS r CROSS JOIN LATERAL (
                SELECT {values}, {inferred} AS _inferred OFFSET 0
            ) AS c
            WHERE {self.takes(route)} AND {where}
        """

    def others(self, among: str, where: str = "TRUE") -> str:
        """Return a SELECT of the rows that take no route, with why and where they go.

        Args:
            among: SQL of a FROM clause in which ``s`` is the legacy row.
            where: a further condition over it.
        """
        return f"""
            SELECT {self.source_key} AS _source_key, {HASH} AS _hash,
                coalesce({self.archived_reason}, 'unknown_type') AS _reason,
                CASE WHEN {self.archived_reason} IS NULL THEN 'quarantined' ELSE 'archived' END AS
                _disposition
            FROM {among}
            WHERE {self.takes_none} AND {where}
        """
