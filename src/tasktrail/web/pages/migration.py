"""The page of the migration: phases, progress, dispositions, drift and quarantine."""

from __future__ import annotations

from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from tasktrail import interventions
from tasktrail.errors import ConfigurationError
from tasktrail.migration.plan import DISPOSITIONS, MigrationPlan
from tasktrail.migration.state import Phase
from tasktrail.web import migrations
from tasktrail.web.choosing import known_parameters
from tasktrail.web.frame import page
from tasktrail.web.holders import Operator, TheTrail, Viewer
from tasktrail.web.reads import Reads
from tasktrail.web.served_plan import ThePlan

router: Final = APIRouter(
    prefix="/migration", include_in_schema=False, dependencies=[Depends(known_parameters)]
)

FRESH: Final = 2.0
ACCOUNT_FRESH: Final = 30.0
"""How old what is shown may be, in seconds; the account reads all legacy rows."""

Name = Annotated[str, Query(max_length=60)]
Key = Annotated[str, Query(max_length=1000)]


@router.get("", name="migration")
def show(request: Request, trail: TheTrail, holder: Viewer) -> Response:
    """Show how far the migration has come."""
    plan = cast("MigrationPlan | None", request.app.state.plan)
    if plan is None:
        return page(request, "migration_none.html", holder, active="migration")
    reads = cast("Reads", request.app.state.reads)
    seen = reads.shared("migration", lambda: migrations.look(trail, plan), fresh=FRESH)
    account = reads.shared("account", lambda: migrations.account(trail, plan), fresh=ACCOUNT_FRESH)
    return page(
        request,
        "migration.html",
        holder,
        active="migration",
        seen=seen,
        now=seen.now,
        account=account,
        fates=(*DISPOSITIONS, "pending", "unaccounted", "ghost"),
        phases=list(Phase),
        most_drift=migrations.MOST_DRIFT,
    )


@router.get("/row", name="quarantined")
def show_row(
    request: Request, trail: TheTrail, holder: Viewer, plan: ThePlan, table: Name, key: Key
) -> Response:
    """Show one legacy row, as it was when it was looked at last."""
    try:
        row = migrations.quarantined(trail, plan, plan.table(table).name, key)
    except ConfigurationError as error:
        raise HTTPException(404, str(error)) from None
    return page(request, "migration_row.html", holder, active="migration", table=table, key=key, row=row)


@router.post("/redrive", name="redrive")
def redrive(
    request: Request,
    trail: TheTrail,
    holder: Operator,
    plan: ThePlan,
    table: Annotated[str, Form(max_length=60)],
    reason: Annotated[str, Form(max_length=60)],
) -> Response:
    """Drive quarantined rows through the rules again."""
    try:
        name = plan.table(table).name
    except ConfigurationError as error:
        raise HTTPException(404, str(error)) from None
    done = migrations.redrive(trail, plan, name, reason)
    interventions.noted(
        trail, holder.name, "redrive", count=done["driven"], table=table, reason=reason, **done
    )
    return RedirectResponse(request.url_for("migration").path, 303)
