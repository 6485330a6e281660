"""The application that live workers of the acceptance tests load; configured by the environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

from celery import Celery
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from sqlalchemy import insert

from tasktrail import GiveUp, RetryIn, RetryPolicy, Run, Settings, TrackedTask, Trail, WaitFor
from tasktrail.celery.tracing import UNTRACED, Tracer
from tasktrail.otel import OpenTelemetryTracer
from tests.support import (
    SCHEMA,
    AsyncJobTracking,
    AsyncJobTrackingService,
    Effect,
    JobTracking,
    JobTrackingService,
)

QUEUE = os.environ.get("TEST_QUEUE", "tests")
FOLDER = Path(os.environ.get("TEST_FOLDER", "."))
VISIBILITY_TIMEOUT = 60
"""After so many seconds Redis delivers a message again that was not acknowledged."""


BUILT: list[Tasks] = []
"""The tasks of this process, for bodies that enqueue others."""


class Tasks:
    """The two tracked tasks of the tests; the payload says how they behave."""

    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        BUILT.append(self)
        self.job: TrackedTask[JobTracking] = trail.task(
            JobTrackingService, name="tests.job", retry=RetryPolicy(base=0.1)
        )(job)
        self.async_job: TrackedTask[AsyncJobTracking] = trail.task(
            AsyncJobTrackingService, name="tests.async_job", retry=RetryPolicy(base=0.1)
        )(async_job)


def job(run: Run[JobTracking]) -> None:
    """Behave as the payload says."""
    _misbehave(run)
    if run.row.payload.startswith("effect"):
        run.session.execute(insert(Effect).values(job_id=run.id))
    if run.row.payload == "effect then error":
        raise GiveUp("after the effect")
    if run.row.payload == "note":
        run.note(f"pid {os.getpid()}, thread {threading.get_ident()}")
    if run.row.payload.startswith("hold"):
        _hold(run)
    if run.row.payload == "wait":
        run.session.execute(insert(Effect).values(job_id=run.id))
        if not run.prerequisites():
            raise WaitFor([BUILT[-1].async_job.enqueue(run.session, payload="effect") for _ in range(3)])


def _hold(run: Run[JobTracking]) -> None:
    """Hold on until the test lets go or, unless told to be stubborn, the row is cancelled."""
    try:
        run.session.execute(insert(Effect).values(job_id=run.id))
        _tell(run, f"pid {os.getpid()}")
        while not _may_go(run):
            if run.cancelled and run.row.payload != "hold stubbornly":
                _tell(run, f"cancelled, {run.cancel_reason}")
                break
            if run.row.payload == "hold busily":
                sum(range(200_000))  # all that time other threads wait for the interpreter
            else:
                time.sleep(0.01)
    finally:
        _tell(run, "ended")


async def async_job(run: Run[AsyncJobTracking]) -> None:
    """Behave as the payload says, on the event loop."""
    await asyncio.sleep(0)
    _misbehave(run)
    if run.row.payload.startswith("effect"):
        await run.asession.execute(insert(Effect).values(job_id=run.id))
    if run.row.payload == "effect then error":
        raise GiveUp("after the effect")
    if run.row.payload == "note":
        run.note(f"pid {os.getpid()}, loop {id(asyncio.get_running_loop())}")
    if run.row.payload == "hold":
        await _ahold(run)
    if run.row.payload == "wait":
        await run.asession.execute(insert(Effect).values(job_id=run.id))
        if not await run.aprerequisites():
            raise WaitFor([await BUILT[-1].job.aenqueue(run.asession, payload="effect") for _ in range(3)])


async def _ahold(run: Run[AsyncJobTracking]) -> None:
    """Hold on until the test lets go."""
    try:
        await run.asession.execute(insert(Effect).values(job_id=run.id))
        _tell(run, f"pid {os.getpid()}")
        while not _may_go(run):  # noqa: ASYNC110  # the test says so from another process
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        _tell(run, f"cancelled, {run.cancel_reason}")
        raise
    finally:
        _tell(run, "ended")


def _tell(run: Run[JobTracking] | Run[AsyncJobTracking], what: str) -> None:
    with (FOLDER / f"{run.domain}-{run.id}").open("a") as file:
        file.write(f"{what}\n")


def _may_go(run: Run[JobTracking] | Run[AsyncJobTracking]) -> bool:
    return (FOLDER / f"{run.domain}-{run.id}.go").exists()


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
        case "effect in three hours" if run.number == 1:
            raise RetryIn(3 * 3600)
        case payload:
            _take_the_process_down(payload)


def _take_the_process_down(payload: str) -> None:
    match payload:
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "out of memory":
            raise MemoryError("no memory for this")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def build(settings: Settings, queue: str = QUEUE) -> Tasks:
    """Put the application together."""
    celery = Celery("tests")
    celery.conf.update(
        task_default_queue=queue,
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT},
    )
    return Tasks(Trail(celery, settings, schema=SCHEMA, tracer=_tracer()))


def _tracer() -> Tracer:
    """Return one that appends its spans to the file that the environment names, a line for each."""
    if "TEST_SPANS" not in os.environ:
        return UNTRACED
    provider = TracerProvider()
    spans = Path(os.environ["TEST_SPANS"]).open("a", buffering=1)  # noqa: SIM115  # as long as the process
    lines = ConsoleSpanExporter(out=spans, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(lines))
    return OpenTelemetryTracer(provider)


if "TASKTRAIL_DATABASE_URL" in os.environ:
    app = build(Settings.load()).trail.app
