"""Which rows an operator means: one filter for the library, the command line and the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table

from tasktrail.errors import InvalidField
from tasktrail.fields import domain_columns
from tasktrail.guards import table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.states import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Rows of one domain; every condition given must hold, and none given means all rows.

    Attributes:
        states: the states wanted; empty for any.
        ids: the rows wanted; empty for any.
        created_from: created at this moment or later, aware.
        created_before: created before this moment, aware.
        error: text that the error message holds, without regard to case.
        worker: text that the worker's name begins with.
        attempts_from: least number of failed attempts.
        fields: values of domain columns.
    """

    states: Sequence[Status] = ()
    ids: Sequence[int] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    error: str | None = None
    worker: str | None = None
    attempts_from: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def conditions(self, model: type[BaseTaskTracking]) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions on a domain's table.

        Args:
            model: the domain's model.

        Raises:
            InvalidField: a column is unknown, or a moment has no time zone.
        """
        table = table_of(model)
        found: list[ColumnElement[bool]] = []
        if self.states:
            found.append(table.c.status.in_(sorted(self.states)))
        if self.ids:
            found.append(table.c.id.in_(self.ids))
        for name, moment in (
            ("created_from", self.created_from),
            ("created_before", self.created_before),
        ):
            if moment is not None and moment.utcoffset() is None:
                raise InvalidField(name, moment, "has no time zone; pass an aware datetime, e.g. in UTC")
        if self.created_from is not None:
            found.append(table.c.created_at >= self.created_from)
        if self.created_before is not None:
            found.append(table.c.created_at < self.created_before)
        if self.error is not None:
            found.append(table.c.error_message.icontains(self.error, autoescape=True))
        if self.worker is not None:
            found.append(table.c.worker.startswith(self.worker, autoescape=True))
        if self.attempts_from is not None:
            found.append(table.c.attempts >= self.attempts_from)
        return found + self._on_fields(model, table)

    def _on_fields(self, model: type[BaseTaskTracking], table: Table) -> list[ColumnElement[bool]]:
        columns = domain_columns(model)
        for name, value in self.fields.items():
            if name not in columns:
                known = ", ".join(columns)
                raise InvalidField(
                    name, value, f"is no field of {model.__tracking__.domain}; it has: {known}"
                )
        return [table.c[name] == value for name, value in self.fields.items()]
