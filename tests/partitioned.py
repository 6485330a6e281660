"""Puts a partitioned table in the place of one in one piece, so that the same tests run on both."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from tasktrail import partitions
from tasktrail.guards import table_of
from tasktrail.partitioning import first_id
from tasktrail.schema import v5
from tests.support import SCHEMA, JobTracking


def partition_jobs(url: str) -> None:
    """Make the table of the jobs again, in a partition of yesterday, one of today, and the default one.

    The model does not say so, and needs not: without a natural key no statement differs.
    """
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.execute(sa.text(f"DROP TABLE {SCHEMA}.job_tracking"))
        v5.create_tracking_table(
            Operations(MigrationContext.configure(db)),
            "job_tracking",
            domain="job",
            schema=SCHEMA,
            partitioned=True,
            items=[sa.Column("payload", sa.String(100), server_default="", nullable=False)],
        )
        day = partitions.today(db)
        for first in (day - 1, day):
            partitions.attach(db, table_of(JobTracking), first_id(first), first_id(first + 1))
    engine.dispose()
