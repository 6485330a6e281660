"""The SQL of a plan, statement by statement: which route a row takes, and what becomes of a refused one."""

from __future__ import annotations

from dataclasses import replace

from tasktrail.migration.plan import Refusal
from tasktrail.migration.session import Session
from tasktrail.migration.transform import Shape, Transform
from tests.migration.legacy import ORDER_TABLE, ORDERS

DISPOSITIONS = "SELECT _source_key, _disposition FROM ({}) AS rows"


def transform(*routes: object) -> Transform:
    return Transform(replace(ORDER_TABLE, routes=routes), Shape({"id": "integer"}, {}))


def found(db: Session, sql: str) -> dict[int, str | None]:
    return {int(row["_source_key"]): row["_disposition"] for row in db.rows(DISPOSITIONS.format(sql))}


def test_a_row_takes_the_first_route_whose_condition_it_meets(db: Session) -> None:
    urgent = replace(ORDERS, name="urgent", condition="s.currency = 'EUR'")
    one = transform(urgent, ORDERS)
    taken = [set(found(db, one.rows(route, "old_orders s"))) for route in (urgent, ORDERS)]

    assert taken == [{1, 2, 3}, set(range(4, 12))]
    assert set(found(db, one.others("old_orders s"))) == {12, 13, 14}


def test_a_refused_row_is_archived_where_its_rule_says_so_and_else_quarantined(db: Session) -> None:
    rules = [
        replace(rule, disposition="archived") if rule.reason == "bad_currency" else rule
        for rule in ORDERS.refusals
    ]
    assert isinstance(rules[0], Refusal)
    route = replace(ORDERS, refusals=tuple(rules))

    became = found(db, transform(route).rows(route, "old_orders s"))

    assert became == {
        **dict.fromkeys(range(1, 6)),
        6: "quarantined",  # an unknown state
        7: "quarantined",  # no such day
        8: "quarantined",
        9: "archived",  # a currency in lower case
        10: "quarantined",  # JSON that PostgreSQL cannot hold
        11: "quarantined",  # no time at all
    }
