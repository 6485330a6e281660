"""What holds for every legacy row, however dirty."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from apps.portfolio.tests.legacy import dirty, loose
from apps.portfolio.tests.legacy.case import Row, source_of
from apps.portfolio.tests.legacy.cases import CASES
from apps.portfolio.tests.legacy.judge import judge, model_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, insert, select

from portfolio.legacy.metadata import MOST_BRACKETS, read_metadata
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.vocabulary import ARCHIVED_TYPES
from tasktrail import Status
from tasktrail.fields import checked, domain_columns
from tasktrail.migration.plan import Mapped, Refused

REASONS = {*Reason, *ARCHIVED_TYPES.values()}
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(scope="module")
def database(make_database: Any, portfolio_template: str) -> Iterator[Engine]:
    """One migrated database with the ETFs; the tests leave no row in it."""
    engine = create_engine(make_database(portfolio_template))
    with engine.begin() as db:
        loose.add_etfs(db)
    yield engine
    engine.dispose()


@PATIENT
@given(dirty.any_rows())
def test_every_row_is_mapped_or_refused_for_a_known_reason_twice_the_same(row: Row) -> None:
    made = judge(source_of(row), row)

    assert isinstance(made, Mapped | Refused)
    assert not isinstance(made, Refused) or made.reason in REASONS
    assert judge(source_of(row), dict(row)) == made


@PATIENT
@given(dirty.any_rows())
def test_a_mapped_row_is_one_that_the_new_system_could_have_made(row: Row) -> None:
    made = judge(source_of(row), row)
    if isinstance(made, Refused):
        return
    model = model_of(source_of(row), made)
    values: Any = made.values
    status = Status(values["status"])
    checked(model, {name: values[name] for name in domain_columns(model)})

    assert (values["completed_at"] is not None) == status.is_ended
    assert (values["started_at"] is not None) == (status is Status.PROCESSING)
    assert 0 <= values["attempts"] <= values["max_attempts"]
    assert status.is_ended or values["attempts"] < values["max_attempts"]
    assert made.inferred <= values.keys()
    assert all(values[name] is not None for name in made.inferred)


@PATIENT
@given(dirty.any_rows())
def test_no_text_is_cut_or_changed(row: Row) -> None:
    made = judge(source_of(row), row)
    if isinstance(made, Mapped):
        kept = {name: row[name] for name in ("notes",) if name in row}
        if row.get("error") is not None and row["error"].strip(" \t\n\x0b\x0c\r"):
            kept["error_message"] = row["error"]

        assert {name: made.values[name] for name in kept} == kept


def store_and_read(db: Connection, source: str, made: Mapped) -> dict[str, Any]:
    table: Any = model_of(source, made).__table__
    stored = insert(table).values(**made.values).returning(table.c.id)
    row = db.execute(select(table).where(table.c.id == db.scalar(stored))).mappings().one()
    return {name: row[name] for name in made.values}


@settings(PATIENT, max_examples=60)
@given(rows=st.lists(dirty.any_rows(), min_size=1, max_size=20))
def test_what_a_twin_makes_of_a_row_stands_unchanged_in_the_new_table(
    database: Engine, rows: list[Row]
) -> None:
    with database.connect() as db:
        for row in rows:
            source = source_of(row)
            made = judge(source, row)
            if isinstance(made, Mapped):
                with db.begin_nested() as savepoint:
                    assert store_and_read(db, source, made) == made.values
                    savepoint.rollback()


@settings(PATIENT, max_examples=60)
@given(texts=st.lists(dirty.JSON_TEXTS, min_size=1, max_size=40))
def test_metadata_are_read_as_postgresql_reads_them(database: Engine, texts: list[str]) -> None:
    query = (
        "SELECT CASE WHEN pg_input_is_valid(text, 'jsonb') THEN text::jsonb::text END "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS texts (text, place) ORDER BY place"
    )
    with database.connect() as db:
        found = db.exec_driver_sql(query, (texts,)).scalars().all()
    for text, stored in zip(texts, found, strict=True):
        if text.count("[") + text.count("{") <= MOST_BRACKETS:  # what has more is not read at all
            assert (text, _read(text)) == (text, _known(stored))


@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@settings(PATIENT, max_examples=25)
@given(data=st.data())
def test_every_dirty_row_fits_the_tables_it_is_said_to_fit(database: Engine, strict: bool, data: Any) -> None:
    rows = data.draw(st.lists(dirty.any_rows(strict=strict), max_size=20))
    with database.connect() as db:
        if not strict:
            db.exec_driver_sql(loose.LOOSEN)
        for row in rows:
            if strict and row.get("task_metadata") is not None and _read(row["task_metadata"]) == REFUSED:
                continue
            with db.begin_nested() as savepoint:
                loose.add_rows(db, source_of(row), [row])
                savepoint.rollback()


def test_every_case_fits_the_loose_tables(database: Engine) -> None:
    with database.connect() as db:
        db.exec_driver_sql(loose.LOOSEN)
        for case in CASES:
            with db.begin_nested() as savepoint:
                loose.add_rows(db, case.source, [case.row])
                savepoint.rollback()


REFUSED = ("refused", None)


def _read(text: str) -> tuple[str, Any]:
    try:
        metadata = read_metadata(text)
    except Unmappable as error:
        return REFUSED if error.reason is Reason.METADATA_NOT_JSON else (error.reason, None)
    return (metadata.shape, dict(metadata.fields))


def _known(stored: str | None) -> tuple[str, Any]:
    if stored is None:
        return REFUSED
    value = json.loads(stored, parse_int=lambda digits: int(Decimal(digits)))  # int() has a limit
    if value is None:
        return ("absent", {})
    return ("object", value) if isinstance(value, dict) else ("scalar or array", {})
