"""``tasktrail status``, ``list``, ``show``, ``failures``, ``stats``: the read model on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tasktrail.celery import Trail
from tasktrail.cli.application import trail_of
from tasktrail.cli.durations import spoken
from tasktrail.cli.printing import plain
from tasktrail.filters import Filter
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Details, FailureGroup, History, Period, Row, Source, Window
from tasktrail.registry import Domain
from tasktrail.states import Status

SHORT: Final = 80
"""Characters of an error or of fields that a table shows; ``--json`` and ``show`` have all of them."""

Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="The domain, e.g. exchange_rate.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[DOMAIN]...", help="Only these domains.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Span = Annotated[Period, typer.Option("--period", help="How far back it looks.")]


@dataclass(frozen=True, slots=True)
class _Look:
    """What a command reads from."""

    trail: Trail
    db: Source
    now: datetime

    def domains(self, names: Iterable[str] | None) -> list[Domain]:
        registry = self.trail.registry
        return [registry.get(name) for name in names] if names else list(registry)


def status(context: typer.Context, domains: Names = None, as_json: AsJson = False) -> None:
    """Say for each domain how many jobs are in which state, what waits longest, and what is stuck."""
    with _looking(context, figures=True) as look:
        settings = look.trail.settings
        found = []
        for domain in look.domains(domains):
            counts = queries.counts(look.db, domain)
            oldest = queries.oldest_pending(look.db, domain)
            late = {
                "stuck": queries.stuck(look.db, domain, lease=settings.lease),
                "overdue": queries.overdue(look.db, domain, bound=settings.overdue_after),
            }
            found.append((counts, oldest, late))
    if as_json:
        _print_json(
            [
                {**asdict(counts), "oldest_pending": oldest and asdict(oldest)}
                | {
                    name: {**asdict(rows.count), "ids": [row.id for row in rows.rows]}
                    for name, rows in late.items()
                }
                for counts, oldest, late in found
            ]
        )
        return
    table = _table(
        "domain", right=[*(state.value.lower() for state in Status), "oldest due", "stuck", "overdue"]
    )
    for counts, oldest, late in found:
        states = [f"{counts.by_state[state]:,}" for state in Status]
        waits = spoken(oldest.seconds) if oldest else ""
        table.add_row(plain(counts.domain), *states, waits, *(str(rows.count) for rows in late.values()))
    _print(table)


def list_(
    context: typer.Context,
    domain: Name,
    status: Annotated[
        list[Status] | None, typer.Option("--status", help="Only rows in this state; repeatable.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", help="Only rows whose error holds this text.")
    ] = None,
    worker: Annotated[str | None, typer.Option("--worker", help="Only rows of workers so named.")] = None,
    attempts: Annotated[
        int | None, typer.Option("--attempts", min=0, help="Only rows with so many failed attempts or more.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", help="Only rows created at this UTC time or later.")
    ] = None,
    before: Annotated[
        datetime | None, typer.Option("--before", help="Only rows created before this UTC time.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Only failures of this group, as `failures` names it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many rows, up to 200.")] = 50,
    page: Annotated[
        str | None, typer.Option("--page", help="The token that the page before ended with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs of a domain, the newest first."""
    with _looking(context) as look:
        of = look.trail.registry.get(domain)
        chosen = Filter(
            states=status or (),
            error=error,
            worker=worker,
            attempts_from=attempts,
            created_from=since and since.replace(tzinfo=UTC),
            created_before=before and before.replace(tzinfo=UTC),
        )
        found = queries.page(look.db, of, chosen, after=page, limit=limit, group=group)
    if as_json:
        rows = [asdict(row) for row in found.rows]
        _print_json({"rows": rows, "next": found.next, **asdict(found.count)})
        return
    table = _table("id", "status", "created", "ended", "attempts", "worker", "fields", "error")
    for row in found.rows:
        table.add_row(*map(plain, _cells(row, look.now)))
    _print(table)
    typer.echo(f"{len(found.rows)} of {found.count} rows")
    if found.next:
        typer.echo(f"older ones: add --page {found.next}")


def show(
    context: typer.Context,
    domain: Name,
    tracking_id: Annotated[int, typer.Argument(metavar="ID", help="The row.")],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one job: its fields, its attempts, and the jobs that wait for each other."""
    with _looking(context) as look:
        of = look.trail.registry.get(domain)
        found = queries.details(look.db, of, tracking_id, schema=look.trail.schema)
    if as_json:
        _print_json(asdict(found))
        return
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(found, look.now):
        facts.add_row(f"[bold]{plain(name)}[/]", plain(value))
    _print(facts)
    if found.log:
        table = _table("attempt", "ended", "took", "outcome", "worker", "error")
        for one in found.log:
            took = "" if one.seconds is None else spoken(one.seconds)
            cells = (
                str(one.number),
                _when(one.end, look.now),
                took,
                one.outcome,
                one.worker or "",
                one.error,
            )
            table.add_row(*map(plain, cells))
        _print(table)


def failures(
    context: typer.Context, domains: Names = None, period: Span = Period.DAY, as_json: AsJson = False
) -> None:
    """Group the failed jobs by what went wrong, the largest group first."""
    with _looking(context, figures=True) as look:
        window = Window.of(period, look.now)
        found = [queries.failures(look.db, domain, window) for domain in look.domains(domains)]
    if as_json:
        _print_json([asdict(groups) for groups in found])
        return
    groups: list[FailureGroup] = [group for one in found for group in one.groups]
    if not groups:
        typer.echo(f"nothing failed in the last {period.value}")
        return
    table = _table("domain", "rows", "first", "last", "error", "group", "e.g.")
    for group in sorted(groups, key=lambda group: -group.rows):
        times = (_when(group.first_at, look.now), _when(group.last_at, look.now))
        cells = (
            group.domain,
            f"{group.rows:,}",
            *times,
            _short(group.fingerprint),
            group.group,
            str(group.example_id),
        )
        table.add_row(*map(plain, cells))
    _print(table)
    for one in found:
        if one.more_groups:
            typer.echo(f"{one.domain}: {one.more_groups} smaller groups more")


def stats(
    context: typer.Context, domains: Names = None, period: Span = Period.DAY, as_json: AsJson = False
) -> None:
    """Say how much was done, how much of it succeeded, how long it took and waited, and what was retried."""
    with _looking(context, figures=True) as look:
        window = Window.of(period, look.now)
        found = [queries.history(look.db, domain, window) for domain in look.domains(domains)]
    if as_json:
        _print_json([_figures(one) for one in found])
        return
    numbers = [
        "created",
        "ended",
        "per minute",
        "success",
        "completion",
        "p50",
        "p95",
        "p99",
        "waited p95",
        "retried",
    ]
    table = _table("domain", right=numbers)
    for one in found:
        running, waiting, retries = one.running, one.waiting, one.retries
        table.add_row(
            plain(one.domain),
            f"{one.created:,}",
            f"{one.ended:,}",
            f"{one.per_minute:.2f}",
            _percent(one.success_rate),
            _percent(one.completion_rate),
            *(_seconds(value) for value in (running.p50, running.p95, running.p99, waiting.p95)),
            f"{retries.retried:,}",
        )
    _print(table)


@contextmanager
def _looking(context: typer.Context, *, figures: bool = False) -> Iterator[_Look]:
    """Read in one snapshot; figures of many rows come from the replica, where there is one."""
    trail = trail_of(context)
    engines = trail.figures if figures else trail.engines
    try:
        with engines.errors(), queries.reading(engines.sync) as db:
            yield _Look(trail, db, queries.server_time(db))
    finally:
        trail.dispose()


def _figures(history: History) -> dict[str, Any]:
    names = (
        "created",
        "completed",
        "failed",
        "cancelled",
        "ended",
        "per_minute",
        "success_rate",
        "completion_rate",
    )
    return {**asdict(history), **{name: getattr(history, name) for name in names}}


def _facts(found: Details, now: datetime) -> Iterator[tuple[str, str]]:
    row = found.row
    yield "job", f"{row.domain} {row.id}"
    yield "status", row.status.value
    yield "attempts", f"{row.attempts} of {row.max_attempts} failed"
    for name in ("created_at", "due_at", "started_at", "heartbeat_at", "completed_at"):
        moment: datetime | None = getattr(row, name)
        if moment is not None:
            yield name.removesuffix("_at"), _when(moment, now)
    for name, value in (("worker", row.worker), ("message", row.celery_task_id), ("error", row.error)):
        if value is not None:
            yield name, value
    if found.progress is not None:
        yield "progress", f"{found.progress[0]:,} of {found.progress[1]:,}"
    for field, content in row.fields.items():
        yield field, str(content)
    for one in found.prerequisites:
        yield (
            "waits for",
            f"{one.ref.domain} {one.ref.id}, {'which is done' if one.is_met else 'not done yet'}",
        )
    for other in found.dependents:
        yield "is waited for by", f"{other.domain} {other.id}"


def _cells(row: Row, now: datetime) -> tuple[str, ...]:
    ended = _when(row.completed_at, now) if row.completed_at else ""
    fields = ", ".join(f"{name}={value}" for name, value in row.fields.items() if value is not None)
    return (
        str(row.id),
        row.status.value,
        _when(row.created_at, now),
        ended,
        f"{row.attempts}/{row.max_attempts}",
        row.worker or "",
        _short(fields),
        _short(row.error or ""),
    )


def _when(moment: datetime, now: datetime) -> str:
    """Return a moment, absolute and relative."""
    seconds = (now - moment).total_seconds()
    relative = f"{spoken(seconds)} ago" if seconds >= 0 else f"in {spoken(-seconds)}"
    return f"{moment:%Y-%m-%d %H:%M:%S}Z, {relative}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(*columns)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # whoever reads a pipe can wrap lines, and cannot bring back what was cut
        console = Console(highlight=False, width=10_000)
    console.print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)
