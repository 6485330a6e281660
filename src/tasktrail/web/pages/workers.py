"""The page of workers: who works on what."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from tasktrail.monitoring import queries
from tasktrail.web.choosing import known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import TheTrail, Viewer

router: Final = APIRouter(include_in_schema=False, dependencies=[Depends(known_parameters)])


@router.get("/workers", name="workers")
def show(request: Request, trail: TheTrail, holder: Viewer) -> Response:
    """Show what each worker does."""
    now, found = read(
        request,
        "workers",
        lambda db: (queries.server_time(db), queries.workers(db, trail.registry)),
        figures=True,
    )
    return page(
        request,
        "workers.html",
        holder,
        active="workers",
        workers=found,
        now=now,
        lease=trail.settings.lease,
    )
