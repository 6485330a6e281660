"""Operations on many rows as pages and API begin them: preview, begin, stop."""

from __future__ import annotations

from typing import Final, cast

from fastapi import HTTPException, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation
from tasktrail.celery import Trail
from tasktrail.guards import in_state, table_of
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import CappedCount, in_group
from tasktrail.web.choosing import Given, meant
from tasktrail.web.conductor import STATES, Conductor
from tasktrail.web.holders import Holder

MOST_COUNTED: Final = 1_000_000
"""How far a preview counts."""

LARGEST_RATE: Final = 10_000
"""Rows a second that an operation may be limited to."""

REASON: Final = "cancelled by an operator"


def preview(trail: Trail, domain: str, action: Action, given: Given) -> CappedCount:
    """Count the rows that an operation would write now.

    Args:
        trail: what the application is about.
        domain: the domain, which must have a task.
        action: what would be done.
        given: which rows.

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        InvalidField: a parameter is not acceptable.
    """
    found = trail.task_of(domain).domain
    rows = meant(found, given)
    table = table_of(found.model)
    conditions = [in_state(table, *STATES[action]), *rows.chosen.conditions(found.model)]
    if rows.group is not None:
        conditions += in_group(found, rows.group)
    with trail.engines.errors(), queries.reading(trail.engines.sync) as db:
        return queries.count_at_most(db, select(table.c.id).where(*conditions), MOST_COUNTED)


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

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        InvalidField: a parameter is not acceptable.
        HTTPException: more rows are meant than may be.
        BrokerUnavailable: the broker cannot be reached; nothing was written.
    """
    expected = preview(trail, domain, action, given)
    if at_most is not None and (expected.is_more or expected.count > at_most):
        raise HTTPException(409, f"{expected} rows are meant, and at_most is {at_most:,}; look at them again")
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
            expected=expected.count,
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
