"""The application of ``shop`` after its migration: it says which tables tracking has replaced."""

from __future__ import annotations

from celery import Celery
from shop import ReportTracking, ReportTrackingService

from tasktrail import Run, Settings, Trail

app = Celery("shop_after")
trail = Trail(app, Settings.load(), legacy_tables=["public.old_reports"], legacy_modules=["shop_legacy"])


@trail.task(ReportTrackingService)
def make_report(run: Run[ReportTracking]) -> None:
    """Write a customer's report."""
