"""Pages for those who were let in, with the frame around them, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from fastapi import Request
from fastapi.responses import HTMLResponse

from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Source
from tasktrail.web.holders import LIVE_HEADER, Holder, trail_of
from tasktrail.web.reads import Reads
from tasktrail.web.rendering import render

T = TypeVar("T")


def page(
    request: Request, template: str, holder: Holder, *, status: int = 200, **context: Any
) -> HTMLResponse:
    """Return a page for somebody who was let in, with the frame around it.

    Args:
        request: what was asked.
        template: file in ``templates``.
        holder: who asks.
        status: the HTTP status.
        **context: the names that the template knows.
    """
    domains = [domain.name for domain in trail_of(request).registry]
    return render(request, template, status=status, holder=holder, all_domains=domains, **context)


def read(request: Request, key: Hashable, look: Callable[[Source], T], *, figures: bool = False) -> T:
    """Read for a page, in one snapshot; those who follow it live share what they read.

    Args:
        request: what was asked.
        key: names what is read, with all it depends on.
        look: reads it.
        figures: whether that are figures of many rows, which a replica may tell. Who has just done something
            to a row must see it, so rows are read where they were written.
    """
    trail = trail_of(request)
    engines = trail.figures if figures else trail.engines

    def fresh() -> T:
        with engines.errors(), queries.reading(engines.sync) as db:
            return look(db)

    if LIVE_HEADER in request.headers:
        return cast("Reads", request.app.state.reads).shared(key, fresh, until_look=True)
    return fresh()
