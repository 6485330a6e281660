"""The overview: how each domain does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from tasktrail.monitoring.queries import History, Overview, Period
from tasktrail.web import charts, figures
from tasktrail.web.charts import Column
from tasktrail.web.choosing import known_parameters
from tasktrail.web.frame import page, read
from tasktrail.web.holders import TheTrail, Viewer

router: Final = APIRouter(include_in_schema=False, dependencies=[Depends(known_parameters)])

MARKS: Final = 5
"""So many times stand below a chart."""


@dataclass(frozen=True, slots=True)
class Card:
    """A domain as the overview shows it.

    Attributes:
        figures: how it does.
        columns: the bars of its chart.
        top: value at the chart's upper edge.
        marks: times below the chart.
    """

    figures: Overview
    columns: tuple[Column, ...]
    top: int
    marks: tuple[str, ...]

    @property
    def ended(self) -> tuple[int, ...]:
        """How many rows ended in each bar."""
        return tuple(column.total for column in self.columns)


@router.get("/", name="overview")
def show(request: Request, trail: TheTrail, holder: Viewer, period: Period = Period.DAY) -> Response:
    """Show how each domain does."""
    found = read(
        request,
        ("overview", period),
        lambda db: figures.overview(db, trail.registry, period, trail.settings),
        figures=True,
    )
    cards = [card(one) for one in found.domains]
    totals = {
        "processing": sum(one.counts.processing for one in found.domains),
        "due": sum(one.counts.due for one in found.domains),
        "completed": sum(one.history.completed for one in found.domains),
        "failed": sum(one.history.failed for one in found.domains),
        "stuck": sum(one.stuck.count for one in found.domains),
        "overdue": sum(one.overdue.count for one in found.domains),
    }
    return page(
        request,
        "overview.html",
        holder,
        active="overview",
        cards=cards,
        now=found.now,
        period=period,
        periods=list(Period),
        totals=totals,
    )


def card(found: Overview) -> Card:
    """Return a domain as the overview shows it."""
    columns = columns_of(found.history)
    return Card(found, columns, charts.ceiling([column.total for column in columns]), marks_of(found.history))


def columns_of(history: History) -> tuple[Column, ...]:
    """Return the bars of a chart of what ended."""
    step = history.window.step
    form = "%H:%M" if step < timedelta(hours=1) else "%d %b %H:%M"
    return tuple(
        Column(
            f"{bar.start:{form}} UTC: {bar.completed:,} completed, {bar.failed:,} failed, "
            f"{bar.cancelled:,} cancelled, {bar.created:,} added",
            bar.completed,
            bar.cancelled,
            bar.failed,
        )
        for bar in history.bars
    )


def marks_of(history: History) -> tuple[str, ...]:
    """Return the times below a chart."""
    window = history.window
    form = "%H:%M" if window.step < timedelta(hours=1) else "%d %b"
    bars = len(history.bars)
    moments = [window.start + window.step * round(bars * place / (MARKS - 1)) for place in range(MARKS - 1)]
    return (*(f"{moment:{form}}" for moment in moments), "now")
