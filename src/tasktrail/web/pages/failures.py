"""The page of failures, grouped by what went wrong."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from tasktrail.monitoring.queries import Period
from tasktrail.web import figures
from tasktrail.web.choosing import known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import TheTrail, Viewer

router: Final = APIRouter(include_in_schema=False, dependencies=[Depends(known_parameters)])


@router.get("/failures", name="failures")
def show(
    request: Request,
    trail: TheTrail,
    holder: Viewer,
    period: Period = Period.DAY,
    domain: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """Show what failed."""
    domains = list(trail.registry) if domain is None else [trail.registry.get(domain)]
    found = read(
        request,
        ("failures", period, domain),
        lambda db: figures.failures(db, domains, period),
        figures=True,
    )
    return page(
        request,
        "failures.html",
        holder,
        active="failures",
        failures=found,
        now=found.now,
        period=period,
        periods=list(Period),
        domain=domain,
        has_task={one.name for one in trail.registry if one.task_name is not None},
    )
