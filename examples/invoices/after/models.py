"""Customers' invoices."""

import os
from datetime import datetime

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import BaseTaskTracking, BaseTaskTrackingService, NaturalKey, TrackingOptions

engine = create_engine(os.environ["TASKTRAIL_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1))


class Base(DeclarativeBase):
    """The tables."""


class Invoice(Base):
    """An invoice, and when it was sent."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str]
    cents: Mapped[int]
    sent_at: Mapped[datetime | None]


class SendingTracking(BaseTaskTracking, Base):
    """One row for each invoice that is to be sent."""

    __tablename__ = "sending_tracking"
    __tracking__ = TrackingOptions(domain="sending", natural_key=NaturalKey(("invoice_id",), "uq_sending"))
    invoice_id: Mapped[int]


class SendingTrackingService(BaseTaskTrackingService[SendingTracking]):
    """The service of the sendings."""

    model = SendingTracking
