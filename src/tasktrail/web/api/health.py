"""What a supervisor asks: is the process alive, and can it work. Both are open and say no more than that."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from pydantic import BaseModel

from tasktrail import schema
from tasktrail.errors import DatabaseUnavailable, SchemaOutdated
from tasktrail.web.holders import TheTrail
from tasktrail.web.problems import problem

router: Final = APIRouter(prefix="/health")


class HealthDocument(BaseModel):
    """The answer when all is well."""

    status: str = "ok"


@router.get("/live")
def live() -> HealthDocument:
    """Say that the process answers."""
    return HealthDocument()


@router.get("/ready", response_model=HealthDocument)
def ready(trail: TheTrail) -> HealthDocument | Response:
    """Say whether the database answers and fits this release."""
    try:
        with trail.engines.pooled() as db:
            schema.require(db, trail.registry, schema=trail.schema)
    except (DatabaseUnavailable, SchemaOutdated):
        return problem(503, "the database cannot be used, or is not at the version of this release")
    return HealthDocument()
