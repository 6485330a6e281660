"""Evidence of what ran, in one file per process: it outlives any kill, and no server's restart touches it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasktrail import Run


class Witness:
    """Writes evidence; each line is one write, so that a kill leaves whole lines.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = -1
        self._pid = 0

    @contextmanager
    def attempt(self, run: Run[Any]) -> Iterator[None]:
        """Note when the body of an attempt begins and when it ends."""
        claim = run.fence.started_at.isoformat()
        self.note("start", run.domain, run.id, claim)
        try:
            yield
        finally:
            self.note("end", run.domain, run.id, claim)

    def note(self, event: str, domain: str, tracking_id: int, claim: str | None = None) -> None:
        """Note one event."""
        line = json.dumps([event, domain, tracking_id, time.time(), os.getpid(), claim]) + "\n"
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self.folder / f"{self._pid}.jsonl"
            self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(self._file, line.encode())


def read(folder: Path) -> Iterable[dict[str, Any]]:
    """Return all evidence of a folder, as rows of the table of that name."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            event, domain, tracking_id, at, pid, claim = json.loads(line)
            yield {
                "event": event,
                "domain": domain,
                "tracking_id": tracking_id,
                "at": datetime.fromtimestamp(at, UTC),
                "pid": pid,
                "claim": None if claim is None else datetime.fromisoformat(claim),
            }
