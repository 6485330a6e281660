"""Statistics, failures, workers, and what the doctor finds."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from tasktrail.doctor import examine
from tasktrail.masking import mask_text
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Period
from tasktrail.web import figures
from tasktrail.web.figure_documents import (
    FailuresDocument,
    FiguresDocument,
    FindingDocument,
    GroupDocument,
    StatisticsDocument,
    WorkerDocument,
)
from tasktrail.web.holders import TheTrail

router: Final = APIRouter()


@router.get("/statistics")
def show_statistics(trail: TheTrail, period: Period = Period.DAY) -> StatisticsDocument:
    """Say of all domains what is in which state, and what happened in a window."""
    with trail.figures.errors(), queries.reading(trail.figures.sync) as db:
        found = figures.overview(db, trail.registry, period, trail.settings)
    domains = [FiguresDocument.of(one) for one in found.domains]
    return StatisticsDocument(at=found.now, period=period, domains=domains)


@router.get("/domains/{domain}/statistics")
def show_domain_statistics(trail: TheTrail, domain: str, period: Period = Period.DAY) -> FiguresDocument:
    """Say the same of one domain."""
    wanted = [trail.registry.get(domain)]
    with trail.figures.errors(), queries.reading(trail.figures.sync) as db:
        found = figures.overview(db, wanted, period, trail.settings)
    return FiguresDocument.of(found.domains[0])


@router.get("/domains/{domain}/failures")
def list_failures(trail: TheTrail, domain: str, period: Period = Period.DAY) -> FailuresDocument:
    """Group the rows that failed in a window by what went wrong, the largest group first."""
    wanted = [trail.registry.get(domain)]
    with trail.figures.errors(), queries.reading(trail.figures.sync) as db:
        (found,) = figures.failures(db, wanted, period).domains
    return FailuresDocument(
        domain=domain,
        start=found.start,
        bar_seconds=found.bar_seconds,
        rows=found.rows,
        more_groups=found.more_groups,
        groups=[GroupDocument.model_validate(group) for group in found.groups],
    )


@router.get("/workers")
def list_workers(trail: TheTrail) -> list[WorkerDocument]:
    """List the workers that have rows, or ended some of the last ones."""
    with trail.figures.errors(), queries.reading(trail.figures.sync) as db:
        found = queries.workers(db, trail.registry)
    return [WorkerDocument.model_validate(one) for one in found]


@router.get("/doctor")
def list_findings(trail: TheTrail) -> list[FindingDocument]:
    """List what is wrong with the installation, errors first; an empty list when nothing is."""
    return [
        FindingDocument(
            check=one.check,
            severity=one.severity,
            subject=mask_text(one.subject),
            message=mask_text(one.message),
        )
        for one in examine(trail)
    ]
