"""Spans of live worker processes: the trace of a message goes on where it is worked on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Live
from tests.waiting import until


@pytest.mark.parametrize("kind", ["job", "async_job"])
def test_a_retried_job_is_one_trace_over_the_processes_of_a_worker(
    fresh: Live, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "spans"
    monkeypatch.setenv("TEST_SPANS", str(file))

    def attempts() -> list[dict[str, Any]]:
        spans = [json.loads(line) for line in file.read_text().splitlines()]
        return [span for span in spans if span["name"] == f"attempt {kind}"]

    with fresh.worker():
        row = getattr(fresh.tasks, kind).enqueue(payload="fail once")
        fresh.ended(row)
        until(lambda: len(attempts()) == 2)

    first, second = attempts()
    outcomes = [span["attributes"]["tasktrail.outcome"] for span in (first, second)]
    assert outcomes == ["retried", "completed"]
    assert first["context"]["trace_id"] == second["context"]["trace_id"]
    spans = {span["context"]["span_id"]: span for span in map(json.loads, file.read_text().splitlines())}
    sent_again = spans[second["parent_id"]]
    assert (sent_again["name"], sent_again["parent_id"]) == (f"send {kind}", first["context"]["span_id"])
