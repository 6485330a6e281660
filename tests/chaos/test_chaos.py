"""A short storm on each broker; ``make chaos`` is the long one."""

from __future__ import annotations

import pytest
from rich.console import Console

from tests.chaos.arena import scratch
from tests.chaos.run import Options, run, show
from tests.rabbitmq import require_rabbitmq


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broker", "persistent"),
    [("redis", False), ("rabbitmq", True)],
    ids=["redis without persistence", "rabbitmq"],
)
def test_nothing_is_lost_doubled_or_left_over_in_a_storm(broker: str, persistent: bool) -> None:
    if broker == "rabbitmq":
        require_rabbitmq()
    options = Options(
        broker=broker,
        jobs=300,
        seconds=12,
        limit=150,
        seed=20,
        persistent=persistent,
        size=2,
        concurrency=3,
    )
    with scratch() as folder:
        report = run(options, folder)
        show(report, options, Console(width=130))

        assert report.violations == {}
        assert report.rows["COMPLETED"] > 0.9 * options.jobs
        assert report.figures["attempts lost"] > 0
