"""The page of the doctor: what is wrong with the installation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from tasktrail.doctor import Finding, Severity, examine
from tasktrail.web.choosing import known_parameters
from tasktrail.web.frame import page
from tasktrail.web.holders import TheTrail, Viewer
from tasktrail.web.reads import Reads

router: Final = APIRouter(include_in_schema=False, dependencies=[Depends(known_parameters)])

FRESH: Final = 10.0
"""The checks read source files and ask the broker; so they are made no more often, in seconds."""


@router.get("/doctor", name="doctor")
def show(request: Request, trail: TheTrail, holder: Viewer) -> Response:
    """Show what the doctor finds."""
    reads = cast("Reads", request.app.state.reads)

    def look() -> tuple[datetime, list[Finding]]:
        return datetime.now(UTC), examine(trail)

    examined_at, found = reads.shared("doctor", look, fresh=FRESH)
    return page(
        request,
        "doctor.html",
        holder,
        active="doctor",
        errors=[one for one in found if one.severity is Severity.ERROR],
        warnings=[one for one in found if one.severity is Severity.WARNING],
        now=datetime.now(UTC),
        examined_at=examined_at,
    )
