"""What an application serves besides its trail."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, HTTPException, Request

from tasktrail.migration.plan import MigrationPlan


def plan_of(request: Request) -> MigrationPlan:
    """Return the migration plan that is served.

    Raises:
        HTTPException: there is none.
    """
    plan = request.app.state.plan
    if plan is None:
        raise HTTPException(404, "no migration plan is served here")
    return cast("MigrationPlan", plan)


ThePlan = Annotated[MigrationPlan, Depends(plan_of)]
