"""The application: closed unless somebody opens it, and mountable under any prefix."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from tasktrail.celery import Trail
from tasktrail.migration.plan import MigrationPlan
from tasktrail.web import api, charts, login, problems
from tasktrail.web.armour import Armour
from tasktrail.web.conductor import Conductor
from tasktrail.web.holders import viewer
from tasktrail.web.live import Live
from tasktrail.web.pages import ROUTERS
from tasktrail.web.reads import Reads
from tasktrail.web.rendering import STATIC

logger = logging.getLogger(__name__)

PROBLEMS: Final = (400, 401, 403, 404, 405, 409, 413, 414, 422, 429, 500, 503)
"""With these any request may be answered."""

PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


class Files(StaticFiles):
    """The style sheet and scripts; a browser asks each time whether it has the newest."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file."""
        found = super().file_response(*args, **options)
        found.headers["Cache-Control"] = "no-cache"
        return found


def create_app(trail: Trail, *, is_open: bool = False, plan: MigrationPlan | None = None) -> FastAPI:
    """Make the application; nothing is connected.

    ::

        application = FastAPI()
        application.mount("/jobs", create_app(trail))

    Args:
        trail: what it is about.
        is_open: let everybody on this machine read without a token. To write always takes one.
        plan: the migration that is shown.

    Returns:
        An ASGI application, for a server of its own or to be mounted under any prefix.
    """
    conductor = Conductor(trail)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Only when it runs by itself: of an application that is mounted, this is not called.
        conductor.ensure()
        threading.Thread(target=charts.warm, name="tasktrail charts", daemon=True).start()
        yield
        await run_in_threadpool(conductor.close)

    app = FastAPI(
        title="tasktrail",
        version=version("tasktrail"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.trail = trail
    app.state.is_open = is_open
    app.state.plan = plan
    app.state.conductor = conductor
    app.state.reads = Reads()
    app.state.live = Live(trail, app.state.reads)
    if is_open:
        logger.warning("reading takes no token: everybody on this machine sees every job")
    app.add_middleware(Armour)
    problems.install(app)
    for router in (api.health.router, api.metrics.router, login.router, api.router, *ROUTERS):
        app.include_router(router)
    app.mount("/static", Files(directory=STATIC), name="static")

    @app.get("/api/openapi.json", dependencies=[Depends(viewer)], include_in_schema=False)
    def describe() -> dict[str, Any]:
        """Describe the API as OpenAPI."""
        return app.openapi()

    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # the way FastAPI says to do it
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, in which every operation may be answered by a problem."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = PROBLEM_SCHEMA
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for operations in document["paths"].values():
            for operation in operations.values():
                for status in PROBLEMS:
                    operation["responses"][str(status)] = {"description": "A problem.", "content": content}
        app.openapi_schema = document
    return app.openapi_schema
