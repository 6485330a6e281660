"""The REST API; each part is a router of its own."""

from typing import Final

from fastapi import APIRouter, Depends

from tasktrail.web.api import figures, health, jobs, metrics, migration, operations
from tasktrail.web.choosing import known_parameters
from tasktrail.web.holders import viewer

router: Final = APIRouter(prefix="/api", dependencies=[Depends(viewer), Depends(known_parameters)])
for part in (jobs, operations, figures, migration):
    router.include_router(part.router)

__all__ = ["health", "metrics", "router"]
