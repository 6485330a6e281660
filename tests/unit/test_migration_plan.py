"""The plan as data: it refuses what contradicts itself, and its fingerprint changes with every rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasktrail.errors import ConfigurationError
from tasktrail.migration.plan import Mapped, MigrationPlan, Refusal, Refused, Reverse, Route, TableMigration


def same(row: Any) -> Mapped:
    return Mapped({"id": row["id"], "status": row["status"]})


COLUMNS = {"id": "s.id", "status": "s.s", "created_at": "now()", "updated_at": "now()"}
ROUTE = Route(name="jobs", target="jobs", domain="job", key=("id",), columns=COLUMNS, twin=same)
TABLE = TableMigration(
    name="old_jobs",
    source="public.old_jobs",
    key=("id",),
    source_columns={"id": ("integer",), "s": ("text",)},
    routes=(ROUTE,),
)


def plan_of(table: TableMigration) -> MigrationPlan:
    return MigrationPlan(name="shop", tables=(table,))


def with_route(**changes: Any) -> TableMigration:
    return replace(TABLE, routes=(replace(ROUTE, **changes),))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MigrationPlan(name="shop", tables=()), "the plan shop has no tables"),
        (lambda: MigrationPlan(name="shop", tables=(TABLE, TABLE)), "two are called 'old_jobs'"),
        (lambda: plan_of(replace(TABLE, name="Old jobs")), "'Old jobs' is no name for a table"),
        (lambda: plan_of(replace(TABLE, key=())), "key is empty"),
        (lambda: plan_of(replace(TABLE, key=("day",))), "source_columns lacks the key day"),
        (lambda: plan_of(replace(TABLE, chunk_size=0)), "chunk_size is 0"),
        (lambda: plan_of(with_route(columns={"id": "s.id"})), "columns lacks status"),
        (lambda: plan_of(with_route(key=("day",))), "columns lacks the key day"),
        (lambda: plan_of(with_route(inferred={"day": "TRUE"})), "inferred names day"),
        (
            lambda: plan_of(with_route(paired_by=("day",))),
            "paired_by or compared name day, which columns lacks",
        ),
        (lambda: plan_of(with_route(compared={"day": None})), "compared name day, which columns lacks"),
        (
            lambda: plan_of(with_route(reverse=Reverse(columns={"day": "t.day"}, changed=()))),
            "reverse writes day, which source_columns lacks",
        ),
        (
            lambda: plan_of(with_route(reverse=Reverse(columns={"id": "t.id"}, changed=("s",)))),
            "reverse.changed names s, which it has no rule for",
        ),
        (
            lambda: plan_of(with_route(reverse=Reverse(columns={"id": "t.id"}, changed=("id",)))),
            "reverse.changed names the legacy key id",
        ),
        (lambda: plan_of(with_route(columns={**COLUMNS, "worker": "'w'"})), "worker cannot be mapped"),
        (lambda: plan_of(with_route(name="a" * 21)), "is no name for a route"),
        (
            lambda: plan_of(replace(TABLE, routes=(ROUTE, replace(ROUTE, name="more")))),
            "has two routes to jobs",
        ),
        (
            lambda: plan_of(
                replace(TABLE, key=("id", "s"), source_columns={"id": ("integer",), "s": ("text",)})
            ),
            "ids can only be kept when the legacy key is one column",
        ),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(make: Callable[[], MigrationPlan], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        make()


@pytest.mark.parametrize(
    "other",
    [
        with_route(columns={**COLUMNS, "status": "upper(s.s)"}),
        with_route(refusals=(Refusal("no_status", "s.s IS NULL"),)),
        with_route(steps=({"word": "s.s"},)),
        replace(TABLE, rule_version=2),
        replace(TABLE, archived={"heartbeat": "not_a_job"}),
    ],
)
def test_the_fingerprint_changes_with_every_rule(other: TableMigration) -> None:
    assert plan_of(other).fingerprint != plan_of(TABLE).fingerprint


def test_the_fingerprint_is_the_same_for_the_same_plan_and_does_not_know_the_twins() -> None:
    again = with_route(twin=lambda _: Refused("quarantined", "no"))

    assert plan_of(again).fingerprint == plan_of(TABLE).fingerprint
    assert len(plan_of(TABLE).fingerprint) == 32


def test_a_table_and_a_route_are_found_by_their_names() -> None:
    plan = plan_of(TABLE)

    assert plan.table("old_jobs").route("jobs") is ROUTE
    with pytest.raises(ConfigurationError, match="has no table 'orders'; it has old_jobs"):
        plan.table("orders")
    with pytest.raises(ConfigurationError, match="has no route 'orders'"):
        TABLE.route("orders")


def test_a_row_that_takes_no_route_is_of_an_unknown_type_unless_the_plan_says_otherwise() -> None:
    assert TABLE.otherwise({"id": 1}) == Refused("quarantined", "unknown_type")
    assert ROUTE.selects({"id": 1})
