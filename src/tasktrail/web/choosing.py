"""Which rows a query string means: the filter of lists, counts and operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import HTTPException, Query, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query as QueryParameter

from tasktrail.errors import InvalidField
from tasktrail.fields import domain_columns
from tasktrail.filters import Filter
from tasktrail.monitoring.queries import in_group
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.web import values

FIELD_PREFIX: Final = "field."
"""Before the name of a domain column, which may be called as a parameter is."""

LARGEST_ID: Final = 2**63 - 1
LARGEST_ATTEMPTS: Final = 2**31 - 1
MOST_IDS: Final = 200
"""So many rows may be named one by one."""

Text = Annotated[str | None, Query(min_length=1, max_length=200)]
Moment = Annotated[
    str | None, Query(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T12:00:00Z"])
]
Given = Mapping[str, Sequence[str]]
"""Parameters that choose rows, as they stand in a query string."""

PARAMETERS: Final = (
    "status",
    "created_from",
    "created_before",
    "error",
    "worker",
    "attempts_from",
    "group",
    "ids",
)


@dataclass(frozen=True, slots=True)
class Meant:
    """The rows that somebody means.

    Attributes:
        chosen: the filter.
        group: only those of this group of failures.
    """

    chosen: Filter
    group: str | None = None


class Chosen:
    """The parameters of a query string that choose rows, as a dependency."""

    def __init__(
        self,
        request: Request,
        status: Annotated[list[Status] | None, Query(description="Only these states.")] = None,
        created_from: Moment = None,
        created_before: Moment = None,
        error: Annotated[Text, Query(description="Text in the error, as it is shown.")] = None,
        worker: Annotated[Text, Query(description="What the worker's name begins with.")] = None,
        attempts_from: Annotated[int | None, Query(ge=0, le=LARGEST_ATTEMPTS)] = None,
        group: Annotated[
            str | None, Query(pattern="^[0-9a-f]{32}$", description="A group of failures, by its id.")
        ] = None,
        ids: Annotated[
            list[Annotated[int, Query(ge=1, le=LARGEST_ID)]] | None,
            Query(max_length=MOST_IDS, description="Only these rows."),
        ] = None,
    ) -> None:
        self.given = given_in(request)

    def meant(self, domain: Domain) -> Meant:
        """Return the rows that are meant; see ``meant``."""
        return meant(domain, self.given)


def given_in(request: Request) -> dict[str, list[str]]:
    """Return those parameters of a request that choose rows."""
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name in PARAMETERS or name.startswith(FIELD_PREFIX):
            found.setdefault(name, []).append(value)
    return found


def meant(domain: Domain, given: Given) -> Meant:
    """Return the rows of a domain that parameters mean.

    Args:
        domain: the domain.
        given: the parameters; columns of the domain are named ``field.<name>``.

    Raises:
        InvalidField: a parameter or column is unknown, masked, given twice, or has no such value.
    """
    fields = {
        name.removeprefix(FIELD_PREFIX): _field(domain, name.removeprefix(FIELD_PREFIX), texts)
        for name, texts in given.items()
        if name.startswith(FIELD_PREFIX)
    }
    unknown = [name for name in given if name not in PARAMETERS and not name.startswith(FIELD_PREFIX)]
    if unknown:
        raise InvalidField(
            unknown[0], "…", f"is no parameter that chooses rows; known: {', '.join(PARAMETERS)}"
        )
    attempts = _one(given, "attempts_from")
    chosen = Filter(
        states=[Status(text) if text in set(Status) else _no_state(text) for text in given.get("status", ())],
        ids=[_whole("ids", text, 1, LARGEST_ID) for text in given.get("ids", ())],
        created_from=_moment(given, "created_from"),
        created_before=_moment(given, "created_before"),
        shown_error=_one(given, "error"),
        worker=_one(given, "worker"),
        attempts_from=None if attempts is None else _whole("attempts_from", attempts, 0, LARGEST_ATTEMPTS),
        fields=fields,
    )
    chosen.conditions(domain.model)
    group = _one(given, "group")
    if group is not None:
        in_group(domain, group)
    return Meant(chosen, group)


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


def _field(domain: Domain, name: str, texts: Sequence[str]) -> Any:
    if name in domain.model.__tracking__.sensitive:
        raise InvalidField(name, "…", "is masked, so rows cannot be chosen by it")
    if len(texts) > 1:
        raise InvalidField(name, texts[1], "is given twice")
    column = domain_columns(domain.model).get(name)
    return texts[0] if column is None else values.from_text(name, column, texts[0])


def _one(given: Given, name: str) -> str | None:
    texts = given.get(name, ())
    if len(texts) > 1:
        raise InvalidField(name, texts[1], "is given twice")
    return texts[0] if texts else None


def _moment(given: Given, name: str) -> datetime | None:
    text = _one(given, name)
    return None if text is None else values.moment(name, text)


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise InvalidField(name, text, f"must be a whole number from {least} to {most}")
    return int(text)


def _no_state(text: str) -> Status:
    raise InvalidField("status", text, f"is none of {', '.join(Status)}")
