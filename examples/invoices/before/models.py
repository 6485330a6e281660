"""Customers' invoices."""

import os
from datetime import datetime

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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
