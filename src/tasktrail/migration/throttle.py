"""When the copying makes room for others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tasktrail.migration.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """When the copying makes room for others.

    Attributes:
        share: part of the time in which it works, from 0 to 1; it rests after each chunk for the other
            part.
        replication_lag: rests while a replica is further behind than this, in seconds; None does not look.
        lock_waits: rests while more sessions than this wait for a lock.
        patience: longest rest at once, in seconds.
    """

    share: float = 1.0
    replication_lag: float | None = None
    lock_waits: int = 5
    patience: float = 30.0

    def rest(self, session: Session, worked: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Rest as long as it takes.

        Args:
            session: outside any transaction.
            worked: how long the last chunk took, in seconds.
            sleep: how to wait.
        """
        if self.share < 1:
            sleep(min(worked * (1 - self.share) / max(self.share, 0.01), self.patience))
        waited, pause = 0.0, 0.05
        while waited < self.patience and self._is_crowded(session):
            sleep(pause)
            waited, pause = waited + pause, min(pause * 2, 2.0)

    def _is_crowded(self, session: Session) -> bool:
        waiting = session.value(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory' AND pid <> "
            "pg_backend_pid()"
        )
        if waiting > self.lock_waits:
            return True
        if self.replication_lag is None:
            return False
        lag = session.value(
            "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) FROM pg_stat_replication"
        )
        return bool(lag > self.replication_lag)
