"""Operations on many rows as pages and API begin them: preview, begin, stop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from fastapi import HTTPException, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation
from tasktrail.celery import Trail
from tasktrail.guards import table_of
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import CappedCount
from tasktrail.web.choosing import Given
from tasktrail.web.conductor import Conductor, conditions_of
from tasktrail.web.holders import Holder

MOST_COUNTED: Final = 1_000_000
"""How far a preview counts."""

LARGEST_RATE: Final = 10_000
"""Rows a second that an operation may be limited to."""

REASON: Final = "cancelled by an operator"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an operation would write.

    Attributes:
        count: how many rows.
        as_of: when they were counted, by the server's clock.
    """

    count: CappedCount
    as_of: datetime


def preview(
    trail: Trail, domain: str, action: Action, given: Given, *, as_of: datetime | None = None
) -> Preview:
    """Count the rows that an operation would write now.

    Args:
        trail: what the application is about.
        domain: the domain, which must have a task.
        action: what would be done.
        given: which rows.
        as_of: only those that were meant at this moment already.

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        InvalidField: a parameter is not acceptable.
    """
    found = trail.task_of(domain).domain
    rows = select(table_of(found.model).c.id).where(*conditions_of(found, action, given, as_of))
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        count = queries.count_at_most(db, rows, MOST_COUNTED)
        return Preview(count, as_of or queries.server_time(db))


def begin(
    request: Request,
    trail: Trail,
    holder: Holder,
    domain: str,
    action: Action,
    given: Given,
    *,
    reason: str | None = None,
    rate: int = 0,
    at_most: int | None = None,
    as_of: datetime | None = None,
) -> Operation:
    """Begin an operation; it goes on in the background.

    Args:
        request: what was asked.
        trail: what the application is about.
        holder: whose word it is.
        domain: the domain, which must have a task.
        action: what is done.
        given: which rows.
        reason: why rows are cancelled.
        rate: rows a second at most; 0 for as many as go.
        at_most: refuse when more rows than that are meant.
        as_of: mean only the rows that a preview counted then.

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        InvalidField: a parameter is not acceptable.
        HTTPException: more rows are meant than may be.
        BrokerUnavailable: the broker cannot be reached; nothing was written.
    """
    seen = preview(trail, domain, action, given, as_of=as_of)
    if at_most is not None and (seen.count.is_more or seen.count.count > at_most):
        raise HTTPException(
            409, f"{seen.count} rows are meant, and at_most is {at_most:,}; look at them again"
        )
    if action is Action.RETRY:
        trail.publisher.require_broker()
    with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
        number = operations.begin(
            db,
            trail.schema,
            domain=domain,
            action=action,
            chosen=given,
            reason=(reason or REASON) if action is Action.CANCEL else None,
            rate=rate,
            who=holder.name,
            expected=seen.count.count,
            as_of=seen.as_of,
        )
        found = operations.read(db, trail.schema, number)
    conductor_of(request).wake()
    return cast("Operation", found)


def stop(trail: Trail, holder: Holder, number: int) -> Operation:
    """Stop an operation after its batch.

    Raises:
        HTTPException: there is none of that number, or it has ended.
    """
    with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
        stopped = operations.stop(db, trail.schema, number, who=holder.name)
        if stopped is not None:
            return stopped
        there = operations.read(db, trail.schema, number)
    if there is None:
        raise HTTPException(404, f"there is no operation {number}")
    raise HTTPException(409, f"operation {number} has ended: {there.state}")


def conductor_of(request: Request) -> Conductor:
    """Return what works on operations in this process."""
    return cast("Conductor", request.app.state.conductor)
