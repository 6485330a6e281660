"""The page of the audit: who did what."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from tasktrail.access import audit
from tasktrail.monitoring import queries
from tasktrail.web.choosing import LARGEST_ID, known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import TheTrail, Viewer

router: Final = APIRouter(include_in_schema=False, dependencies=[Depends(known_parameters)])

PAGE: Final = 50


@router.get("/audit", name="audit")
def show(
    request: Request,
    trail: TheTrail,
    holder: Viewer,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
) -> Response:
    """Show what was done from outside, the newest first."""
    now, found = read(
        request,
        ("audit", before),
        lambda db: (
            queries.server_time(db),
            audit.newest(db, trail.schema, before=before, limit=PAGE + 1),
        ),
    )
    return page(
        request,
        "audit.html",
        holder,
        active="audit",
        entries=found[:PAGE],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        before=before,
        now=now,
    )
