"""``tasktrail cancel`` and ``tasktrail retry``: an operator's hand on single rows and on filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from tasktrail import interventions
from tasktrail.access.audit import whoever
from tasktrail.celery import TrackedTask, Trail
from tasktrail.cli.application import trail_of
from tasktrail.errors import ConfigurationError
from tasktrail.filters import Filter
from tasktrail.states import ACTIVE, REVIVABLE, Status

Domain = Annotated[str, typer.Argument(help="The domain, e.g. exchange_rate.")]
Ids = Annotated[list[int] | None, typer.Argument(help="The rows; leave out to use the options instead.")]
States = Annotated[list[Status] | None, typer.Option("--status", help="Only rows in this state; repeatable.")]
Error = Annotated[str | None, typer.Option("--error", help="Only rows whose error holds this text.")]
Since = Annotated[
    datetime | None, typer.Option("--since", help="Only rows created at this UTC time or later.")
]
Before = Annotated[datetime | None, typer.Option("--before", help="Only rows created before this UTC time.")]
Everything = Annotated[bool, typer.Option("--all", help="Every row, as far as its state allows.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


class Said:
    """What was done to rows of a domain: said line by line, or in the end as JSON.

    Args:
        domain: its name.
        as_json: whether to print JSON.
    """

    def __init__(self, domain: str, *, as_json: bool) -> None:
        self._domain = domain
        self._as_json = as_json
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def one(self, tracking_id: int, status: Status) -> None:
        """Say what state a row is in now."""
        self._rows.append({"id": tracking_id, "status": status})
        self._count += 1
        self._line(f"{self._domain} {tracking_id}: {status}")

    def many(self, count: int, what: str) -> None:
        """Say what became of the rows of a filter."""
        self._count = count
        self._line(f"{count} rows {what}" if count else "no row matches")

    def end(self) -> None:
        """Print the JSON, if that is wanted."""
        if self._as_json:
            typer.echo(json.dumps({"domain": self._domain, "count": self._count, "rows": self._rows}))

    def _line(self, text: str) -> None:
        if not self._as_json:
            typer.echo(text)


@contextmanager
def _saying(domain: str, *, as_json: bool) -> Iterator[Said]:
    """Say what was done, also when a later row is refused."""
    said = Said(domain, as_json=as_json)
    try:
        yield said
    finally:
        said.end()


def retry(
    context: typer.Context,
    domain: Domain,
    ids: Ids = None,
    status: States = None,
    error: Error = None,
    since: Since = None,
    before: Before = None,
    everything: Everything = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Start FAILED and CANCELLED rows again; their attempts stay in the log."""
    trail = trail_of(context)
    try:
        task = trail.task_of(domain)
        chosen = _filter(ids, status, error, since, before, everything=everything)
        with _saying(domain, as_json=as_json) as said:
            for tracking_id in ids or ():
                started = interventions.retry(trail, whoever(), domain, tracking_id)
                said.one(started.id, started.status)
            if ids:
                return
            done = 0
            if count := _confirmed(task, chosen, REVIVABLE, sure=yes, aside=as_json):
                trail.publisher.require_broker()  # before the first line of the audit says that it begins
                done = _audited(trail, "retry", task, chosen, count, lambda: task.retry_where(chosen))
            said.many(done, "started again")
    finally:
        trail.dispose()


def cancel(
    context: typer.Context,
    domain: Domain,
    ids: Ids = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the row.")] = "cancelled by an operator",
    status: States = None,
    error: Error = None,
    since: Since = None,
    before: Before = None,
    everything: Everything = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel PENDING rows at once, and PROCESSING rows at their worker's next heartbeat."""
    trail = trail_of(context)
    try:
        task = trail.task_of(domain)
        chosen = _filter(ids, status, error, since, before, everything=everything)
        with _saying(domain, as_json=as_json) as said:
            for tracking_id in ids or ():
                interventions.cancel(trail, whoever(), domain, tracking_id, reason)
                said.one(tracking_id, Status.CANCELLED)
            if ids:
                return
            done = 0
            if count := _confirmed(task, chosen, ACTIVE, sure=yes, aside=as_json):
                do = partial(task.cancel_where, chosen, reason)
                done = _audited(trail, "cancel", task, chosen, count, do, reason=reason)
            said.many(done, "cancelled")
    finally:
        trail.dispose()


def _filter(
    ids: list[int] | None,
    states: list[Status] | None,
    error: str | None,
    since: datetime | None,
    before: datetime | None,
    *,
    everything: bool,
) -> Filter:
    has_options = bool(states or error or since or before or everything)
    if bool(ids) == has_options:  # with both it would be guessed whether all or any of them must hold
        raise ConfigurationError(
            "name rows either by their ids, or by --status, --error, --since, --before, or --all"
        )
    return Filter(
        ids=ids or (),
        states=states or (),
        error=error,
        created_from=since and since.replace(tzinfo=UTC),
        created_before=before and before.replace(tzinfo=UTC),
    )


def _confirmed(
    task: TrackedTask[Any], chosen: Filter, states: frozenset[Status], *, sure: bool, aside: bool
) -> int:
    """Return how many rows are meant, once the operator has agreed.

    Args:
        task: of the domain.
        chosen: the filter.
        states: of the rows that are meant.
        sure: do not ask.
        aside: ask on stderr, where a program reads stdout.
    """
    count = task.count_where(chosen, states)
    if count and not sure:
        typer.confirm(f"{count} rows of {task.domain.name}, go on?", abort=True, err=aside)
    return count


def _audited(
    trail: Trail,
    what: str,
    task: TrackedTask[Any],
    chosen: Filter,
    count: int,
    do: Callable[[], int],
    **details: str,
) -> int:
    """Write to many rows between two lines of the audit; without the second one it has not ended well."""
    given = {  # as in a query string of the API, so that all lines read alike
        "status": sorted(chosen.states),
        "error": [chosen.error] if chosen.error else [],
        "created_from": [chosen.created_from.isoformat()] if chosen.created_from else [],
        "created_before": [chosen.created_before.isoformat()] if chosen.created_before else [],
    }
    about = {"domain": task.domain.name, "chosen": {name: texts for name, texts in given.items() if texts}}
    interventions.noted(trail, whoever(), f"{what} many", count=count, **about, **details)
    done = do()
    interventions.noted(trail, whoever(), f"{what} many: completed", count=done, **about)
    return done
