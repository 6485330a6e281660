"""``tasktrail doctor`` on the application: nothing is untracked without a reason, nothing is missing."""

from __future__ import annotations

from portfolio.main import Application
from tasktrail.doctor import Severity, examine


def test_a_fresh_installation_has_no_errors(application: Application) -> None:
    errors = [finding for finding in examine(application.trail) if finding.severity is Severity.ERROR]

    assert [found.subject for found in errors] == ["fsync"]  # which the tests switch off themselves


def test_a_task_that_nobody_declared_is_found(application: Application) -> None:
    def stray() -> None: ...

    application.celery.task(name="portfolio.stray", shared=False)(stray)
    found = [finding.subject for finding in examine(application.trail) if finding.check == "untracked tasks"]

    assert found == ["portfolio.stray"]
