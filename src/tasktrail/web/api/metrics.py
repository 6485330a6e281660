"""The metrics, for Prometheus to collect."""

from __future__ import annotations

import os
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response

from tasktrail.monitoring.metrics import CONTENT_TYPE, Metrics
from tasktrail.web.choosing import known_parameters
from tasktrail.web.holders import TheTrail, viewer

router: Final = APIRouter(dependencies=[Depends(viewer), Depends(known_parameters)])


@router.get("/metrics", response_class=PlainTextResponse)
def show_metrics(request: Request, trail: TheTrail) -> Response:
    """Say in Prometheus' text format how all domains do; it takes the token of a viewer."""
    pid, metrics = getattr(request.app.state, "metrics", (None, None))
    if metrics is None or pid != os.getpid():  # a process that was forked has engines of its own
        metrics = Metrics(trail.figures.sync, trail.registry, trail.settings, schema=trail.schema)
        request.app.state.metrics = (os.getpid(), metrics)
    with trail.figures.errors():
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})
