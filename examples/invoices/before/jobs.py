"""The background job: an invoice is sent."""

import os
from datetime import UTC, datetime

from celery import Celery
from models import Invoice, engine
from post import PostOffice
from sqlalchemy.orm import Session

app = Celery("invoices", broker=os.environ["TASKTRAIL_BROKER_URL"])


@app.task(autoretry_for=(OSError,), max_retries=3, retry_backoff=True)
def send_invoice(invoice_id: int) -> None:
    """Send an invoice by mail."""
    with Session(engine) as db:
        invoice = db.get_one(Invoice, invoice_id)
        PostOffice().send(invoice.address, f"You owe us {invoice.cents / 100:.2f} euro.")
        invoice.sent_at = datetime.now(UTC)
        db.commit()
