"""The application of the examples in the documentation: the shop of the README, grown a little.

Its pages say ``from shop import ...``, and their commands ``tasktrail --app shop:trail``.
"""

from __future__ import annotations

from datetime import date

from celery import Celery
from sqlalchemy import ARRAY, Integer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import (
    BaseTaskTracking,
    BaseTaskTrackingService,
    NaturalKey,
    RetryPolicy,
    Run,
    Settings,
    TrackingOptions,
    Trail,
)


class Base(DeclarativeBase):
    """The tables of the shop."""


class Customer(Base):
    """Somebody who gets reports."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Report(Base):
    """A finished report."""

    __tablename__ = "reports"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int]


class ReportTracking(BaseTaskTracking, Base):
    """One row for each customer's report."""

    __tablename__ = "report_tracking"
    __tracking__ = TrackingOptions(domain="report", natural_key=NaturalKey(("customer_id",), "uq_report"))

    customer_id: Mapped[int]


class ReportTrackingService(BaseTaskTrackingService[ReportTracking]):
    """The service of the reports."""

    model = ReportTracking


class MailTracking(BaseTaskTracking, Base):
    """One row for each mail."""

    __tablename__ = "mail_tracking"
    __tracking__ = TrackingOptions(domain="mail")

    address: Mapped[str]


class MailTrackingService(BaseTaskTrackingService[MailTracking]):
    """The service of the mails."""

    model = MailTracking


class ExportTracking(BaseTaskTracking, Base):
    """One row for each export of data; its task is made in the documentation."""

    __tablename__ = "export_tracking"
    __tracking__ = TrackingOptions(domain="export")

    files: Mapped[int]


class ExportTrackingService(BaseTaskTrackingService[ExportTracking]):
    """The service of the exports."""

    model = ExportTracking


class SummaryTracking(BaseTaskTracking, Base):
    """One row for each month's summary; its task is made in the documentation."""

    __tablename__ = "summary_tracking"
    __tracking__ = TrackingOptions(domain="summary", natural_key=NaturalKey(("month",), "uq_summary"))

    month: Mapped[date]
    customers: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class SummaryTrackingService(BaseTaskTrackingService[SummaryTracking]):
    """The service of the summaries."""

    model = SummaryTracking


app = Celery("shop")
trail = Trail(app, Settings.load())


@trail.task(ReportTrackingService, retry=RetryPolicy(max_attempts=5, base=30))
def make_report(run: Run[ReportTracking]) -> None:
    """Write a customer's report."""
    run.session.add(Report(customer_id=run.row.customer_id))


@trail.task(MailTrackingService)
async def send_mail(run: Run[MailTracking]) -> None:
    """Send a mail."""
    run.note(f"sent to {run.row.address}")
