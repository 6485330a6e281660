"""What RabbitMQ refuses: kombu leaves it as it is, and it must not be taken for a bug of the application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import pytest
from celery import Celery
from kombu import Connection, Queue
from sqlalchemy import Engine

from tasktrail import BrokerUnavailable, Settings, TrackedTask, Trail
from tasktrail.doctor import examine
from tests.rabbitmq import RabbitMQ, require_rabbitmq
from tests.rows import columns, count_rows
from tests.support import SCHEMA, JobTracking, JobTrackingService, OrderTracking, OrderTrackingService

DAY = date(2026, 11, 2)


class Shop:
    """An application whose jobs and orders go to queues of their own."""

    def __init__(self, database_url: str, broker_url: str) -> None:
        settings = Settings.load(database_url=database_url, broker_url=broker_url)
        self.trail = Trail(Celery("shop", set_as_current=False), settings, schema=SCHEMA)
        options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        self.trail.app.conf.update(
            broker_transport_options=options,
            task_routes={"shop.job": {"queue": "jobs"}, "shop.order": {"queue": "orders"}},
        )
        self.job: TrackedTask[JobTracking] = self.trail.task(JobTrackingService, name="shop.job")(
            lambda _: None
        )
        self.order: TrackedTask[OrderTracking] = self.trail.task(OrderTrackingService, name="shop.order")(
            lambda _: None
        )

    def close(self) -> None:
        self.trail.engines.dispose()
        self.trail.app.close()


OpenShop = Callable[[str], Shop]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    require_rabbitmq()
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture
def open_shop(database_url: str) -> Iterator[OpenShop]:
    made: list[Shop] = []

    def make(broker_url: str) -> Shop:
        made.append(Shop(database_url, broker_url))
        return made[-1]

    yield make
    for shop in made:
        shop.close()


@pytest.fixture
def jobs_are_there_otherwise(broker: RabbitMQ) -> Iterator[None]:
    """Somebody declared the queue of jobs with arguments of their own."""
    queue = Queue("jobs", durable=True, queue_arguments={"x-max-length": 7})
    with Connection(broker.url) as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        yield
        bound.delete()


@pytest.mark.parametrize(
    ("password", "vhost", "said"),
    [
        pytest.param("wrong", "//", "403", id="password"),
        pytest.param("guest", "/nowhere", "530", id="virtual host"),
    ],
)
def test_a_broker_that_lets_nobody_in_cannot_be_used_and_no_row_is_written(
    broker: RabbitMQ, engine: Engine, open_shop: OpenShop, password: str, vhost: str, said: str
) -> None:
    assert broker.url.endswith("//")
    shop = open_shop((broker.url.removesuffix("//") + vhost).replace(":guest@", f":{password}@"))

    with pytest.raises(BrokerUnavailable) as caught:
        shop.job.enqueue()
    findings = [finding for finding in examine(shop.trail) if finding.subject == "broker"]

    assert said in str(caught.value)
    assert "is TASKTRAIL_BROKER_URL right?" in str(caught.value)
    assert f":{password}@" not in str(caught.value)
    assert count_rows(engine) == 0
    assert [finding.message for finding in findings] == [str(caught.value)]


@pytest.mark.usefixtures("jobs_are_there_otherwise")
def test_a_message_that_is_refused_is_left_to_maintenance_and_others_go_out(
    broker: RabbitMQ, engine: Engine, open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop(broker.url)

    job = shop.job.enqueue()
    order = shop.order.enqueue(day=DAY, currency="EUR")

    assert columns(engine, job.id)["dispatched_at"] is None
    assert columns(engine, order.id, OrderTracking)["dispatched_at"] is not None
    assert "406" in caplog.text
    assert "wait for maintenance" in caplog.text


@pytest.mark.usefixtures("jobs_are_there_otherwise")
def test_maintenance_dispatches_other_domains_though_one_queue_refuses(
    broker: RabbitMQ, engine: Engine, open_shop: OpenShop
) -> None:
    shop = open_shop(broker.url)
    job = shop.job.enqueue()
    with shop.trail.engines.pooled() as db:
        db.exec_driver_sql("UPDATE tracking.job_tracking SET dispatched_at = NULL")
        order = shop.order.enqueue(day=DAY, currency="EUR")
        db.exec_driver_sql("UPDATE tracking.order_tracking SET dispatched_at = NULL")
        done = shop.trail.maintenance().tick(db)

    assert done.dispatched == 1
    assert columns(engine, job.id)["dispatched_at"] is None
    assert columns(engine, order.id, OrderTracking)["dispatched_at"] is not None
