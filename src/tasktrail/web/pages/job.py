"""The page of one job: what it was asked, what became of it, and what can be done."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import RedirectResponse, Response

from tasktrail import interventions
from tasktrail.masking import mask_fields
from tasktrail.monitoring import queries
from tasktrail.states import ACTIVE, REVIVABLE
from tasktrail.web.bulk import REASON
from tasktrail.web.choosing import LARGEST_ID, known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import Operator, TheTrail, Viewer
from tasktrail.web.pages.timeline import timeline

router: Final = APIRouter(
    prefix="/jobs/{domain}/{tracking_id}",
    include_in_schema=False,
    dependencies=[Depends(known_parameters)],
)

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("", name="job")
def show(request: Request, trail: TheTrail, holder: Viewer, domain: str, tracking_id: Id) -> Response:
    """Show a job."""
    found = trail.registry.get(domain)
    now, details = read(
        request,
        ("job", domain, tracking_id),
        lambda db: (
            queries.server_time(db),
            queries.details(db, found, tracking_id, schema=trail.schema),
        ),
    )
    return page(
        request,
        "job.html",
        holder,
        active="jobs",
        details=details,
        row=details.row,
        fields=mask_fields(details.row.fields, found.model.__tracking__.sensitive),
        timeline=timeline(details, now),
        now=now,
        lease=trail.settings.lease,
        can_retry=found.task_name is not None and details.row.status in REVIVABLE,
        can_cancel=found.task_name is not None and details.row.status in ACTIVE,
        is_active=details.row.status in ACTIVE,
    )


@router.get("/cancel", name="confirm_cancel")
def confirm(request: Request, trail: TheTrail, holder: Operator, domain: str, tracking_id: Id) -> Response:
    """Ask whether it is really meant."""
    found = trail.registry.get(domain)
    details = read(
        request,
        ("job", domain, tracking_id),
        lambda db: queries.details(db, found, tracking_id, schema=trail.schema),
    )
    return page(request, "cancel.html", holder, active="jobs", row=details.row, reason=REASON)


@router.post("/cancel", name="cancel")
def cancel(
    request: Request,
    trail: TheTrail,
    holder: Operator,
    domain: str,
    tracking_id: Id,
    reason: Annotated[str, Form(min_length=1, max_length=500)] = REASON,
) -> Response:
    """Cancel a job."""
    interventions.cancel(trail, holder.name, domain, tracking_id, reason)
    return RedirectResponse(request.url_for("job", domain=domain, tracking_id=tracking_id).path, 303)


@router.post("/retry", name="retry")
def retry(request: Request, trail: TheTrail, holder: Operator, domain: str, tracking_id: Id) -> Response:
    """Start a job again."""
    interventions.retry(trail, holder.name, domain, tracking_id)
    return RedirectResponse(request.url_for("job", domain=domain, tracking_id=tracking_id).path, 303)
