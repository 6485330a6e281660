"""What the main process of a worker knows of one message: here it learns that a child was lost or stopped.

Celery looks for this class through ``Task.Request``. A lost attempt is recorded in its row, which decides
about the next one, so the message is acknowledged instead of being put back: put back without counting, a
message that kills its worker would do so for ever.
"""

from __future__ import annotations

import re
from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # untyped
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request

from tasktrail.celery.execution import worker_name
from tasktrail.celery.losses import Loss, LossRecorder, What
from tasktrail.registry import Domain


class TrackedRequest(Request):
    """A request of a tracked task."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Record a lost worker before Celery deals with it."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        stopped = getattr(self, "_already_cancelled", False) or getattr(self, "_already_revoked", False)
        if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and not stopped:
            self._record("released" if _is_shutdown(error) else "lost", str(error) or type(error).__name__)
            self.acknowledge()
        elif isinstance(error, TimeLimitExceeded):
            self._record("timeout", str(error))
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:  # noqa: FBT001  # Celery calls it so
        """Record a hard time limit before Celery kills the child."""
        if not soft:
            self._record("timeout", f"hard time limit of {timeout:g} s exceeded")
        return super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> Any:  # noqa: FBT001
        self._record("cancelled", f"{reason} through Celery")
        return _request(super())._announce_revoked(  # noqa: SLF001  # the hook Celery has for this
            reason, terminated, signum, expired
        )

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        self._record("released", "the worker was shut down")
        return _request(super())._announce_cancelled(*args, **kwargs)  # noqa: SLF001  # likewise

    def _record(self, what: What, reason: str) -> None:
        task: Any = self.task
        tracked: tuple[Domain, LossRecorder] = task.tracked
        domain, recorder = tracked
        pid: Any = self.worker_pid
        if not self.args or (what != "cancelled" and pid is None):
            return
        worker = None if pid is None else worker_name(self.hostname, pid)
        recorder.submit(Loss(domain, task, int(self.args[0]), str(self.id), worker, what, reason))


def _is_shutdown(error: BaseException) -> bool:
    """Say whether a child was ended with its worker, e.g. by a supervisor that sends SIGTERM to all."""
    told: tuple[Any, Any] = (worker_state.should_stop, worker_state.should_terminate)
    is_stopping = any(code is not None and code is not False for code in told)
    return is_stopping and re.search(r"(exitcode|signal) 15\b", str(error)) is not None


def _request(request: Any) -> Any:
    """Hide from the type checker what Celery's stubs leave out."""
    return request
