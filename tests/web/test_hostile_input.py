"""The live API under made-up requests: it does not crash, and answers only what its description says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import text

from tests.desk import Desk
from tests.serving import served
from tests.web.conftest import Browser

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 6
"""For each operation and each mode: requests that fit the description, and requests that do not."""


@dataclass
class Api:
    """The live API and what its description says."""

    url: str
    operations: list[Any]


@pytest.fixture
def api(serve: Callable[..., FastAPI], browse: Browser, operator: str) -> Iterator[Api]:
    document = browse("GET", "/api/openapi.json", operator).json()
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    with served(serve()) as url:
        yield Api(url, [result.ok() for result in found])


def every_case(operation: Any, mode: GenerationMode, check: Callable[[Case], None]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Case) -> None:
        check(case)

    with suppress(Unsatisfiable):  # whatever is asked of a request without parameters fits
        run()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_asked_the_answer_is_one_that_the_description_knows(
    api: Api, shop: Desk, operator: str, mode: GenerationMode
) -> None:
    shop.fail(shop.job.enqueue())
    asked = set()

    def check(case: Case) -> None:
        asked.add(case.operation.label)
        answer = case.call(base_url=api.url, headers={"Authorization": f"Bearer {operator}"}, timeout=10)
        case.validate_response(answer, checks=CHECKS)

    assert len(api.operations) > 20
    for operation in api.operations:
        every_case(operation, mode, check)
    assert len(asked) > 15


def test_nothing_is_written_for_whoever_has_no_token(api: Api, shop: Desk) -> None:
    row = shop.job.enqueue()

    def check(case: Case) -> None:
        case.headers.pop("Authorization", None)
        assert case.call(base_url=api.url, timeout=10).status_code in {400, 401, 405, 413, 414}

    writes = [one for one in api.operations if one.method.upper() != "GET"]
    for operation in writes:
        every_case(operation, GenerationMode.POSITIVE, check)

    assert len(writes) >= 5
    assert shop.row(row)["status"] == "PENDING"
    with shop.engine.connect() as db:
        counts = [
            db.scalar(text(f"SELECT count(*) FROM tracking.{table}"))
            for table in ("job_tracking", "tasktrail_audit", "tasktrail_operations")
        ]
    assert counts == [1, 1, 0]
