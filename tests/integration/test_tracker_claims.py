"""Claiming a row, on real connections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from tasktrail import Status, WrongState, tracker
from tests.support import JobTracking


def test_of_eight_threads_that_race_for_one_row_one_wins_and_seven_are_told(engine: Engine) -> None:
    with Session(engine) as db:
        job = tracker.create(db, JobTracking, {})
        db.commit()
    barrier = Barrier(8)

    def race(number: int) -> object:
        with Session(engine) as db:
            db.connection()
            barrier.wait()
            try:
                claim = tracker.claim(db, JobTracking, job.id, celery_task_id=f"task {number}", worker="w")
            except WrongState as error:
                return error
            finally:
                db.commit()
            return claim

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))

    losers = [outcome for outcome in outcomes if isinstance(outcome, WrongState)]
    assert len(losers) == 7
    assert {loser.status for loser in losers} == {Status.PROCESSING}
