"""What every request is checked for before it is looked at, and the headers that every response carries."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasktrail.web.problems import problem

LONGEST_QUERY: Final = 8 * 1024
LONGEST_PATH: Final = 2 * 1024
LARGEST_BODY: Final = 1024 * 1024
"""In bytes."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers would then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _BodyTooLarge(Exception):
    """More came than may come."""


class Armour:
    """ASGI middleware: refuses what is too large or holds control characters, and adds ``HEADERS``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:
                raise _BodyTooLarge
            return message

        wrong = _refusal(scope)
        if wrong is not None:
            await problem(*wrong)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive_some, send_with_headers)
        except _BodyTooLarge:
            if not has_begun:
                answer = problem(413, f"a body may have {LARGEST_BODY:,} bytes")
                await answer(scope, receive, send_with_headers)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    query, path = scope.get("query_string", b""), scope["path"]
    if len(query) > LONGEST_QUERY:
        return 414, f"a query string may have {LONGEST_QUERY:,} bytes, this one has {len(query):,}"
    if len(path) > LONGEST_PATH:
        return 414, f"a path may have {LONGEST_PATH:,} characters"
    asked = unquote_to_bytes(query.replace(b"+", b" "))
    if any(byte < 32 or byte == 127 for byte in asked) or not path.isprintable():  # noqa: PLR2004  # ASCII
        return 400, "path and query string may hold no control characters"
    try:
        asked.decode()
    except UnicodeDecodeError:
        return 400, "the query string is not UTF-8"
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > LARGEST_BODY:
        return 413, f"a body may have {LARGEST_BODY:,} bytes"
    return None
