"""The registry of domains."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tasktrail import ConfigurationError, RetryPolicy, UnknownDomain
from tasktrail.registry import Domain, Registry
from tests.support import JobTracking, JobTrackingService, OrderTracking, OrderTrackingService

JOBS = Domain(name="job", model=JobTracking, service=JobTrackingService, task_name="shop.work")
ORDERS = Domain(name="order", model=OrderTracking, service=OrderTrackingService)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(ORDERS)
    registry.add(JOBS)
    return registry


def test_a_domain_is_found_by_its_name(registry: Registry) -> None:
    assert JOBS is registry.get("job")


def test_domains_come_in_the_order_in_which_they_were_added(registry: Registry) -> None:
    assert list(registry) == [ORDERS, JOBS]
    assert len(registry) == 2


@pytest.mark.parametrize(("name", "expected"), [("job", True), ("jobs", False), (None, False), (JOBS, False)])
def test_a_registry_knows_whether_it_has_a_name(registry: Registry, name: object, expected: bool) -> None:
    assert expected is (name in registry)


def test_an_unknown_name_is_refused_with_the_names_there_are(registry: Registry) -> None:
    with pytest.raises(UnknownDomain) as caught:
        registry.get("jobs")

    assert (caught.value.domain, caught.value.known) == ("jobs", ("job", "order"))
    assert str(caught.value) == "no domain is called 'jobs'; registered: job, order"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_table_has_one_owner(registry: Registry) -> None:
    other = Domain(name="job", model=JobTracking, service=JobTrackingService, task_name="shop.other")

    with pytest.raises(ConfigurationError, match=r"'job' is registered already, for the task shop\.work"):
        registry.add(other)

    assert list(registry) == [ORDERS, JOBS]


def test_two_registries_know_nothing_of_each_other(registry: Registry) -> None:
    assert list(Registry()) == []


def test_a_domain_is_frozen_and_has_the_policy_of_the_seed_api() -> None:
    with pytest.raises(FrozenInstanceError):
        JOBS.name = "other"  # type: ignore[misc]

    assert RetryPolicy() == JOBS.policy
    assert ORDERS.task_name is None
