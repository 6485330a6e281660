"""What Celery beat starts, and when; all times are UTC.

| time | what |
| --- | --- |
| 16:30 | exchange rates: the ECB publishes them at 16:00 in Frankfurt, which is 14:00 or 15:00 |
| 20:00 | ETF prices: due when New York's are final, at 20:30 in summer, at 21:30 in winter |
| 21:45 | roll call: what the two missed or failed to do today; New York is final by then in winter, too |

Beat itself does no work. It sends a message that adds rows of daily updates for today, each once a day by its
| 20:00 | ETF prices; due when those of New York are final: 20:30 in summer, 21:30 in winter |
is dropped. A day that was missed so, or while beat was down, is caught up by the next day's row, which looks
at what is stored: once, however many days were missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from celery.schedules import crontab
from sqlalchemy.orm import Session

from portfolio.clock import Clock
from portfolio.daily.tracking import daily_fields
from portfolio.models import ETF_PRICES, EXCHANGE_RATES, DailyUpdateTracking
from tasktrail import TrackedTask, Trail, Unavailable

TASK: Final = "portfolio.add_daily_updates"
"""Name of the one Celery task that is not tracked."""

EXPIRES: Final = 2 * 60 * 60
"""How long beat's messages are good for, in seconds; the last one is gone before the next day begins."""

LATE: Final = 60 * 60
"""How late beat may send a message after it was down, in seconds; beyond that it waits for the next day."""


def _entry(hour: int, minute: int, types: Sequence[str], *, restart: bool = False) -> dict[str, Any]:
    return {
        "task": TASK,
        "schedule": crontab(hour=hour, minute=minute),
        "args": (list(types),),
        "kwargs": {"restart": restart},
        "options": {"expires": EXPIRES},
    }


BEAT_SCHEDULE: Final = {
    "exchange rates": _entry(16, 30, [EXCHANGE_RATES]),
    "ETF prices": _entry(20, 0, [ETF_PRICES]),
    "roll call": _entry(21, 45, [EXCHANGE_RATES, ETF_PRICES], restart=True),
}
"""The entries for Celery beat; the application's time zone is UTC."""


def register_schedule(trail: Trail, update_daily: TrackedTask[DailyUpdateTracking], clock: Clock) -> None:
    """Register what beat starts, and the times.

    Args:
        trail: where.
        update_daily: the tracked task of the daily updates.
        clock: tells the time.
    """

    def add_daily_updates(types: list[str], *, restart: bool = False) -> None:
        """Add the rows of today's daily updates; those that are there stay, or start again if they failed."""
        now = clock()
        with trail.engines.errors(), Session(trail.engines.sync) as db:
            for update_type in types:
                fields = daily_fields(now.astimezone(UTC).date(), update_type, now=now)
                update_daily.enqueue(db, on_duplicate="restart" if restart else "return", **fields)
            db.commit()

    make_task: Any = trail.app.task
    make_task(
        name=TASK,
        shared=False,
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        autoretry_for=(Unavailable,),
        max_retries=None,
        retry_backoff=True,
        retry_backoff_max=300,
    )(add_daily_updates)
    trail.leave_untracked(TASK, reason="it only adds rows of daily updates, which are tracked themselves")
    trail.app.conf.update(beat_schedule=BEAT_SCHEDULE, beat_cron_starting_deadline=LATE)
