"""Which rows an operator means: one filter for the library, the command line and the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Table

from tasktrail.errors import InvalidField
from tasktrail.fields import check_value, domain_columns
from tasktrail.guards import in_state, table_of
from tasktrail.masking import mask_text_sql
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
        shown_error: the same of the error message as it is shown, with its secrets masked; for those who may
            not read them, and could otherwise find them out letter by letter.
        worker: text that the worker's name begins with.
        attempts_from: least number of failed attempts.
        fields: values of domain columns.
    """

    states: Sequence[Status] = ()
    ids: Sequence[int] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    error: str | None = None
    shown_error: str | None = None
    worker: str | None = None
    attempts_from: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def conditions(self, model: type[BaseTaskTracking]) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions on a domain's table.

        Args:
            model: the domain's model.

        Raises:
            InvalidField: a column or state is unknown, or a value does not fit its column.
        """
        table = table_of(model)
        found: list[ColumnElement[bool]] = []
        if self.states:
            found.append(in_state(table, *{_status(state) for state in self.states}))
        if self.ids:
            for row_id in self.ids:
                check_value("ids", table.c.id, row_id)
            found.append(table.c.id.in_(self.ids))
        rules: list[tuple[str, Column[Any], Callable[[Any], ColumnElement[bool]]]] = [
            ("created_from", table.c.created_at, lambda moment: table.c.created_at >= moment),
            ("created_before", table.c.created_at, lambda moment: table.c.created_at < moment),
            ("error", table.c.error_message, lambda text: _holds(table.c.error_message, text)),
            ("shown_error", table.c.error_message, lambda text: _shows(table.c.error_message, text)),
            ("worker", table.c.worker, lambda text: table.c.worker.startswith(text, autoescape=True)),
            ("attempts_from", table.c.attempts, lambda number: table.c.attempts >= number),
        ]
        for name, column, condition in rules:
            value = getattr(self, name)
            if value is not None:
                check_value(name, column, value)
                found.append(condition(value))
        return found + self._on_fields(model, table)

    def _on_fields(self, model: type[BaseTaskTracking], table: Table) -> list[ColumnElement[bool]]:
        columns = domain_columns(model)
        for name, value in self.fields.items():
            if name not in columns:
                known = ", ".join(columns)
                raise InvalidField(
                    name, value, f"is no field of {model.__tracking__.domain}; it has: {known}"
                )
            if value is not None:
                check_value(name, columns[name], value)
        return [table.c[name] == value for name, value in self.fields.items()]


def _holds(column: Column[Any], text: str) -> ColumnElement[bool]:
    return column.icontains(text, autoescape=True)


def _shows(column: Column[Any], text: str) -> ColumnElement[bool]:
    # The first condition costs little, and leaves the second few rows to mask.
    return _holds(column, text) & mask_text_sql(column).icontains(text, autoescape=True)


def _status(name: str) -> Status:
    try:
        return Status(name)
    except ValueError:
        raise InvalidField("states", name, f"is none of {', '.join(Status)}") from None
