"""Errors as problem documents (RFC 9457), whatever raised them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from starlette.exceptions import HTTPException

from tasktrail.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    DuplicateTracking,
    GateClosed,
    InvalidField,
    MigrationBusy,
    PlanRefused,
    ReadTimeout,
    SchemaOutdated,
    TasktrailError,
    TrackingNotFound,
    UnknownDomain,
    WrongPhase,
    WrongState,
)
from tasktrail.fields import refused_value
from tasktrail.masking import mask_text
from tasktrail.web.rendering import render

logger = logging.getLogger(__name__)

STATUSES: Final[Mapping[type[TasktrailError], HTTPStatus]] = {
    UnknownDomain: HTTPStatus.NOT_FOUND,
    TrackingNotFound: HTTPStatus.NOT_FOUND,
    InvalidField: HTTPStatus.UNPROCESSABLE_ENTITY,
    DuplicateTracking: HTTPStatus.CONFLICT,
    WrongState: HTTPStatus.CONFLICT,
    WrongPhase: HTTPStatus.CONFLICT,
    GateClosed: HTTPStatus.CONFLICT,
    PlanRefused: HTTPStatus.CONFLICT,
    MigrationBusy: HTTPStatus.CONFLICT,
    ReadTimeout: HTTPStatus.SERVICE_UNAVAILABLE,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SchemaOutdated: HTTPStatus.SERVICE_UNAVAILABLE,
}
SAID: Final[Mapping[type[TasktrailError], str]] = {
    DatabaseUnavailable: "the database cannot be reached; try again later",
    BrokerUnavailable: "the broker cannot be reached, so nothing was written; try again later",
    SchemaOutdated: "the database is not at the version this release needs; apply the pending migrations",
}
"""What is said instead of a message that names servers and tables."""


class NotLoggedIn(Exception):
    """Nobody showed a token that opens this."""


class SeeOther(Exception):
    """The page is at another URL."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return a problem document.

    Args:
        status: the HTTP status.
        detail: what is wrong and what to do, for people.
        headers: of the response.
        **more: members of the document that a program may read.
    """
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        **more,
    }
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def answer(
    request: Request, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return a page for browsers that asked for one, else a problem document.

    Args:
        request: what was asked.
        status: the HTTP status.
        detail: what is wrong and what to do, for people.
        headers: of the response.
        **more: members of the document that a program may read.
    """
    is_api = request.scope["path"].removeprefix(request.scope.get("root_path", "")).startswith("/api/")
    if is_api or "text/html" not in request.headers.get("accept", ""):
        return problem(status, detail, headers=headers, **more)
    shown = render(
        request, "error.html", status=status, code=int(status), title=HTTPStatus(status).phrase, detail=detail
    )
    shown.headers.update(headers or {})
    return shown


def install(app: FastAPI) -> None:
    """Have every error of an application answered by a problem document, or by a page."""
    _install_own(app)
    _install_others(app)


def _install_own(app: FastAPI) -> None:
    @app.exception_handler(TasktrailError)
    def refused(request: Request, error: TasktrailError) -> Response:
        status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), None)
        if status is None:
            logger.error("a request failed", exc_info=error)
            return answer(request, 500, "something went wrong; the log of the server has it")
        said = next((words for kind, words in SAID.items() if isinstance(error, kind)), str(error))
        if isinstance(error, InvalidField):
            return answer(request, status, mask_text(said), field=error.field)
        return answer(request, status, mask_text(said))

    @app.exception_handler(NotLoggedIn)
    def not_logged_in(request: Request, _: NotLoggedIn) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            form = request.url_for("login_form").path
            return RedirectResponse(f"{form}?{urlencode({'next': wanted})}", HTTPStatus.SEE_OTHER)
        headers = {"WWW-Authenticate": 'Bearer realm="tasktrail"'}
        return answer(request, 401, "show a token: Authorization: Bearer tt_…", headers=headers)

    @app.exception_handler(SeeOther)
    def elsewhere(_: Request, error: SeeOther) -> Response:
        return RedirectResponse(error.place, HTTPStatus.SEE_OTHER)


def _install_others(app: FastAPI) -> None:
    @app.exception_handler(DBAPIError)
    def database_failed(request: Request, error: DBAPIError) -> Response:
        logger.error("a request failed in the database", exc_info=error)
        return answer(request, 503, "the database could not answer; the log of the server has the reason")

    @app.exception_handler(IntegrityError)
    @app.exception_handler(DataError)
    def value_refused(request: Request, error: IntegrityError | DataError) -> Response:
        refused = refused_value(error)
        return answer(request, 422, mask_text(str(refused)), field=refused.field)

    @app.exception_handler(RequestValidationError)
    def not_valid(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"field": ".".join(map(str, one["loc"])), "reason": mask_text(str(one["msg"]))}
            for one in error.errors()
        ]
        where = [str(part) for part in error.errors()[0]["loc"]]
        named = ".".join(where[1:] or where)  # people need not know whether it is of the query or the path
        return answer(request, 422, f"{named}: {errors[0]['reason']}", errors=errors)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    def crashed(request: Request, _: Exception) -> Response:
        return answer(request, 500, "something went wrong; the log of the server has it")
