"""The pages of the dashboard, each a router of its own."""

from tasktrail.web.pages import (
    audit,
    doctor,
    failures,
    job,
    jobs,
    migration,
    operations,
    overview,
    stream,
    workers,
)

ROUTERS = tuple(
    module.router
    for module in (
        overview,
        jobs,
        job,
        failures,
        operations,
        workers,
        migration,
        audit,
        doctor,
        stream,
    )
)
"""All of them."""
