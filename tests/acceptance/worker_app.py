"""The application that live workers of the acceptance tests load; configured by the environment."""

from __future__ import annotations

import asyncio
import os
import threading

from celery import Celery
from sqlalchemy import insert
from tests.support import (
    SCHEMA,
    AsyncJobTracking,
    AsyncJobTrackingService,
    Effect,
    JobTracking,
    JobTrackingService,
)

from tasktrail import GiveUp, RetryIn, RetryPolicy, Run, Settings, TrackedTask, Trail

QUEUE = os.environ.get("TEST_QUEUE", "tests")


class Tasks:
    """The two tracked tasks of the tests; the payload says how they behave."""

    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self.job: TrackedTask[JobTracking] = trail.task(
            JobTrackingService, name="tests.job", retry=RetryPolicy(base=0.1)
        )(job)
        self.async_job: TrackedTask[AsyncJobTracking] = trail.task(
            AsyncJobTrackingService, name="tests.async_job", retry=RetryPolicy(base=0.1)
        )(async_job)


def job(run: Run[JobTracking]) -> None:
    """Behave as the payload says."""
    _misbehave(run)
    if run.row.payload == "effect":
        run.session.execute(insert(Effect).values(job_id=run.id))
    if run.row.payload == "effect then error":
        run.session.execute(insert(Effect).values(job_id=run.id))
        raise GiveUp("after the effect")
    if run.row.payload == "note":
        run.note(f"pid {os.getpid()}, thread {threading.get_ident()}")


async def async_job(run: Run[AsyncJobTracking]) -> None:
    """Behave as the payload says, on the event loop."""
    await asyncio.sleep(0)
    _misbehave(run)
    if run.row.payload == "effect":
        await run.asession.execute(insert(Effect).values(job_id=run.id))
    if run.row.payload == "effect then error":
        await run.asession.execute(insert(Effect).values(job_id=run.id))
        raise GiveUp("after the effect")
    if run.row.payload == "note":
        run.note(f"pid {os.getpid()}, loop {id(asyncio.get_running_loop())}")


def _misbehave(run: Run[JobTracking] | Run[AsyncJobTracking]) -> None:
    match run.row.payload:
        case "fail":
            raise ValueError("no luck")
        case "fail once" if run.number == 1:
            raise ValueError("not yet")
        case "give up":
            raise GiveUp("pointless")
        case "retry in" if run.number == 1:
            raise RetryIn(0.2)
        case "far" if run.number == 1:
            raise RetryIn(7200)


def build(settings: Settings, queue: str = QUEUE) -> Tasks:
    """Put the application together."""
    celery = Celery("tests")
    celery.conf.update(
        task_default_queue=queue,
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    return Tasks(Trail(celery, settings, schema=SCHEMA))


if "TASKTRAIL_DATABASE_URL" in os.environ:
    app = build(Settings.load()).trail.app
