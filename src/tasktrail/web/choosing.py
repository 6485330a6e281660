"""Which rows a query string means: the filter of lists, counts and operations."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import HTTPException, Query, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query as QueryParameter

from tasktrail.errors import InvalidField
from tasktrail.fields import domain_columns
from tasktrail.filters import Filter
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.web import values

FIELD_PREFIX: Final = "field."
"""Before the name of a domain column, which may be called as a parameter is."""

LARGEST_ID: Final = 2**63 - 1
LARGEST_ATTEMPTS: Final = 2**31 - 1

Text = Annotated[str | None, Query(min_length=1, max_length=200)]
Moment = Annotated[
    str | None, Query(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T12:00:00Z"])
]


class Chosen:
    """The parameters of a query string that choose rows, as a dependency."""

    def __init__(
        self,
        request: Request,
        status: Annotated[list[Status] | None, Query(description="Only these states.")] = None,
        created_from: Moment = None,
        created_before: Moment = None,
        error: Text = None,
        worker: Text = None,
        attempts_from: Annotated[int | None, Query(ge=0, le=LARGEST_ATTEMPTS)] = None,
    ) -> None:
        self._request = request
        self._given = {"error": error, "worker": worker, "attempts_from": attempts_from}
        self._times = {"created_from": created_from, "created_before": created_before}
        self._states = tuple(status or ())

    def filter(self, domain: Domain) -> Filter:
        """Return the filter on a domain.

        Raises:
            InvalidField: a column is unknown, masked, or has no such value.
        """
        times = {
            name: None if text is None else values.moment(name, text) for name, text in self._times.items()
        }
        fields: dict[str, Any] = {}
        columns = domain_columns(domain.model)
        for parameter, text in self._request.query_params.multi_items():
            if parameter.startswith(FIELD_PREFIX):
                name = parameter.removeprefix(FIELD_PREFIX)
                if name in domain.model.__tracking__.sensitive:
                    raise InvalidField(name, "…", "is masked, so rows cannot be chosen by it")
                if name in fields:
                    raise InvalidField(name, text, "is given twice")
                known = name in columns
                fields[name] = values.from_text(name, columns[name], text) if known else text
        given: dict[str, Any] = {**self._given, **times}
        chosen = Filter(states=self._states, fields=fields, **given)
        chosen.conditions(domain.model)
        return chosen


def known_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not know, which would otherwise choose more rows than meant.

    Raises:
        HTTPException: there is one; it is named.
    """
    route = request.scope["route"]
    parameters = get_flat_params(route.dependant)
    known = {one.alias for one in parameters if isinstance(one.field_info, QueryParameter)}
    takes_fields = "status" in known
    for name in request.query_params:
        if name not in known and not (takes_fields and name.startswith(FIELD_PREFIX)):
            listed = ", ".join(sorted(known)) or "none"
            raise HTTPException(400, f"there is no parameter {name!r} here; known: {listed}")
