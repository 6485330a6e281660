"""How far the migration has come, and its drift."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel

from tasktrail.masking import mask_text
from tasktrail.migration.drift import Entry
from tasktrail.web import migrations
from tasktrail.web.figure_documents import Figure
from tasktrail.web.holders import TheTrail
from tasktrail.web.served_plan import ThePlan

router: Final = APIRouter(prefix="/migration")


class TableDocument(Figure):
    """How far the copying of a legacy table has come."""

    table: str
    done: int
    errors: int
    started_at: datetime | None
    finished_at: datetime | None
    rate: float | None


class HeapDocument(Figure):
    """Quarantined rows of a table with one reason."""

    table: str
    reason: str
    rows: int
    accepted: int
    example: str


class PassDocument(Figure):
    """A comparison of both sides."""

    started_at: datetime
    finished_at: datetime
    compared: int
    pending: int
    pairs: int
    mismatches: int
    known: int
    healed: int


class MigrationDocument(BaseModel):
    """A migration as it stands; ``phase`` is null before it is planned."""

    name: str
    phase: str | None
    since: datetime | None
    is_paused: bool
    window_ends_at: datetime | None
    next: str
    changes_to_apply: int
    oldest_change_seconds: float
    troubles: list[str]
    tables: list[TableDocument]
    quarantine: list[HeapDocument]


class DriftEntryDocument(BaseModel):
    """One difference between both sides, from when it was first seen on."""

    table: str
    key: str
    found_by: str
    what: str
    column: str
    expected: str | None
    found: str | None
    known_as: str | None
    passes: int
    first_seen_at: datetime
    last_seen_at: datetime


class DriftDocument(BaseModel):
    """What is open, and the last comparisons."""

    open: list[DriftEntryDocument]
    passes: list[PassDocument]


class LineDocument(Figure):
    """Rows of a legacy table that share a fate."""

    table: str
    kind: str
    fate: str
    reason: str | None
    rows: int


class AccountDocument(BaseModel):
    """Where every legacy row is."""

    is_balanced: bool
    lines: list[LineDocument]


@router.get("")
def show_migration(trail: TheTrail, plan: ThePlan) -> MigrationDocument:
    """Say how far the migration has come; 404 when none is served."""
    seen = migrations.look(trail, plan)
    return MigrationDocument(
        name=seen.name,
        phase=seen.phase,
        since=seen.state.since if seen.state else None,
        is_paused=bool(seen.state and seen.state.is_paused),
        window_ends_at=seen.state.window_ends_at if seen.state else None,
        next=seen.command,
        changes_to_apply=seen.lag.entries,
        oldest_change_seconds=seen.lag.seconds,
        troubles=[mask_text(one) for one in seen.troubles],
        tables=[TableDocument.model_validate(one) for one in seen.tables],
        quarantine=[HeapDocument.model_validate(one) for one in seen.heaps],
    )


@router.get("/drift")
def show_drift(trail: TheTrail, plan: ThePlan) -> DriftDocument:
    """List the first open differences, those that no rule explains before the others."""
    seen = migrations.look(trail, plan)
    passes = [PassDocument.model_validate(one) for one in seen.passes]
    return DriftDocument(open=[_entry(one) for one in seen.drift], passes=passes)


@router.get("/account")
def show_account(trail: TheTrail, plan: ThePlan) -> AccountDocument:
    """Say where every legacy row is."""
    found = migrations.account(trail, plan)
    if found is None:
        return AccountDocument(is_balanced=True, lines=[])
    lines = [LineDocument.model_validate(line) for line in found.lines]
    return AccountDocument(is_balanced=found.is_balanced, lines=lines)


def _entry(entry: Entry) -> DriftEntryDocument:
    one = entry.difference
    shown: dict[str, Any] = {
        name: None if text is None else mask_text(text)
        for name, text in (("expected", one.expected), ("found", one.found), ("key", one.key))
    }
    return DriftEntryDocument(
        table=one.table,
        found_by=one.way,
        what=one.what,
        column=one.column,
        known_as=entry.known_as,
        passes=entry.passes,
        first_seen_at=entry.first_seen_at,
        last_seen_at=entry.last_seen_at,
        **shown,
    )
