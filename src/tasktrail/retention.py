"""How rows leave their table when they are old: row by row, or with their partition."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, Final

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, Row, delete, select, text
from sqlalchemy.exc import DBAPIError

from tasktrail import bookkeeping, sweeps
from tasktrail.engines import Engines
from tasktrail.guards import table_of
from tasktrail.keys import keys_of
from tasktrail.library import library
from tasktrail.partitioning import DAY, first_id
from tasktrail.partitions import (
    Partition,
    make_ahead,
    name_of,
    partitions_of,
    set_lock_timeout,
    today,
    uncovered,
)
from tasktrail.registry import Domain
from tasktrail.states import ACTIVE, ENDED

logger = logging.getLogger(__name__)

FORGOTTEN: Final = 5000
"""How many keys of rows that went with their partition one statement deletes."""


def prune_rows(engine: Engine, domain: Domain, seconds: float, *, batch: int, batches: int) -> int:
    """Delete rows that ended before their retention, in batches, each with what refers to them.

    Of a partitioned table these are rows whose partition is past its time and has to stay, as one of its rows
    is not finished or is awaited; and those of the default partition.

    Args:
        engine: the database.
        domain: the domain.
        seconds: the retention.
        batch: how many rows one transaction deletes.
        batches: how many transactions at most.

    Returns:
        How many rows were deleted.
    """
    pruned = 0
    prune = sweeps.prune_if_ended(domain.model, domain.schema)
    forget = sweeps.forget_prerequisites_of_absent(domain.model, domain.schema)
    for _ in range(batches):
        with engine.begin() as db:
            ids = db.execute(prune, {"_batch": batch, "_retention": seconds}).scalars().all()
            if ids:
                db.execute(forget, {"_ids": list(ids)})
                bookkeeping.note_pruned(db, domain, seconds)
        pruned += len(ids)
        if len(ids) < batch:
            break
    return pruned


class PartitionKeeper:
    """Makes the partitions of domains ahead, and drops those whose rows are past their retention."""

    def __init__(self, engines: Engines) -> None:
        """Remember the database.

        Args:
            engines: the process's database engines.
        """
        self._engines = engines
        self._tidied: set[str] = set()

    def keep(self, domain: Domain, seconds: float) -> tuple[int, bool]:
        """Do what is due for one domain that is partitioned.

        Args:
            domain: the domain.
            seconds: its retention.

        Returns:
            How many rows went with their partitions, and whether that is all that can go in this way. If not,
            because somebody keeps a lock, the rest is for the next round. A role that does not own the table
            can do nothing in this way.
        """
        dropped, is_all = 0, True
        try:
            with self._engines.maintenance.begin() as db:
                made = make_ahead(db, domain.model)
            if made:
                logger.info("maintenance: made the partitions %s", ", ".join(made))
            with self._engines.maintenance.begin() as db:
                expired = self._expired(db, domain, seconds)
            for partition in expired:
                dropped += drop_if_expired(self._engines.maintenance, domain, partition, seconds)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            logger.warning("maintenance: the partitions of %s: %s", domain.name, error.orig)
            is_all = not isinstance(error.orig, LockNotAvailable)
        if dropped or domain.name not in self._tidied:
            self._tidy(domain)
            self._tidied.add(domain.name)
        return dropped, is_all

    def _expired(self, db: Connection, domain: Domain, seconds: float) -> list[Partition]:
        age = f"floor((extract(epoch FROM now()) - :seconds) / {DAY})::bigint"
        edge: int = db.execute(text(f"SELECT {age}"), {"seconds": seconds}).scalar_one()
        return [one for one in partitions_of(db, domain.model) if one.end <= first_id(edge)]

    def _tidy(self, domain: Domain) -> None:
        """Forget what is left of rows that went with their partition: keys, and what they had waited for."""
        with self._engines.maintenance.begin() as db:
            gaps = uncovered(partitions_of(db, domain.model), 0, first_id(today(db)))
        for first, end in gaps:
            for forget in (forget_keys, forget_prerequisites):
                while True:
                    with self._engines.maintenance.begin() as db:
                        if not forget(db, domain, first, end):
                            break


def drop_if_expired(engine: Engine, domain: Domain, partition: Partition, seconds: float) -> int:
    """Drop a partition if all of its rows ended before the retention and nobody waits for one of them.

    All rows are looked at before the table is locked. Then, for an instant and with nobody else in the table,
    what can have changed since is looked up on indexes. It is one transaction: who is killed within it has
    dropped nothing. Keys and prerequisites of the rows go afterwards (``PartitionKeeper``); a key whose row
    is gone is free.

    Args:
        engine: the database; the role owns the table.
        domain: the domain.
        partition: the partition.
        seconds: the retention.

    Returns:
        How many rows went; 0 also when the partition stays.

    Raises:
        sqlalchemy.exc.DBAPIError: the lock could not be had in time; nothing is changed.
    """
    with engine.begin() as db:
        # Each statement has to see what was committed before it, whatever the database's default is.
        db.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        if _is_needed(db, domain, partition, seconds):
            return 0
        found = _look_at_all(db, partition, seconds)
        if found.kept:
            return 0
        if found.last is not None:  # before the lock on the table, in the order of those who roll up
            bookkeeping.note_pruned_until(db, domain, found.last + timedelta(microseconds=1))
        set_lock_timeout(db)
        db.execute(text(f"LOCK TABLE ONLY {name_of(table_of(domain.model))} IN ACCESS EXCLUSIVE MODE"))
        db.execute(text(f"LOCK TABLE {partition.name} IN ACCESS EXCLUSIVE MODE"))
        if _is_needed(db, domain, partition, seconds):
            db.rollback()
            return 0
        db.execute(text(f"DROP TABLE {partition.name}"))
    rows: int = found.rows
    logger.info("maintenance: dropped the partition %s with %d rows", partition.name, rows)
    return rows


def forget_keys(db: Connection, domain: Domain, first: int, end: int) -> int:
    """Delete a batch of the natural keys, in a range of ids, whose rows are gone; return how many."""
    keys = keys_of(domain.model)
    if keys is None:
        return 0
    absent = select(keys.c.id).where(keys.c.id >= first, keys.c.id < end, _is_absent(domain, keys.c.id))
    return db.execute(delete(keys).where(keys.c.id.in_(absent.limit(FORGOTTEN)))).rowcount


def forget_prerequisites(db: Connection, domain: Domain, first: int, end: int) -> int:
    """Delete a batch of the prerequisites of rows, in a range of ids, that are gone; return how many."""
    needs = library(domain.schema).prerequisites
    absent = select(needs.c.tracking_id).where(
        needs.c.domain == domain.name,
        needs.c.tracking_id >= first,
        needs.c.tracking_id < end,
        _is_absent(domain, needs.c.tracking_id),
    )
    ids = db.execute(absent.limit(FORGOTTEN)).scalars().all()
    if not ids:
        return 0
    return db.execute(
        sweeps.forget_prerequisites_of_absent(domain.model, domain.schema), {"_ids": list(ids)}
    ).rowcount


def _is_absent(domain: Domain, tracking_id: Any) -> Any:
    row = table_of(domain.model)
    return select(row.c.id).where(row.c.id == tracking_id).scalar_subquery().is_(None)


def _look_at_all(db: Connection, partition: Partition, seconds: float) -> Row[Any]:
    """Count the rows of a partition, and those that pruning would leave; tell when the last one ended."""
    ended = ", ".join(f"'{state}'" for state in sorted(ENDED))
    old = "now() - make_interval(secs => :seconds)"
    goes = f"status IN ({ended}) AND created_at < {old} AND completed_at < {old}"
    kept = f"count(*) FILTER (WHERE ({goes}) IS NOT TRUE)"
    last = "max(greatest(created_at, completed_at))"
    query = f"SELECT count(*) AS rows, {kept} AS kept, {last} AS last FROM {partition.name}"  # noqa: S608
    return db.execute(text(query), {"seconds": seconds}).one()


def _is_needed(db: Connection, domain: Domain, partition: Partition, seconds: float) -> bool:
    """Say whether a row of a partition is unfinished, too new or awaited; by indexes, in no time."""
    needs, migrations = library(domain.schema).prerequisites, library(domain.schema).migrations
    active = ", ".join(f"'{state}'" for state in sorted(ACTIVE))
    old = "now() - make_interval(secs => :seconds)"
    query = f"""
        SELECT EXISTS (SELECT FROM {partition.name} WHERE status IN ({active}))
            OR coalesce((SELECT max(created_at) FROM {partition.name}) >= {old}, false)
            OR coalesce((SELECT max(completed_at) FROM {partition.name}) >= {old}, false)
            OR EXISTS (SELECT FROM {name_of(needs)} WHERE needs_domain = :domain
                AND needs_id >= :first AND needs_id < :end AND met_at IS NULL)
            OR EXISTS (SELECT FROM {name_of(migrations)} WHERE is_holding AND :domain = ANY (domains))
    """  # noqa: S608  # names of the mapping
    parameters = {
        "seconds": seconds,
        "domain": domain.name,
        "first": partition.first,
        "end": partition.end,
    }
    return bool(db.execute(text(query), parameters).scalar_one())
