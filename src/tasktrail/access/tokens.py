"""Tokens: a secret of 256 random bits, of which only a hash is kept, with a name and a role."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import ColumnElement, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tasktrail.access import audit
from tasktrail.access.tables import tokens
from tasktrail.errors import InvalidField
from tasktrail.guards import CLOCK
from tasktrail.tracker import Database

PREFIX: Final = "tt_"
"""What every token begins with, so that scanners and masks find it."""

LONGEST_SECRET: Final = 200
"""No token is longer, so nothing longer is looked up."""

LONGEST_NAME: Final = 100


class Role(StrEnum):
    """What the holder of a token may do."""

    VIEWER = "viewer"
    """Read."""
    OPERATOR = "operator"
    """Read, create, retry and cancel."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret.

    Attributes:
        id: its number.
        name: whose it is; shown in the audit.
        role: what its holder may do.
        created_at: when it was made.
        last_used_at: when it was last used, to the minute.
        expires_at: when it ends; ``None`` for never.
        revoked_at: when it was revoked.
    """

    id: int
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


def hashed(secret: str) -> bytes:
    """Return what is stored of a secret; its 256 random bits need neither salt nor a slow hash."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def create(
    db: Session,
    schema: str | None,
    name: str,
    role: Role,
    *,
    lifetime: timedelta | None = None,
    who: str,
) -> str:
    """Make a token.

    Args:
        db: session; the caller commits.
        schema: where the library's own tables are.
        name: whose it is; no other token in use may have it.
        role: what its holder may do.
        lifetime: how long it lasts; ``None`` for ever.
        who: makes it; for the audit.

    Returns:
        The secret, which cannot be read again.

    Raises:
        InvalidField: the name is taken or not usable, or the lifetime is none.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidField("name", name, f"must be 1 to {LONGEST_NAME} printable characters")
    if lifetime is not None and lifetime <= timedelta(0):
        raise InvalidField("lifetime", lifetime, "must be longer than nothing")
    secret = PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "role": role.value, "secret_hash": hashed(secret)}
    expires = None if lifetime is None else CLOCK + lifetime
    try:
        with db.begin_nested():
            db.execute(insert(tokens(schema)).values(**values, expires_at=expires))
    except IntegrityError:
        raise InvalidField("name", name, "is the name of a token in use; revoke that one first") from None
    audit.note(db, schema, who, "token created", token=name, role=role.value)
    return secret


def revoke(db: Session, schema: str | None, name: str, *, who: str) -> None:
    """End a token and its sessions at once.

    Raises:
        InvalidField: no token in use has that name.
    """
    table = tokens(schema)
    statement = update(table).where(table.c.name == name, table.c.revoked_at.is_(None))
    if db.execute(statement.values(revoked_at=CLOCK).returning(table.c.id)).first() is None:
        raise InvalidField("name", name, "is the name of no token in use")
    audit.note(db, schema, who, "token revoked", token=name)


def every(db: Database, schema: str | None) -> list[Token]:
    """Return all tokens, the newest first."""
    table = tokens(schema)
    query = select(*(column for column in table.columns if column.key != "secret_hash"))
    return [token_of(row._asdict()) for row in db.execute(query.order_by(table.c.id.desc()))]


def holder(db: Database, schema: str | None, secret: str) -> Token | None:
    """Return the token with a secret, if it is in use, and note that it was used.

    Args:
        db: session or connection; the caller commits.
        schema: where the library's own tables are.
        secret: what somebody showed.
    """
    if not secret.startswith(PREFIX) or len(secret) > LONGEST_SECRET:
        return None
    table = tokens(schema)
    query = select(*(column for column in table.columns if column.key != "secret_hash")).where(
        table.c.secret_hash == hashed(secret), *in_use(schema)
    )
    row = db.execute(query).first()
    if row is None:
        return None
    minute_ago = func.now() - text("interval '1 minute'")
    is_stale = or_(table.c.last_used_at.is_(None), table.c.last_used_at < minute_ago)
    db.execute(update(table).where(table.c.id == row.id, is_stale).values(last_used_at=CLOCK))
    return token_of(row._asdict())


def in_use(schema: str | None) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a token opens anything."""
    table = tokens(schema)
    return (
        table.c.revoked_at.is_(None),
        or_(table.c.expires_at.is_(None), table.c.expires_at > CLOCK),
    )


def token_of(row: Mapping[str, Any]) -> Token:
    """Make a token of a row of its table."""
    return Token(**{**row, "role": Role(row["role"])})
