"""The tables of tokens, sessions, logins, the audit and operations, as statements name them."""

from __future__ import annotations

from functools import cache

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB


@cache
def tokens(schema: str | None) -> Table:
    """Return the table of tokens."""
    moment = DateTime(timezone=True)
    return Table(
        "tasktrail_tokens",
        MetaData(schema=schema),
        Column("id", BigInteger, primary_key=True),
        Column("name", String(100)),
        Column("role", String(10)),
        Column("secret_hash", LargeBinary),
        Column("created_at", moment, server_default=func.now()),
        Column("last_used_at", moment),
        Column("expires_at", moment),
        Column("revoked_at", moment),
    )


@cache
def sessions(schema: str | None) -> Table:
    """Return the table of login sessions."""
    moment = DateTime(timezone=True)
    return Table(
        "tasktrail_sessions",
        MetaData(schema=schema),
        Column("secret_hash", LargeBinary, primary_key=True),
        Column("token_id", BigInteger),
        Column("created_at", moment, server_default=func.now()),
        Column("expires_at", moment),
    )


@cache
def logins(schema: str | None) -> Table:
    """Return the table of tries to log in."""
    return Table(
        "tasktrail_logins",
        MetaData(schema=schema),
        Column("address", String(64), primary_key=True),
        Column("began_at", DateTime(timezone=True)),
        Column("tries", Integer),
    )


@cache
def audit(schema: str | None) -> Table:
    """Return the table of what was done from outside."""
    return Table(
        "tasktrail_audit",
        MetaData(schema=schema),
        Column("id", BigInteger, primary_key=True),
        Column("happened_at", DateTime(timezone=True), server_default=func.now()),
        Column("who", Text),
        Column("what", String(40)),
        Column("domain", String(63)),
        Column("tracking_id", BigInteger),
        Column("filter", JSONB(none_as_null=True)),
        Column("count", BigInteger),
        Column("details", JSONB),
    )


@cache
def operations(schema: str | None) -> Table:
    """Return the table of operations on many rows."""
    moment = DateTime(timezone=True)
    return Table(
        "tasktrail_operations",
        MetaData(schema=schema),
        Column("id", BigInteger, primary_key=True),
        Column("domain", String(63)),
        Column("action", String(10)),
        Column("filter", JSONB),
        Column("reason", Text),
        Column("rate", Integer),
        Column("who", Text),
        Column("state", String(10)),
        Column("expected", BigInteger),
        Column("done", BigInteger),
        Column("cursor", BigInteger),
        Column("created_at", moment),
        Column("as_of", moment),
        Column("claimed_by", Uuid),
        Column("heartbeat_at", moment),
        Column("finished_at", moment),
        Column("error", Text),
    )
