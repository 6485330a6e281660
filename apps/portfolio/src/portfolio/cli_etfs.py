"""``portfolio etf``: add ETFs, update them, and show what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Final, TypeAlias

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portfolio.cli_common import (
    DAY_FORMAT,
    DEFAULT_TIMEOUT,
    Timeout,
    Wait,
    as_day,
    opened,
    report,
    wait_for,
)
from portfolio.etfs.calendar import calendar_of, newest_final_day
from portfolio.etfs.conversion import to_the_cent
from portfolio.etfs.fields import check_symbol
from portfolio.etfs.request import UpdateType
from portfolio.etfs.tracking import creation_fields, symbol_of, update_fields
from portfolio.main import Application
from portfolio.models import Etf, EtfPrice, EtfUpdateTracking
from tasktrail import InvalidField

etf = typer.Typer(help="ETFs and their prices.", no_args_is_help=True)

USUAL_RANGE: Final = timedelta(days=30)
"""How many days before its last day an update begins when nobody says otherwise."""

Symbol: TypeAlias = Annotated[str, typer.Argument(help="The symbol, e.g. MTUM.")]


@etf.command("add")
def add_etf(
    symbol: Symbol,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=DAY_FORMAT, help="First day of the history; by default all of it."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=DAY_FORMAT, help="Last day of the history; by default the newest."),
    ] = None,
    restart: Annotated[bool, typer.Option(help="Start a failed or cancelled creation again.")] = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Enqueue the creation of an ETF: its facts, and its history in euro; a worker fetches them."""
    fields = creation_fields(_code(symbol), history_start=as_day(first), history_end=as_day(last))
    with opened() as application:
        with Session(application.trail.engines.sync) as db:
            other = db.scalar(select(Etf.id).where(Etf.symbol == fields["etf_id"], Etf.id != Etf.symbol))
        if other is not None:
            raise InvalidField(
                "symbol", fields["etf_id"], f"there is an ETF of that symbol, its id is {other}"
            )
        creation = application.tasks.create_etf.enqueue(
            on_duplicate="restart" if restart else "return", **fields
        )
        report(creation)
        if wait:
            wait_for(application, [creation], timeout)


@etf.command("update")
def update_etf(
    symbol: Symbol,
    update_type: Annotated[UpdateType, typer.Option("--type", help="What to fetch.")] = UpdateType.MANUAL,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=DAY_FORMAT, help="First day; by default 30 days before the last."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=DAY_FORMAT, help="Last day; by default the newest with final prices."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Enqueue the update of an ETF's facts or prices; a worker fetches them."""
    with opened() as application:
        found = _stored(application, symbol)
        now = application.clock()
        end = as_day(last) or newest_final_day(now, calendar_of(symbol_of(found)))
        start = as_day(first) or end - USUAL_RANGE
        update = application.tasks.update_etf.enqueue(
            **update_fields(found, update_type, start, end, now=now)
        )
        report(update)
        if wait:
            wait_for(application, [update], timeout)


@etf.command("show")
def show_etf(
    symbol: Symbol,
    days: Annotated[int, typer.Option(min=1, help="How many of the newest prices.")] = 10,
) -> None:
    """Show what is stored about an ETF: its facts, its newest prices, its newest updates."""
    console = Console(soft_wrap=True, highlight=False)
    with opened() as application:
        found = _stored(application, symbol)
        with Session(application.trail.engines.sync) as db:
            total, oldest, newest = db.execute(
                select(func.count(), func.min(EtfPrice.date), func.max(EtfPrice.date)).where(
                    EtfPrice.etf_id == found.id
                )
            ).one()
            prices = db.scalars(
                select(EtfPrice)
                .where(EtfPrice.etf_id == found.id)
                .order_by(EtfPrice.date.desc(), EtfPrice.source)
                .limit(days)
            ).all()
            updates = db.scalars(
                select(EtfUpdateTracking)
                .where(EtfUpdateTracking.etf_id == found.id)
                .order_by(EtfUpdateTracking.id.desc())
                .limit(5)
            ).all()
    facts = (found.symbol, found.name, found.currency, found.isin)
    console.print(f"{found.id}: {', '.join(fact or 'unknown' for fact in facts)}", markup=False)
    console.print(f"{total} prices{f', from {oldest} to {newest}' if total else ''}")
    if prices:
        console.print(_price_table(prices))
    for update in updates:
        console.print(_told(update), markup=False)


def _code(symbol: str) -> str:
    return symbol.strip().upper()


def _stored(application: Application, symbol: str) -> Etf:
    """Return the ETF that somebody means by its symbol or its id."""
    code = _code(symbol)
    check_symbol(code)
    query = select(Etf).where(or_(Etf.symbol == code, Etf.id.in_([code, symbol.strip()]))).order_by(Etf.id)
    with Session(application.trail.engines.sync) as db:
        found = db.scalars(query).all()
    if not found:
        raise InvalidField("symbol", code, f"there is no such ETF yet: portfolio etf add {code}")
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise InvalidField("symbol", code, f"several ETFs have it: {ids}")
    return found[0]


def _price_table(prices: Sequence[EtfPrice]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("date", "EUR", "quoted", "source"):
        table.add_column(heading, justify="left" if heading in {"date", "source"} else "right", no_wrap=True)
    for price in prices:
        quoted = f"{price.original_price.normalize():f} {price.original_currency}"
        table.add_row(f"{price.date:%a %Y-%m-%d}", str(to_the_cent(price.price)), quoted, price.source)
    return table


def _told(update: EtfUpdateTracking) -> str:
    what = f"{update.update_type}, {update.start_date} to {update.end_date}"
    parts = [f"etf_update {update.id}: {update.status}, {what}"]
    if update.missing_dates:
        parts.append(f"missing: {', '.join(_shown(update.missing_dates))}")
    parts += [text for text in (update.notes, update.error_message) if text]
    return "; ".join(parts)


def _shown(days: list[date], limit: int = 10) -> list[str]:
    more = len(days) - limit
    return [*map(str, days[:limit]), *([f"and {more} more"] if more > 0 else [])]
