"""What operators do with jobs, each with its line in the audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from tasktrail.access import audit
from tasktrail.celery import Enqueued, Trail
from tasktrail.errors import clean_text


@contextmanager
def writing(trail: Trail) -> Iterator[Session]:
    """Lend a session for one write and its line in the audit."""
    with trail.engines.errors(), Session(trail.engines.sync) as session, session.begin():
        yield session


def retry(trail: Trail, who: str, domain: str, tracking_id: int) -> Enqueued:
    """Start a FAILED or CANCELLED row again.

    Args:
        trail: what the application is about.
        who: the name of the token, or user@host.
        domain: the domain, which must have a task.
        tracking_id: the row.

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        TrackingNotFound: there is no such row.
        WrongState: it has not ended, or is COMPLETED.
        BrokerUnavailable: the broker cannot be reached; nothing was written.
    """
    task = trail.task_of(domain)
    trail.publisher.require_broker()
    with writing(trail) as session:
        started = task.retry(tracking_id, session=session)
        audit.note(session, trail.schema, who, "retry", domain=domain, tracking_id=tracking_id)
    return started


def cancel(trail: Trail, who: str, domain: str, tracking_id: int, reason: str) -> None:
    """Cancel a PENDING row at once, a PROCESSING one at its worker's next heartbeat.

    Args:
        trail: what the application is about.
        who: the name of the token, or user@host.
        domain: the domain, which must have a task.
        tracking_id: the row.
        reason: why; kept in the row.

    Raises:
        UnknownDomain: there is no such domain, or it has no task.
        TrackingNotFound: there is no such row.
        WrongState: it has ended already.
    """
    task = trail.task_of(domain)
    with writing(trail) as session:
        task.cancel(tracking_id, reason, session=session)
        audit.note(
            session,
            trail.schema,
            who,
            "cancel",
            domain=domain,
            tracking_id=tracking_id,
            reason=clean_text(reason),
        )


def noted(trail: Trail, who: str, what: str, *, count: int, **details: Any) -> None:
    """Note in the audit what is done on other connections.

    Args:
        trail: what the application is about.
        who: the name of the token, or user@host.
        what: what was done, a word or two.
        count: how many rows are meant.
        **details: what else the line says, as :func:`tasktrail.access.audit.note` takes it.
    """
    with writing(trail) as session:
        audit.note(session, trail.schema, who, what, count=count, **details)
