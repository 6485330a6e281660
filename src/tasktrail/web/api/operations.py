"""Operations on many rows: preview, begin, look, stop."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request

from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation
from tasktrail.masking import mask_text
from tasktrail.monitoring import queries
from tasktrail.web import bulk
from tasktrail.web.choosing import LARGEST_ID, Chosen
from tasktrail.web.documents import CountDocument
from tasktrail.web.holders import Operator, TheTrail
from tasktrail.web.operation_documents import NewOperation, OperationDocument

router: Final = APIRouter()

Choice = Annotated[Chosen, Depends()]
Number = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("/domains/{domain}/operations/preview")
def preview_operation(
    trail: TheTrail, domain: str, chosen: Choice, action: Annotated[Action, Query()]
) -> CountDocument:
    """Count the rows that an operation would write now."""
    count = bulk.preview(trail, domain, action, chosen.given).count
    return CountDocument(count=count.count, is_more=count.is_more)


@router.post("/domains/{domain}/operations", status_code=202)
def begin_operation(
    request: Request, trail: TheTrail, holder: Operator, domain: str, chosen: Choice, new: NewOperation
) -> OperationDocument:
    """Begin an operation on all rows that the query string chooses; it goes on in the background."""
    begun = bulk.begin(
        request,
        trail,
        holder,
        domain,
        new.action,
        chosen.given,
        reason=new.reason,
        rate=new.rate,
        at_most=new.at_most,
    )
    return document(begun)


@router.get("/operations")
def list_operations(
    trail: TheTrail,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[OperationDocument]:
    """List operations, the newest first."""
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        found = operations.newest(db, trail.schema, before=before, limit=limit)
    return [document(one) for one in found]


@router.get("/operations/{number}")
def show_operation(trail: TheTrail, number: Number) -> OperationDocument:
    """Show an operation and how far it has come."""
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        found = operations.read(db, trail.schema, number)
    if found is None:
        raise HTTPException(404, f"there is no operation {number}")
    return document(found)


@router.post("/operations/{number}/stop")
def stop_operation(trail: TheTrail, holder: Operator, number: Number) -> OperationDocument:
    """Stop an operation after its batch; what it wrote stays written."""
    return document(bulk.stop(trail, holder, number))


def document(operation: Operation) -> OperationDocument:
    """Return the document of an operation, without what looks like a secret."""
    plain = asdict(operation) | {"filter": operation.shown_filter}
    return OperationDocument(**plain | {"reason": operation.reason and mask_text(operation.reason)})
