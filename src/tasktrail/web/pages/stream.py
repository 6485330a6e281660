"""The stream of server-sent events that open pages follow."""

from __future__ import annotations

from typing import Final, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from tasktrail.web.holders import Viewer
from tasktrail.web.live import Live

router: Final = APIRouter(include_in_schema=False)


@router.get("/stream", name="stream")
async def follow(request: Request, _: Viewer) -> Response:
    """Tell a page when something has changed."""
    live = cast("Live", request.app.state.live)
    headers = {"X-Accel-Buffering": "no"}  # proxies would keep events back
    return StreamingResponse(live.follow(), media_type="text/event-stream", headers=headers)
