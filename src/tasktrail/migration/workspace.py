"""A plan put to work on one database: everything that its steps share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tasktrail.engines import Engines
from tasktrail.errors import PlanRefused, SchemaOutdated, WrongPhase
from tasktrail.migration.inspection import Inspected, inspect
from tasktrail.migration.names import in_schema, qualified
from tasktrail.migration.plan import MigrationPlan
from tasktrail.migration.reconcile import Budget, Reconciler
from tasktrail.migration.session import Session, opened
from tasktrail.migration.staging import Staging
from tasktrail.migration.state import Journal, Phase
from tasktrail.migration.triggers import Side


@dataclass(frozen=True, slots=True)
class Workspace:
    """A plan, a database, and where the library's own tables are.

    Attributes:
        plan: the plan.
        engines: where the database is.
        schema: of the library's own tables; None for the search path.
    """

    plan: MigrationPlan
    engines: Engines
    schema: str | None

    @property
    def journal(self) -> Journal:
        """The state of the migration."""
        return Journal(self.plan, self.schema)

    def own(self, name: str) -> str:
        """Return a table of the library's own, quoted."""
        return in_schema(self.schema, name)

    @contextmanager
    def session(self, purpose: str) -> Iterator[Session]:
        """Open a connection.

        Args:
            purpose: what for; shown in ``pg_stat_activity``.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or went away.
            SchemaOutdated: the library's tables for migrations are missing.
        """
        with opened(self.engines, purpose) as session:
            if session.value("SELECT to_regclass(%(name)s)", name=self.own("tasktrail_ledger")) is None:
                raise SchemaOutdated(
                    f"the table {self.own('tasktrail_ledger')} is missing: apply the pending migrations first"
                )
            yield session

    def inspect(self, session: Session) -> Inspected:
        """Compare the plan with the database.

        Raises:
            PlanRefused: it does not fit.
            WrongPhase: the legacy tables were dropped.
        """
        try:
            return inspect(session, self.plan, self.schema)
        except PlanRefused:
            state = self.journal.read(session)
            names = [qualified(table.source) for table in self.plan.tables]
            query = "SELECT bool_and(to_regclass(name) IS NULL) FROM unnest(%(names)s::text[]) AS name"
            if state and state.phase is Phase.DROPPED and session.value(query, names=names):
                step, way = "do that without the legacy tables", "tasktrail migrate restore"
                raise WrongPhase(self.plan.name, step, state.phase, way) from None
            raise

    def stagings(self, session: Session) -> list[Staging]:
        """Return the working tables of each table of the plan, in its order."""
        transforms = self.inspect(session).transforms
        return [Staging(transform, number, self.schema) for number, transform in enumerate(transforms)]

    def reconcilers(
        self, session: Session, error_budget: int | None = 0, truth: Side = "legacy"
    ) -> list[Reconciler]:
        """Return what reconciles each table of the plan, in its order.

        Args:
            session: for a look at the tables.
            error_budget: how many rows of a table may make their transform fail; None for any number.
            truth: which side is the truth.
        """
        return [
            Reconciler(self.plan.name, replace(staging, truth=truth), Budget(error_budget))
            for staging in self.stagings(session)
        ]
