"""Which domains there are: domain -> model, service, task, policy; passed explicitly, no module globals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tasktrail.errors import ConfigurationError, UnknownDomain
from tasktrail.models import BaseTaskTracking
from tasktrail.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One kind of job.

    Attributes:
        name: the domain's name, as its model gives it.
        model: its tracking model.
        service: its service class.
        task_name: name of its Celery task; ``None`` for a domain without a tracked task.
        policy: how its failed attempts are repeated.
        retention: age at which ended rows are deleted; ``None`` leaves it to the settings.
        schema: PostgreSQL schema of the library's own tables; ``None`` for the search path.
    """

    name: str
    model: type[BaseTaskTracking]
    service: type[Any]
    task_name: str | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    retention: timedelta | None = None
    schema: str | None = None


class Registry:
    """The domains of one application."""

    def __init__(self) -> None:
        self._domains: dict[str, Domain] = {}

    def add(self, domain: Domain) -> None:
        """Register a domain.

        Args:
            domain: what to register.

        Raises:
            ConfigurationError: the name is taken; two tasks cannot own the rows of one table.
        """
        if domain.name in self._domains:
            raise ConfigurationError(
                f"the domain {domain.name!r} is registered already, "
                f"for the task {self._domains[domain.name].task_name}; a table has one owner"
            )
        self._domains[domain.name] = domain

    def get(self, name: str) -> Domain:
        """Return a domain by its name.

        Args:
            name: the domain's name.

        Raises:
            UnknownDomain: there is none of that name; the message lists those there are.
        """
        try:
            return self._domains[name]
        except KeyError:
            raise UnknownDomain(name, self._domains) from None

    def __iter__(self) -> Iterator[Domain]:
        return iter(self._domains.values())

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, name: object) -> bool:
        return name in self._domains
