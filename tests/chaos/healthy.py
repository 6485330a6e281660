"""A small population of rows in a run that went well, for tests that then break one thing of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session

from tasktrail import BaseTaskTracking, tracker
from tasktrail.retry import NoRetry, Retry
from tasktrail.tracker import Claim
from tests.chaos.domains import (
    Cancelled,
    ChaosCoroutine,
    ChaosJob,
    Effect,
    Evidence,
    Kind,
    Ordered,
    Struck,
)

Model = type[BaseTaskTracking]
AGAIN = Retry(0.0)
ENOUGH = NoRetry("enough")
ROLLED_BACK = 999
"""Id that a rolled-back row had."""


class Population:
    """Makes rows as workers do, with the evidence of it."""

    def __init__(self, db: Session) -> None:
        self.db = db

    def order(self, kind: Kind, model: Model = ChaosJob, after: str | None = None, **fields: Any) -> int:
        """Enqueue a job whose key is its kind."""
        key = f"{model.__tracking__.domain} {kind}"
        row = tracker.create(self.db, model, {"key": key, "kind": kind.value, **fields})
        self._note(Ordered, model, row.id, key=key, how="enqueue", outcome="acknowledged", after=after)
        return row.id

    def claim(self, tracking_id: int, model: Model = ChaosJob) -> Claim:
        """Begin an attempt."""
        claim = tracker.claim(self.db, model, tracking_id, celery_task_id="task", worker="w0/1")
        for event, at in (("message", None), ("start", claim.fence.started_at)):
            self._note(Evidence, model, tracking_id, event=event, at=datetime.now(UTC), pid=1, claim=at)
        return claim

    def complete(self, claim: Claim, model: Model = ChaosJob, *, effect: bool = True) -> None:
        """End an attempt well."""
        fence = claim.fence
        if effect:
            key = claim.inputs["key"]
            self._note(Effect, model, fence.tracking_id, key=key, claim=fence.started_at, pid=1)
        tracker.complete(self.db, model, fence)

    def fail(self, claim: Claim, decision: Retry | NoRetry, error: str, outcome: Any = "error") -> None:
        """End an attempt badly."""
        tracker.fail(self.db, ChaosJob, claim.fence, decision, error=error, outcome=outcome)

    def _note(self, table: Any, model: Model, tracking_id: int, **values: Any) -> None:
        self.db.execute(
            insert(table).values(domain=model.__tracking__.domain, tracking_id=tracking_id, **values)
        )


def populate(engine: Engine) -> None:
    """Fill an empty database with one row of each kind."""
    with Session(engine) as db:
        people = Population(db)
        quick = people.order(Kind.QUICK)
        people.fail(people.claim(quick), AGAIN, "LeaseExpired: no heartbeat", "lost")
        people.complete(people.claim(quick))

        told = people.order(Kind.FAILS_FIRST, failures=1)
        people.fail(people.claim(told), AGAIN, "ChaosError: as told")
        people.complete(people.claim(told))

        always = people.order(Kind.ALWAYS_FAILS, max_attempts=1)
        people.fail(people.claim(always), ENOUGH, "ChaosError: as told")

        people.fail(people.claim(people.order(Kind.GIVES_UP)), ENOUGH, "GiveUp: as told")

        people.complete(people.claim(people.order(Kind.PLAIN)), effect=False)

        progress = people.claim(people.order(Kind.PROGRESS, seconds=0.5))
        tracker.progress(db, ChaosJob, progress.fence, done=5)
        people.complete(progress)

        slow = people.order(Kind.SLOW)
        tracker.cancel(db, ChaosJob, slow, "chaos")
        db.execute(insert(Cancelled).values(domain="chaos_job", tracking_id=slow, outcome="accepted"))

        waiting = people.order(Kind.QUICK, ChaosCoroutine, after="chaos_job quick")
        people.complete(people.claim(waiting, ChaosCoroutine), ChaosCoroutine)

        rolled_back = {"key": "rolled back", "how": "session", "outcome": "rolled back"}
        db.execute(insert(Ordered).values(domain="chaos_job", tracking_id=ROLLED_BACK, **rolled_back))
        long_ago = datetime.now(UTC) - timedelta(days=1)
        db.execute(insert(Struck).values(blow="cancel rows", detail="", at=long_ago, until=long_ago))
        db.commit()


def break_it(engine: Engine, statement: str) -> None:
    """Run one statement that breaks something."""
    with engine.begin() as db:
        assert db.execute(text(statement)).rowcount > 0, "nothing was broken"
