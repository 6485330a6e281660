"""Logging in with a token, and out again."""

from __future__ import annotations

import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session

from tasktrail.access import audit, logins, sessions, tokens
from tasktrail.access.tokens import Token
from tasktrail.celery import Trail
from tasktrail.web.holders import COOKIE, TheTrail, Viewer, require_own_form
from tasktrail.web.rendering import render

router: Final = APIRouter(include_in_schema=False)

FORM_COOKIE: Final = "tasktrail_login"
"""Holds a secret for the form before there is a session, so that nobody is logged in as somebody else."""

LONGEST_URL: Final = 4096
"""What is longer is not gone back to, in characters."""

Shown = Annotated[str, Form(max_length=tokens.LONGEST_SECRET)]


@router.get("/login", name="login_form")
def show_form(
    request: Request, wanted: Annotated[str, Query(alias="next", max_length=LONGEST_URL)] = ""
) -> Response:
    """Show the form."""
    return _form(request, wanted)


@router.post("/login")
def log_in(
    request: Request,
    trail: TheTrail,
    token: Shown = "",
    csrf_token: Shown = "",
    wanted: Annotated[str, Form(alias="next", max_length=LONGEST_URL)] = "",
) -> Response:
    """Begin a session for whoever shows a token."""
    require_own_form(request, request.cookies.get(FORM_COOKIE, ""), csrf_token)
    address = request.client.host if request.client else "unknown"
    with trail.engines.pooled() as db:
        is_allowed = logins.is_allowed(db, trail.schema, address)
    if not is_allowed:
        wait = str(int(logins.WINDOW.total_seconds()))
        raise HTTPException(429, "too many tries; wait a quarter of an hour", {"Retry-After": wait})
    with trail.engines.pooled() as db:
        found = tokens.holder(db, trail.schema, token.strip())
    if found is None:
        return _form(
            request, wanted, status=401, complaint="This token opens nothing. Is it whole, and still in use?"
        )
    secret = _begin(trail, found, address)
    answer = RedirectResponse(_within(request, wanted), 303)
    _set(request, answer, COOKIE, secret, int(sessions.LIFETIME.total_seconds()))
    answer.delete_cookie(FORM_COOKIE, path=_root(request))
    return answer


@router.post("/logout")
def log_out(request: Request, trail: TheTrail, holder: Viewer) -> Response:
    """End the session."""
    if holder.form_token is None:
        raise HTTPException(403, "there is no session to end")
    with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
        sessions.end(db, trail.schema, request.cookies.get(COOKIE, ""))
        audit.note(db, trail.schema, holder.name, "logout")
    answer = RedirectResponse(request.url_for("login_form"), 303)
    answer.delete_cookie(COOKIE, path=_root(request))
    return answer


def _begin(trail: Trail, found: Token, address: str) -> str:
    with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
        secret = sessions.begin(db, trail.schema, found)
        logins.forget(db, trail.schema, address)
        audit.note(db, trail.schema, found.name, "login", address=address)
    return secret


def _within(request: Request, wanted: str) -> str:
    """Return where somebody wanted to go, if that is a page of this application; else its first one."""
    root = _root(request)
    is_ours = wanted.startswith(root) and not wanted.startswith("//") and "\\" not in wanted
    return wanted if is_ours and wanted.isprintable() else root


def _form(request: Request, wanted: str, *, status: int = 200, complaint: str | None = None) -> HTMLResponse:
    secret = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
    form_token = sessions.form_token(secret)
    answer = render(
        request, "login.html", status=status, complaint=complaint, csrf_token=form_token, wanted=wanted
    )
    _set(request, answer, FORM_COOKIE, secret, 3600)
    return answer


def _set(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    is_secure = request.url.scheme == "https"
    answer.set_cookie(
        name, value, max_age=seconds, path=_root(request), httponly=True, samesite="strict", secure=is_secure
    )


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/") + "/"
