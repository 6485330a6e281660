"""The table of transitions, and the groups of states derived from it."""

from __future__ import annotations

from itertools import product

import pytest

from tasktrail import BaseTaskTracking
from tasktrail.states import ACTIVE, ENDED, FINAL, REVIVABLE, TRANSITIONS, Status, sources, targets

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = Status

ALLOWED = {
    PENDING: {PROCESSING, CANCELLED},
    PROCESSING: {PENDING, COMPLETED, FAILED, CANCELLED},
    COMPLETED: set(),
    FAILED: {PENDING},
    CANCELLED: {PENDING},
}
"""The transitions as the plan words them (DESIGN section 4), written down a second time."""


def test_the_five_states_are_stored_as_their_names() -> None:
    names = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"]

    assert names == [str(status) for status in Status]
    assert names == [status.name for status in Status]


def test_every_name_fits_the_status_column() -> None:
    width = BaseTaskTracking.status.column.type.length

    assert all(len(status) <= width for status in Status)


@pytest.mark.parametrize(("source", "target"), list(product(Status, Status)))
def test_a_row_moves_where_the_plan_says_and_nowhere_else(source: Status, target: Status) -> None:
    assert (target in ALLOWED[source]) == ((source, target) in TRANSITIONS)


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_every_transition_has_a_reason(transition: tuple[Status, Status]) -> None:
    reason = TRANSITIONS[transition]

    assert reason == reason.strip() != ""


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[COMPLETED, PENDING] = "it was wrong"  # type: ignore[index]


@pytest.mark.parametrize("status", Status)
def test_targets_and_sources_are_the_two_directions_of_the_table(status: Status) -> None:
    assert ALLOWED[status] == targets(status)
    assert {source for source in Status if status in ALLOWED[source]} == sources(status)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        pytest.param(ACTIVE, {PENDING, PROCESSING}, id="active"),
        pytest.param(ENDED, {COMPLETED, FAILED, CANCELLED}, id="ended"),
        pytest.param(REVIVABLE, {FAILED, CANCELLED}, id="revivable"),
        pytest.param(FINAL, {COMPLETED}, id="final"),
    ],
)
def test_the_derived_groups_hold_the_states_that_the_plan_names(
    group: frozenset[Status], expected: set[Status]
) -> None:
    assert expected == group


@pytest.mark.parametrize("status", Status)
def test_a_state_knows_whether_it_has_ended(status: Status) -> None:
    assert (status in ENDED) == status.is_ended


def test_only_a_claim_leads_to_processing() -> None:
    assert {PENDING} == sources(PROCESSING)


def test_every_state_can_be_reached_from_pending() -> None:
    reached: set[Status] = set()
    frontier = {PENDING}
    while frontier:
        reached |= frontier
        frontier = {target for source in frontier for target in targets(source)} - reached

    assert set(Status) == reached
