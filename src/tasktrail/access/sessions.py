"""Login sessions: a secret in a cookie for which a token was shown; it ends with that token."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from datetime import timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import delete, insert, select

from tasktrail.access.tables import sessions, tokens
from tasktrail.access.tokens import Token, hashed, in_use, token_of
from tasktrail.guards import CLOCK
from tasktrail.tracker import Database

LIFETIME: Final = timedelta(hours=12)
"""How long a session lasts, at most."""

LONGEST_SECRET: Final = 200


def begin(db: Database, schema: str | None, token: Token) -> str:
    """Begin a session, and forget those that have expired.

    Args:
        db: session or connection; the caller commits.
        schema: where the library's own tables are.
        token: was shown.

    Returns:
        The secret for the cookie.
    """
    table = sessions(schema)
    db.execute(delete(table).where(table.c.expires_at < CLOCK))
    secret = secrets.token_urlsafe(32)
    values = {"secret_hash": hashed(secret), "token_id": token.id}
    db.execute(insert(table).values(**values, expires_at=CLOCK + LIFETIME))
    return secret


def holder(db: Database, schema: str | None, secret: str) -> Token | None:
    """Return the token that a session was begun with, if both still hold."""
    if len(secret) > LONGEST_SECRET:
        return None
    session, token = sessions(schema), tokens(schema)
    query = (
        select(*(column for column in token.columns if column.key != "secret_hash"))
        .join_from(session, token, session.c.token_id == token.c.id)
        .where(session.c.secret_hash == hashed(secret), session.c.expires_at > CLOCK, *in_use(schema))
    )
    row = db.execute(query).first()
    return None if row is None else token_of(row._asdict())


def end(db: Database, schema: str | None, secret: str) -> None:
    """End a session."""
    table = sessions(schema)
    db.execute(delete(table).where(table.c.secret_hash == hashed(secret)))


def form_token(secret: str) -> str:
    """Return what every form of a session carries; it cannot be guessed without the cookie's secret."""
    digest = hmac.digest(secret.encode("utf-8", "surrogatepass"), b"tasktrail form", sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")


def is_form_token(secret: str, shown: str) -> bool:
    """Whether a form was made for this session."""
    return hmac.compare_digest(form_token(secret).encode(), shown.encode("utf-8", "surrogatepass"))
