"""The plan of a chaos run: which blow falls when, and which jobs are ordered. Pure, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final

from tests.chaos.domains import MODELS, Kind


class Blow(StrEnum):
    """What can happen to the system."""

    KILL_CHILD = "kill a pool process"
    KILL_WORKER = "kill a worker with its pool"
    ORPHAN_POOL = "kill a worker, leave its pool"
    PAUSE_CHILD = "pause a pool process past its lease"
    PAUSE_WORKER = "pause a worker past the lease"
    STOP_BROKER = "restart the broker"
    CRASH_BROKER = "crash the broker"
    EMPTY_BROKER = "restart the broker empty"
    RESTART_POSTGRES = "restart PostgreSQL fast"
    CRASH_POSTGRES = "restart PostgreSQL immediately"
    DOUBLE_MESSAGES = "deliver messages twice and late"
    CANCEL_ROWS = "cancel rows"
    TERMINATE_WORKER = "shut a worker down"


PER_MINUTE: Final = {
    Blow.KILL_CHILD: 10,
    Blow.KILL_WORKER: 1.5,
    Blow.ORPHAN_POOL: 1.5,
    Blow.PAUSE_CHILD: 8,
    Blow.PAUSE_WORKER: 1.5,
    Blow.STOP_BROKER: 0.5,
    Blow.CRASH_BROKER: 0.5,
    Blow.EMPTY_BROKER: 0.5,
    Blow.RESTART_POSTGRES: 1,
    Blow.CRASH_POSTGRES: 1.5,
    Blow.DOUBLE_MESSAGES: 10,
    Blow.CANCEL_ROWS: 8,
    Blow.TERMINATE_WORKER: 1,
}
"""How often each blow falls."""

SHORT: Final = 30.0
"""A storm shorter than this, in seconds, has room for one blow against the broker."""
AGAINST_BROKER: Final = (Blow.STOP_BROKER, Blow.CRASH_BROKER, Blow.EMPTY_BROKER)

WEIGHTS: Final = {
    Kind.QUICK: 70,
    Kind.SLOW: 8,
    Kind.PROGRESS: 3,
    Kind.FAILS_FIRST: 9,
    Kind.ALWAYS_FAILS: 2,
    Kind.GIVES_UP: 2,
    Kind.STUCK: 0.5,
    Kind.PLAIN: 5,
}


@dataclass(frozen=True, slots=True, order=True)
class Strike:
    """One blow.

    Attributes:
        at: when it falls, in seconds from the start.
        blow: what it is.
        pick: chooses the victim among those there are then, from 0 to below 1.
        seconds: how long it lasts, where that matters.
    """

    at: float
    blow: Blow
    pick: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Order:
    """Some jobs of one domain that are enqueued in one way.

    Attributes:
        at: when, in seconds from the start.
        domain: which domain.
        how: in which way.
        jobs: the fields of each row.
    """

    at: float
    domain: str
    how: str
    jobs: tuple[dict[str, Any], ...]


WAYS: Final = {
    "enqueue": (4, 1),
    "aenqueue": (1, 1),
    "enqueue_many": (4, 25),
    "session": (3, 4),
    "asession": (1, 3),
    "savepoint": (1, 3),
    "rolled back": (1, 3),
    "after": (1, 2),
}
"""The ways to enqueue: how often each is taken, and how many jobs it has at most."""


def strikes(
    random: Random, seconds: float, lease: float, *, can_be_emptied: bool, each: bool = True
) -> list[Strike]:
    """Plan the blows of a storm.

    Args:
        random: the dice.
        seconds: how long the storm lasts.
        lease: how long a pause must be at least.
        can_be_emptied: whether the broker may lose everything.
        each: whether each blow falls once at least, also in a short storm.
    """
    planned = []
    against_broker = AGAINST_BROKER if can_be_emptied else AGAINST_BROKER[:2]
    if seconds < SHORT:
        against_broker = (random.choice(against_broker),)
    for blow, rate in PER_MINUTE.items():
        if blow in AGAINST_BROKER and blow not in against_broker:
            continue
        number = max(each, int(rate * seconds / 60 + random.random()))
        for _ in range(number):
            at = random.uniform(0.05, 0.95) * seconds
            planned.append(Strike(at, blow, random.random(), random.uniform(1.3, 2.0) * lease))
    return sorted(planned)


def orders(random: Random, jobs: int, seconds: float) -> Iterator[Order]:
    """Plan the orders of a storm, until so many jobs with a side effect are among them.

    Args:
        random: the dice.
        jobs: how many rows that leave a side effect are wanted.
        seconds: over which time the orders are spread.
    """
    ways, weights = list(WAYS), [weight for weight, _ in WAYS.values()]
    total = 0
    while total < jobs:
        (how,) = random.choices(ways, weights)
        most = WAYS[how][1]
        count = most if how == "after" else random.randint(1, most)
        domain = random.choice(MODELS).__tracking__.domain
        asked = tuple(_job(random, f"{how} {total} {number}") for number in range(count))
        yield Order(seconds * total / jobs, domain, how, asked)
        if how != "rolled back":
            total += sum(job["kind"] != Kind.PLAIN for job in asked)


def _job(random: Random, key: str) -> dict[str, Any]:
    (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
    long = kind in {Kind.SLOW, Kind.PROGRESS}
    return {
        "key": f"{key} {random.getrandbits(32):08x}",
        "kind": kind.value,
        "failures": random.randint(1, 3) if kind is Kind.FAILS_FIRST else 0,
        "seconds": round(random.uniform(0.1, 2.0), 1) if long else 0.0,
        "early": random.random() < 0.5,
        "max_attempts": 3 if kind is Kind.ALWAYS_FAILS else 12,
    }
