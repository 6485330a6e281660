"""A small domain for the library's tests: orders, with every kind of column a domain may add."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ARRAY, DateTime, Engine, Integer, Numeric, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import (
    BaseTaskTracking,
    BaseTaskTrackingService,
    NaturalKey,
    Progress,
    TrackingOptions,
)
from tasktrail.schema import VERSIONS

SCHEMA = "tracking"


class Base(DeclarativeBase):
    """The tables of the tests."""


class OrderTracking(BaseTaskTracking, Base):
    """A domain with a natural key, progress, and one column of each kind."""

    __tablename__ = "order_tracking"
    __tracking__ = TrackingOptions(
        domain="order",
        schema=SCHEMA,
        natural_key=NaturalKey(("day", "currency"), "uq_order"),
        progress=Progress(done="done", total="total"),
    )

    day: Mapped[date]
    currency: Mapped[str] = mapped_column(String(3), info={"pattern": "[A-Z]{3}"})
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String(5)))
    done: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    total: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    amount: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    details: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    urgent: Mapped[bool | None]


class OrderTrackingService(BaseTaskTrackingService[OrderTracking]):
    """The service of the orders."""

    model = OrderTracking


class JobTracking(BaseTaskTracking, Base):
    """The simplest domain: every row is a unit of its own."""

    __tablename__ = "job_tracking"
    __tracking__ = TrackingOptions(domain="job", schema=SCHEMA)

    payload: Mapped[str] = mapped_column(String(100), server_default="")


class JobTrackingService(BaseTaskTrackingService[JobTracking]):
    """The service of the jobs."""

    model = JobTracking


class AsyncJobTracking(BaseTaskTracking, Base):
    """The same again, for a task that is a coroutine."""

    __tablename__ = "async_job_tracking"
    __tracking__ = TrackingOptions(domain="async_job", schema=SCHEMA)

    payload: Mapped[str] = mapped_column(String(100), server_default="")


class AsyncJobTrackingService(BaseTaskTrackingService[AsyncJobTracking]):
    """The service of the asynchronous jobs."""

    model = AsyncJobTracking


class ParcelTracking(BaseTaskTracking, Base):
    """The orders again, in a table with a partition for each day."""

    __tablename__ = "parcel_tracking"
    __tracking__ = TrackingOptions(
        domain="parcel",
        schema=SCHEMA,
        natural_key=NaturalKey(("day", "currency"), "uq_parcel"),
        partition_days=1,
        progress=Progress(done="done", total="total"),
    )

    day: Mapped[date]
    currency: Mapped[str] = mapped_column(String(3), info={"pattern": "[A-Z]{3}"})
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String(5)))
    done: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    total: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    amount: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    details: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    urgent: Mapped[bool | None]
    payload: Mapped[str] = mapped_column(String(100), server_default="")


class ParcelTrackingService(BaseTaskTrackingService[ParcelTracking]):
    """The service of the parcels."""

    model = ParcelTracking


class Effect(Base):
    """What a job did to the world, written in the transaction that completes it."""

    __tablename__ = "effects"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int]


def create_tables(engine: Engine) -> None:
    """Create the library's own tables and those of the tests."""
    with engine.begin() as db:
        operations = Operations(MigrationContext.configure(db))
        for version in VERSIONS:
            version.upgrade(operations, schema=SCHEMA)
        Base.metadata.create_all(db)
