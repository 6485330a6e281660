"""The page of jobs: a list with filters that live in the URL, and what can be done with many of them."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import AwareDatetime
from sqlalchemy import ARRAY, JSON

from tasktrail.access.operations import Action
from tasktrail.fields import domain_columns
from tasktrail.filters import Filter
from tasktrail.masking import mask_fields, mask_text
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Source
from tasktrail.registry import Domain
from tasktrail.states import ACTIVE, REVIVABLE, Status
from tasktrail.web import bulk
from tasktrail.web.choosing import FIELD_PREFIX, Chosen, Given, known_parameters
from tasktrail.web.conductor import states_of
from tasktrail.web.frame import page, read
from tasktrail.web.holders import Operator, TheTrail, Viewer
from tasktrail.web.problems import SeeOther

PAGE: Final = 50
RATES: Final = ((0, "as fast as possible"), (100, "100 a second"), (10, "10 a second"), (1, "1 a second"))
"""How fast an operation may go, slowest last."""

LOCAL_MOMENT: Final = 16
"""Length of what a browser's field for a time sends, e.g. 2026-01-31T12:00."""


def tidy(request: Request) -> None:
    """Lead to the same URL without what a form sends of fields that were left empty.

    Raises:
        SeeOther: there is such a field, or a time without its zone.
    """
    given = request.query_params.multi_items()
    kept = [(name, _zoned(name, text.strip())) for name, text in given if text.strip()]
    if kept != given:
        raise SeeOther(request.url.path + (f"?{urlencode(kept)}" if kept else ""))


router: Final = APIRouter(
    prefix="/jobs", include_in_schema=False, dependencies=[Depends(tidy), Depends(known_parameters)]
)
Choice = Annotated[Chosen, Depends()]


@router.get("", name="jobs_of_any")
def choose(request: Request, trail: TheTrail, _: Viewer) -> Response:
    """Lead to the jobs of the first domain."""
    first = next(iter(trail.registry), None)
    place = request.url_for("overview") if first is None else request.url_for("jobs", domain=first.name)
    return RedirectResponse(place.path, 303)


@router.get("/{domain}", name="jobs")
def show(
    request: Request,
    trail: TheTrail,
    holder: Viewer,
    domain: str,
    chosen: Choice,
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Show a page of jobs."""
    found = trail.registry.get(domain)
    meant = chosen.meant(found)
    key = ("jobs", domain, after, repr(chosen.given))
    now, rows, cause = read(
        request,
        key,
        lambda db: (
            queries.server_time(db),
            queries.page(db, found, meant.chosen, group=meant.group, after=after, limit=PAGE),
            cause_of(db, found, meant.group),
        ),
    )
    sensitive = found.model.__tracking__.sensitive
    return page(
        request,
        "jobs.html",
        holder,
        active="jobs",
        domain=found,
        has_task=found.task_name is not None,
        rows=[(row, mask_fields(row.fields, sensitive)) for row in rows.rows],
        count=rows.count,
        next=rows.next,
        after=after,
        now=now,
        given=chosen.given,
        query=pairs(chosen.given),
        cause=cause,
        states=list(Status),
        columns=filterable(found),
        revivable=REVIVABLE,
        active_states=ACTIVE,
    )


@router.get("/{domain}/confirm", name="confirm")
def confirm(
    request: Request,
    trail: TheTrail,
    holder: Operator,
    domain: str,
    chosen: Choice,
    do: Annotated[str, Query(pattern="^(retry|cancel)-(selected|all)$")],
    rate: Annotated[int, Query(ge=0, le=bulk.LARGEST_RATE)] = 0,
) -> Response:
    """Ask whether it is really meant, and say how many rows it is about."""
    what, _, scope = do.partition("-")
    action, given = Action(what), dict(chosen.given)
    if scope == "selected":
        given = {"ids": given.get("ids", [])}
    else:
        given.pop("ids", None)
    is_empty = scope == "selected" and not given["ids"]
    seen = None if is_empty else bulk.preview(trail, domain, action, given)
    found = trail.registry.get(domain)
    group = next(iter(given.get("group", ())), None)
    return page(
        request,
        "confirm.html",
        holder,
        active="jobs",
        domain=domain,
        action=action,
        count=seen and seen.count,
        as_of=seen and seen.as_of,
        given={name: texts for name, texts in given.items() if name != "group"},
        cause=read(request, ("cause", domain, group), lambda db: cause_of(db, found, group)),
        query=pairs(given),
        back=pairs({name: texts for name, texts in chosen.given.items() if name != "ids"}),
        rate=rate,
        rates=RATES,
        reason=bulk.REASON,
        meant=sorted(states_of(action)),
    )


@router.post("/{domain}/operations", name="begin")
def begin(
    request: Request,
    trail: TheTrail,
    holder: Operator,
    domain: str,
    chosen: Choice,
    action: Annotated[Action, Form()],
    rate: Annotated[int, Form(ge=0, le=bulk.LARGEST_RATE)] = 0,
    reason: Annotated[str, Form(min_length=1, max_length=500)] = bulk.REASON,
    as_of: Annotated[AwareDatetime | None, Form()] = None,
) -> Response:
    """Begin an operation on the rows that were confirmed, and on none that came after them."""
    begun = bulk.begin(
        request, trail, holder, domain, action, chosen.given, reason=reason, rate=rate, as_of=as_of
    )
    return RedirectResponse(request.url_for("operation", number=begun.id).path, 303)


def cause_of(db: Source, domain: Domain, group: str | None) -> str | None:
    """Return what the errors of a group have in common, as they are shown; ``None`` for no group."""
    if group is None:
        return None
    rows = queries.page(db, domain, Filter(), group=group, limit=1, most=1).rows
    return (
        queries.fingerprint(mask_text(rows[0].error or "")) if rows else "a group with no failed job any more"
    )


def pairs(given: Given) -> list[tuple[str, str]]:
    """Return parameters as they stand in a URL."""
    return [(name, text) for name, texts in given.items() for text in texts]


def filterable(domain: Domain) -> list[str]:
    """Return the parameters of the columns by which jobs can be chosen."""
    sensitive = domain.model.__tracking__.sensitive
    return [
        FIELD_PREFIX + name
        for name, column in domain_columns(domain.model).items()
        if name not in sensitive and not isinstance(column.type, ARRAY | JSON)
    ]


def _zoned(name: str, text: str) -> str:
    """Return a time with its zone, if it was given without one, as forms do; they ask for UTC."""
    is_local = name in {"created_from", "created_before"} and len(text) == LOCAL_MOMENT
    return f"{text}:00Z" if is_local else text
