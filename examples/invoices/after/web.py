"""The web application: invoices are written, and looked at."""

from fastapi import FastAPI
from jobs import send_invoice, trail
from models import Invoice, engine
from pydantic import BaseModel
from sqlalchemy.orm import Session

from tasktrail.web import create_app

web = FastAPI(title="Invoices")
web.mount("/jobs", create_app(trail))


class NewInvoice(BaseModel):
    """What is asked for."""

    address: str
    cents: int


@web.post("/invoices", status_code=202)
def write_invoice(new: NewInvoice) -> dict[str, int]:
    """Write an invoice; it is sent in the background."""
    with Session(engine) as db:
        invoice = Invoice(address=new.address, cents=new.cents)
        db.add(invoice)
        db.flush()
        send_invoice.enqueue(db, invoice_id=invoice.id)
        db.commit()
        return {"id": invoice.id}


@web.get("/invoices/{invoice_id}")
def show_invoice(invoice_id: int) -> dict[str, str | int | None]:
    """Say what became of an invoice."""
    with Session(engine) as db:
        invoice = db.get_one(Invoice, invoice_id)
        sent_at = invoice.sent_at and invoice.sent_at.isoformat()
        return {"id": invoice.id, "address": invoice.address, "sent_at": sent_at}
