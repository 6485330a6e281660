"""The application that the workers of the chaos run load; configured by the environment."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import task_prerun, worker_ready
from sqlalchemy import Insert, insert

from tasktrail import GiveUp, RetryPolicy, Run, Settings, TrackedTask, Trail
from tests.chaos.domains import (
    SCHEMA,
    ChaosCoroutine,
    ChaosCoroutineService,
    ChaosJob,
    ChaosJobService,
    Effect,
    Kind,
)
from tests.chaos.sabotage import SABOTAGE, switch_off
from tests.chaos.witness import Witness

SOFT_LIMIT = 4.0
HARD_LIMIT = 5.5
STEP = 0.1
"""A slow body looks around this often, in seconds."""

POLICY = RetryPolicy(max_attempts=12, base=0.05, cap=1.0)
FAST = {
    "heartbeat_interval": 0.5,
    "lease": 3.0,
    "maintenance_interval": 0.2,
    "redispatch_after": 6.0,
    "eta_horizon": 0.3,  # so that some retries wait in the broker, and some in PostgreSQL
    "shutdown_grace": 1.0,
    "connect_timeout": 3,
}
"""Settings with which everything that takes minutes in production takes seconds."""

Job = Run[ChaosJob] | Run[ChaosCoroutine]


class ChaosError(Exception):
    """The failure a job was told to have."""


class Tasks:
    """The two tracked tasks of the chaos run."""

    def __init__(self, trail: Trail, witness: Witness) -> None:
        self.trail = trail
        self.witness = witness
        limits = {"soft_time_limit": SOFT_LIMIT, "time_limit": HARD_LIMIT}
        self.job: TrackedTask[ChaosJob] = trail.task(
            ChaosJobService, name="chaos.job", retry=POLICY, **limits
        )(self._job)
        self.coroutine: TrackedTask[ChaosCoroutine] = trail.task(
            ChaosCoroutineService, name="chaos.coroutine", retry=POLICY, **limits
        )(self._coroutine)
        self.of_domain: dict[str, TrackedTask[Any]] = {
            task.domain.name: task for task in (self.job, self.coroutine)
        }

    def _job(self, run: Run[ChaosJob]) -> None:
        """Do as the row says."""
        with self.witness.attempt(run):
            effect = effect_of(run)
            if effect is not None and run.row.early:
                run.session.execute(effect)
            for step, seconds in enumerate(pauses(run), start=1):
                with suppress(*([SoftTimeLimitExceeded] if is_stubborn(run) else [])):
                    time.sleep(seconds)
                if run.cancelled and run.id % 2:  # the others are rude and go on
                    return
                if run.row.kind == Kind.PROGRESS:
                    run.progress(step, step)
            fail_as_told(run)
            if effect is not None and not run.row.early:
                run.session.execute(effect)

    async def _coroutine(self, run: Run[ChaosCoroutine]) -> None:
        """Do as the row says."""
        with self.witness.attempt(run):
            effect = effect_of(run)
            if effect is not None and run.row.early:
                await run.asession.execute(effect)
            for step, seconds in enumerate(pauses(run), start=1):
                await asyncio.sleep(seconds)
                if run.row.kind == Kind.PROGRESS:
                    await run.aprogress(step, step)
            fail_as_told(run)
            if effect is not None and not run.row.early:
                await run.asession.execute(effect)


def effect_of(run: Job) -> Insert | None:
    """Return what leaves the job's side effect, under its own key."""
    row = run.row
    if row.kind == Kind.PLAIN:
        return None
    claim = run.fence.started_at
    return insert(Effect).values(
        domain=run.domain, tracking_id=run.id, key=row.key, claim=claim, pid=os.getpid()
    )


def pauses(run: Job) -> list[float]:
    """Return how long a body takes, in steps of seconds."""
    seconds = 2 * HARD_LIMIT if run.row.kind == Kind.STUCK and run.number == 1 else run.row.seconds
    return [STEP] * round(seconds / STEP)


def is_stubborn(run: Job) -> bool:
    """Say whether a stuck body goes on after the soft time limit, into the hard one."""
    return run.row.kind == Kind.STUCK and not run.row.early


def fail_as_told(run: Job) -> None:
    """Raise what the row says.

    Raises:
        ChaosError: this attempt is to fail.
        GiveUp: the job is not to be tried again.
    """
    if run.row.kind == Kind.GIVES_UP:
        raise GiveUp("as told")
    if run.row.kind == Kind.ALWAYS_FAILS or run.number <= run.row.failures:
        raise ChaosError("as told")


def build(settings: Settings, witness: Witness, queue: str) -> Tasks:
    """Put the application together."""
    celery = Celery("chaos")
    trail = Trail(celery, settings, schema=SCHEMA)
    over_redis = str(celery.conf.broker_url).startswith("redis")
    celery.conf.update(
        task_default_queue=queue,
        broker_transport_options={"visibility_timeout": 12} if over_redis else {},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
    )
    return Tasks(trail, witness)


def _in_worker() -> Celery:
    witness = Witness(Path(os.environ["CHAOS_EVIDENCE"]))
    for name in filter(None, os.environ.get(SABOTAGE, "").split(",")):
        switch_off(name)

    def note_message(task: Any = None, args: Any = None, **_: Any) -> None:
        witness.note("message", task.tracked[0].name, args[0])

    def note_ready(**_: Any) -> None:
        witness.note("ready", "", 0)

    task_prerun.connect(note_message, weak=False)
    worker_ready.connect(note_ready, weak=False)
    return build(Settings.load(), witness, os.environ["CHAOS_QUEUE"]).trail.app


if "CHAOS_EVIDENCE" in os.environ:
    app = _in_worker()
