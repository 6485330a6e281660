"""The pages of operations on many rows."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from tasktrail.access import operations
from tasktrail.monitoring import queries
from tasktrail.web import bulk
from tasktrail.web.choosing import LARGEST_ID, known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import Operator, TheTrail, Viewer
from tasktrail.web.pages.jobs import pairs

router: Final = APIRouter(
    prefix="/operations", include_in_schema=False, dependencies=[Depends(known_parameters)]
)

Number = Annotated[int, Path(ge=1, le=LARGEST_ID)]
PAGE: Final = 50


@router.get("", name="operations")
def show_all(
    request: Request,
    trail: TheTrail,
    holder: Viewer,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
) -> Response:
    """Show operations, the newest first."""
    now, found = read(
        request,
        ("operations", before),
        lambda db: (
            queries.server_time(db),
            operations.newest(db, trail.schema, before=before, limit=PAGE + 1),
        ),
    )
    older = found[PAGE - 1].id if len(found) > PAGE else None
    return page(
        request,
        "operations.html",
        holder,
        active="operations",
        found=found[:PAGE],
        older=older,
        before=before,
        now=now,
    )


@router.get("/{number}", name="operation")
def show(request: Request, trail: TheTrail, holder: Viewer, number: Number) -> Response:
    """Show one operation and how far it has come."""
    now, found = read(
        request,
        ("operation", number),
        lambda db: (queries.server_time(db), operations.read(db, trail.schema, number)),
    )
    if found is None:
        raise HTTPException(404, f"there is no operation {number}")
    seconds = ((found.finished_at or now) - found.created_at).total_seconds()
    left = max(0, found.expected - found.done)
    return page(
        request,
        "operation.html",
        holder,
        active="operations",
        operation=found,
        query=pairs(found.shown_filter),
        seconds=seconds,
        remaining=left * seconds / found.done if found.is_running and found.done else None,
        now=now,
    )


@router.post("/{number}/stop", name="stop")
def stop(request: Request, trail: TheTrail, holder: Operator, number: Number) -> Response:
    """Stop an operation."""
    bulk.stop(trail, holder, number)
    return RedirectResponse(request.url_for("operation", number=number).path, 303)
