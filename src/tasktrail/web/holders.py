"""Who asks, and whether they may: the dependencies that every route has one of."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, cast

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBearer

from tasktrail.access import sessions, tokens
from tasktrail.access.tokens import Role, Token
from tasktrail.celery import Trail
from tasktrail.tracker import Database
from tasktrail.web.problems import NotLoggedIn
from tasktrail.web.reads import Reads

COOKIE: Final = "tasktrail_session"
FORM_FIELD: Final = "csrf_token"
FORM_HEADER: Final = "X-CSRF-Token"
LIVE_HEADER: Final = "x-live"
"""A page that follows what changes sends it when it fetches itself."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

Look: TypeAlias = Callable[[Database, str | None, str], Token | None]
"""Finds whose secret it is."""

_bearer = HTTPBearer(auto_error=False, description="A token of `tasktrail tokens create`.")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks.

    Attributes:
        name: for the audit.
        role: what they may do.
        form_token: what the forms of their pages carry; ``None`` without a session.
    """

    name: str
    role: Role
    form_token: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether they may write."""
        return self.role is Role.OPERATOR


def trail_of(request: Request) -> Trail:
    """Return what the application is about."""
    return cast("Trail", request.app.state.trail)


async def _form_field(request: Request) -> str:
    """Return the form token that a request shows, in its header or in its form."""
    if request.method in SAFE:
        return ""
    shown = request.headers.get(FORM_HEADER)
    if shown is None and request.headers.get("content-type", "").startswith(
        "application/x-www-form-urlencoded"
    ):
        shown = (await request.form()).get(FORM_FIELD)  # type: ignore[assignment]  # no file in such a form
    return shown if isinstance(shown, str) else ""


def viewer(
    request: Request,
    _: Annotated[object, Depends(_bearer)],
    shown: Annotated[str, Depends(_form_field)],
) -> Holder:
    """Let in who shows a token or has a session.

    Raises:
        NotLoggedIn: they show nothing that opens this.
        HTTPException: a session's request to write does not come from a form of its own.
    """
    request.app.state.conductor.ensure()
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    cookie = request.cookies.get(COOKIE)
    if secret:
        look = tokens.holder if scheme.lower() == "bearer" else None
        token = look and _token(request, look, secret.strip())
        if token is None:
            raise NotLoggedIn
        return Holder(token.name, token.role)
    if cookie:
        token = _token(request, sessions.holder, cookie)
        if token is not None:
            if request.method not in SAFE:
                require_own_form(request, cookie, shown)
            return Holder(token.name, token.role, sessions.form_token(cookie))
    if request.app.state.is_open and is_local(request):
        return Holder("anybody on this machine", Role.VIEWER)
    raise NotLoggedIn


def _token(request: Request, look: Look, secret: str) -> Token | None:
    """Look a secret up; pages that follow what changes, and only read, share what was found for a second."""
    trail = trail_of(request)

    def fresh() -> Token | None:
        with trail.engines.pooled() as db:
            return look(db, trail.schema, secret)

    if request.method in SAFE and LIVE_HEADER in request.headers:
        reads = cast("Reads", request.app.state.reads)
        return reads.shared((look, tokens.hashed(secret)), fresh)
    return fresh()


def operator(holder: Annotated[Holder, Depends(viewer)]) -> Holder:
    """Let in who may write.

    Raises:
        HTTPException: they may only read.
    """
    if not holder.is_operator:
        raise HTTPException(403, f"{holder.name} may only look on; this takes a token of an operator")
    return holder


def require_own_form(request: Request, secret: str, shown: str) -> None:
    """Refuse a request that another site made a browser send.

    Raises:
        HTTPException: it is one, or might be.
    """
    is_foreign = request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}
    if (
        is_foreign or not secret or not sessions.is_form_token(secret, shown)
    ):  # anybody can sign with no secret
        raise HTTPException(403, f"the form is not of this session; load the page again ({FORM_FIELD})")


def is_local(request: Request) -> bool:
    """Whether both ends are this machine, by address and by name: a foreign name may lead here, too."""
    try:
        at_home = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        at_home = False
    name = request.headers.get("host", "")
    host = name if name.endswith("]") else name.rpartition(":")[0] or name
    return at_home and host in LOCAL_NAMES


Viewer = Annotated[Holder, Depends(viewer)]
Operator = Annotated[Holder, Depends(operator)]
TheTrail = Annotated[Trail, Depends(trail_of)]
