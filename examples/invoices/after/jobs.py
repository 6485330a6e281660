"""The background job: an invoice is sent."""

import os
from datetime import UTC, datetime

from celery import Celery
from models import Invoice, SendingTracking, SendingTrackingService, engine
from post import PostOffice
from sqlalchemy.orm import Session

from tasktrail import RetryPolicy, Run, Settings, Trail

app = Celery("invoices", broker=os.environ["TASKTRAIL_BROKER_URL"])
trail = Trail(app, Settings.load())


@trail.task(SendingTrackingService, retry=RetryPolicy(max_attempts=4, base=1, retry_on=(OSError,)))
def send_invoice(run: Run[SendingTracking]) -> None:
    """Send an invoice by mail."""
    with Session(engine) as db:
        invoice = db.get_one(Invoice, run.row.invoice_id)
        PostOffice().send(invoice.address, f"You owe us {invoice.cents / 100:.2f} euro.")
        invoice.sent_at = datetime.now(UTC)
        db.commit()
