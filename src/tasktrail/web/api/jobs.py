"""Domains, their rows, and the audit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Response

from tasktrail import interventions
from tasktrail.access import audit
from tasktrail.celery import Enqueued
from tasktrail.errors import InvalidField
from tasktrail.fields import domain_columns
from tasktrail.masking import mask_fields
from tasktrail.monitoring import queries
from tasktrail.prerequisites import TrackingRef
from tasktrail.registry import Domain
from tasktrail.tracker import Added
from tasktrail.web import documents, values
from tasktrail.web.choosing import LARGEST_ID, Chosen
from tasktrail.web.holders import Operator, TheTrail

router: Final = APIRouter()

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Choice = Annotated[Chosen, Depends()]


@router.get("/domains")
def list_domains(trail: TheTrail) -> list[documents.DomainDocument]:
    """List the domains with their columns."""
    return [_described(domain) for domain in trail.registry]


@router.get("/domains/{domain}/jobs")
def list_jobs(
    trail: TheTrail,
    domain: str,
    chosen: Choice,
    page: Annotated[str | None, Query(max_length=100, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> documents.JobsDocument:
    """List rows, the newest first. Choose by a domain column with `field.<name>=<value>`."""
    found = trail.registry.get(domain)
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        meant = chosen.meant(found)
        rows = queries.page(db, found, meant.chosen, group=meant.group, after=page, limit=limit)
    return documents.JobsDocument.of(rows, found.model)


@router.post(
    "/domains/{domain}/jobs",
    status_code=201,
    responses={200: {"model": documents.StateDocument, "description": "It is there already."}},
)
def create_job(
    trail: TheTrail, holder: Operator, domain: str, new: documents.NewJob, response: Response
) -> documents.StateDocument:
    """Add a row and send its message; 200 when one with its natural key is there already."""
    task = trail.task_of(domain)
    columns = domain_columns(task.domain.model)
    for name in new.fields:
        if name not in columns:
            known = ", ".join(columns)
            raise InvalidField(name, new.fields[name], f"is no field of {domain}; it has: {known}")
    fields = {name: values.from_json(name, columns[name], value) for name, value in new.fields.items()}
    if new.max_attempts is not None:
        fields["max_attempts"] = new.max_attempts
    trail.publisher.require_broker()
    with interventions.writing(trail) as session:
        added = task.enqueue(
            session,
            on_duplicate=new.on_duplicate,
            after=[TrackingRef(one.domain, one.id) for one in new.after],
            if_unmet=new.if_unmet,
            **fields,
        )
        shown = mask_fields(new.fields, task.domain.model.__tracking__.sensitive)
        audit.note(
            session,
            trail.schema,
            holder.name,
            "create",
            domain=domain,
            tracking_id=added.id,
            fields=shown,
            outcome=added.outcome,
        )
    if added.outcome is not Added.CREATED:
        response.status_code = 200
    return _state(added)


@router.get("/domains/{domain}/jobs/{tracking_id}")
def show_job(trail: TheTrail, domain: str, tracking_id: Id) -> documents.JobDetailsDocument:
    """Show one row with its attempts and prerequisites."""
    found = trail.registry.get(domain)
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        details = queries.details(db, found, tracking_id, schema=trail.schema)
    return documents.JobDetailsDocument.of(details, found.model)


@router.post("/domains/{domain}/jobs/{tracking_id}/retry")
def retry_job(trail: TheTrail, holder: Operator, domain: str, tracking_id: Id) -> documents.StateDocument:
    """Start a FAILED or CANCELLED row again."""
    return _state(interventions.retry(trail, holder.name, domain, tracking_id))


@router.post("/domains/{domain}/jobs/{tracking_id}/cancel", status_code=204)
def cancel_job(
    trail: TheTrail, holder: Operator, domain: str, tracking_id: Id, why: documents.Cancellation
) -> None:
    """Cancel a PENDING row at once, a PROCESSING one at its worker's next heartbeat."""
    interventions.cancel(trail, holder.name, domain, tracking_id, why.reason)


@router.get("/audit")
def list_audit(
    trail: TheTrail,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[documents.EntryDocument]:
    """List what was done from outside, the newest first."""
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        found = audit.newest(db, trail.schema, before=before, limit=limit)
    return [documents.EntryDocument(**asdict(entry)) for entry in found]


def _described(domain: Domain) -> documents.DomainDocument:
    sensitive = domain.model.__tracking__.sensitive
    columns = [
        documents.ColumnDocument(
            name=name,
            type=str(column.type),
            is_required=not (column.nullable or column.server_default or column.default),
            is_sensitive=name in sensitive,
        )
        for name, column in domain_columns(domain.model).items()
    ]
    return documents.DomainDocument(name=domain.name, has_task=domain.task_name is not None, columns=columns)


def _state(row: Enqueued) -> documents.StateDocument:
    return documents.StateDocument(domain=row.domain, id=row.id, status=row.status, outcome=row.outcome)
