"""Figures are read from a replica where one is named, and rows from where they were written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from celery import Celery
from sqlalchemy import Engine, NullPool, create_engine, text

from tasktrail import Settings, Trail, doctor
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.settings import sqlalchemy_url
from tasktrail.web import create_app
from tests.support import SCHEMA, JobTrackingService, create_tables
from tests.waiting import until
from tests.web.conftest import Browser


@dataclass
class Pair:
    """A primary and its replica."""

    primary: EmbeddedPostgres
    replica: EmbeddedPostgres
    engine: Engine

    def on_replica(self, statement: str) -> Any:
        engine = create_engine(sqlalchemy_url(self.replica.url), poolclass=NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            return db.execute(text(statement)).scalar()

    def caught_up(self) -> bool:
        with self.engine.connect() as db:
            written = db.execute(text("SELECT pg_current_wal_lsn()::text")).scalar_one()
        return bool(self.on_replica(f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with TemporaryDirectory(prefix="tasktrail-replica-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        primary = EmbeddedPostgres(folder / "primary", options={"fsync": "off"})
        primary.start()
        engine = create_engine(sqlalchemy_url(primary.url), poolclass=NullPool)
        replica = copy_of(primary, folder / "replica")
        try:
            create_tables(engine)
            replica.start()
            yield Pair(primary, replica, engine)
        finally:
            engine.dispose()
            replica.stop("immediate")
            primary.stop("immediate")


def copy_of(primary: EmbeddedPostgres, folder: Path) -> EmbeddedPostgres:
    replica = EmbeddedPostgres(folder, options={"fsync": "off"})
    folder.mkdir()
    command = [str(primary._programs / "pg_basebackup"), "--write-recovery-conf", "--checkpoint=fast"]
    subprocess.run(
        [*command, f"--pgdata={replica.data}", f"--dbname={primary.url}"], check=True, capture_output=True
    )
    owner = primary.data.stat()
    for path in (replica.data, *replica.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    return replica


@pytest.fixture
def trail(pair: Pair) -> Iterator[Trail]:
    trail = trail_on(pair.primary.url, pair.replica.url)
    yield trail
    trail.dispose()


def trail_on(database_url: str, replica_url: str) -> Trail:
    settings = Settings.load(database_url=database_url, replica_url=replica_url)
    trail = Trail(Celery("shop", broker="memory://"), settings, schema=SCHEMA)
    trail.task(JobTrackingService, name="job")(lambda run: None)
    trail.leave_untracked("celery.ping", reason="of the tests")
    return trail


@pytest.fixture
def browse(trail: Trail, portal: BlockingPortal) -> Iterator[Browser]:
    app = create_app(trail, is_open=True)
    yield Browser(portal, app)
    app.state.conductor.close()


def pending(browse: Browser) -> int:
    (domain,) = browse("GET", "/api/statistics").json()["domains"]
    return int(domain["counts"]["pending"])


def listed(browse: Browser) -> int:
    return len(browse("GET", "/api/domains/job/jobs").json()["jobs"])


def test_figures_come_from_the_replica_and_rows_from_the_primary(
    pair: Pair, trail: Trail, browse: Browser
) -> None:
    until(pair.caught_up)
    before = pending(browse)
    pair.on_replica("SELECT pg_wal_replay_pause()")
    try:
        with pair.engine.begin() as db:
            db.execute(text(f"INSERT INTO {SCHEMA}.job_tracking (payload) VALUES ('new')"))

        assert pending(browse) == before
        assert listed(browse) == before + 1
        assert b"tasktrail_jobs" in browse("GET", "/metrics").content
    finally:
        pair.on_replica("SELECT pg_wal_replay_resume()")
    until(lambda: pending(browse) == before + 1)


def test_the_pages_of_figures_can_be_read_there(pair: Pair, browse: Browser) -> None:
    until(pair.caught_up)
    for page in ("/", "/failures", "/workers", "/jobs/job"):
        assert browse("GET", page, headers={"Accept": "text/html"}).status_code == 200, page


def test_a_replica_that_is_away_takes_the_figures_and_nothing_else(
    pair: Pair, trail: Trail, browse: Browser
) -> None:
    pair.replica.stop("fast")
    try:
        answer = browse("GET", "/api/statistics")
        assert answer.status_code == 503
        assert "cannot be reached" in answer.json()["detail"]
        assert browse("GET", "/api/domains/job/jobs").status_code == 200
        (found,) = of_replica(trail)
        assert "No figures are shown meanwhile" in found
    finally:
        pair.replica.start()
    until(pair.caught_up)
    assert of_replica(trail) == []


def test_doctor_says_when_what_is_named_is_no_replica_or_lags_far_behind(
    pair: Pair, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistaken = trail_on(pair.primary.url, pair.primary.url)
    (found,) = of_replica(mistaken)
    assert "follows no other" in found
    mistaken.dispose()

    monkeypatch.setattr(doctor, "MOST_BEHIND", -1.0)
    (found,) = of_replica(trail)
    assert "s behind" in found


def of_replica(trail: Trail) -> list[str]:
    with trail.engines.pooled() as db:
        return [finding.message for finding in doctor.replica(trail, db)]
