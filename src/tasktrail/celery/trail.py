"""The composition object: one Celery application, one database, and the domains tracked in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

from celery import Celery
from celery.signals import worker_process_shutdown
from sqlalchemy import Connection

from tasktrail import schema as tasktrail_schema
from tasktrail.celery.completions import Completions
from tasktrail.celery.execution import Execution, WorkerParts
from tasktrail.celery.heartbeat import Heartbeats
from tasktrail.celery.loop import ProcessLoop
from tasktrail.celery.losses import LossRecorder
from tasktrail.celery.messages import Message
from tasktrail.celery.persistence import Persistence
from tasktrail.celery.publish import Publisher
from tasktrail.celery.run import Run
from tasktrail.celery.task import TrackedTask
from tasktrail.celery.tracing import UNTRACED, Tracer
from tasktrail.celery.worker import TrailStep
from tasktrail.chores import Chore
from tasktrail.engines import Engines
from tasktrail.errors import ConfigurationError, UnknownDomain
from tasktrail.maintenance import Maintenance
from tasktrail.models import BaseTaskTracking
from tasktrail.registry import Domain, Registry
from tasktrail.retry import RetryPolicy
from tasktrail.service import BaseTaskTrackingService
from tasktrail.settings import Settings

ModelT = TypeVar("ModelT", bound=BaseTaskTracking)
ApplicationCheck: TypeAlias = Callable[[Connection], Iterable[tuple[str, str]]]
Decorator: TypeAlias = Callable[[Callable[[Run[ModelT]], Any]], TrackedTask[ModelT]]

TASK_OPTIONS: Final = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "max_retries": None,
    "Request": "tasktrail.celery.request:TrackedRequest",
}
"""A message is acknowledged when its row is written; how often is retried, the row says."""

TAKEN_OPTIONS: Final = frozenset(
    {"Request", "acks_late", "reject_on_worker_lost", "max_retries", "autoretry_for", "retry_backoff", "bind"}
)
"""Celery options that would work against the row."""


class Trail:
    """Tracks the jobs of one Celery application in one PostgreSQL database.

    ::

        trail = Trail(Celery("shop"), Settings.load())


        @trail.task(ReportTrackingService, retry=RetryPolicy(base=30))
        def make_report(run: Run[ReportTracking]) -> None: ...


        make_report.enqueue(customer_id=7)

    Attributes:
        app: the Celery application.
        settings: the settings.
        schema: PostgreSQL schema of the library's own tables; ``None`` for the search path.
        legacy_tables: tables that tracking replaces.
        legacy_modules: modules that may name them.
        checks: the application's own checks for ``tasktrail doctor``.
        untracked: Celery tasks that are not tracked on purpose, with the reason.
        registry: the domains.
        engines: the database engines of this process.
        figures: those of the database that the figures of monitoring are read from: a replica, or the same.
        publisher: sends the messages of rows.
        losses: records what a worker's main process learns about its children.
        heartbeats: renews the leases of the rows that this process works on.
        completions: the rows of this process whose completion is under way.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        *,
        schema: str | None = None,
        legacy_tables: Sequence[str] = (),
        legacy_modules: Sequence[str] = (),
        checks: Sequence[ApplicationCheck] = (),
        tracer: Tracer = UNTRACED,
    ) -> None:
        """Put the parts together; nothing is connected.

        Args:
            app: the Celery application. If the settings name a broker, it becomes the application's.
            settings: must name a database; ``EmbeddedStack`` fills it in where none is given.
            schema: PostgreSQL schema of the library's own tables.
            legacy_tables: tables that tracking replaces; ``tasktrail doctor`` says while they are there.
            legacy_modules: modules and packages that may name those tables, such as those of the migrations;
                ``tasktrail doctor`` says where else they are named.
            checks: further checks for ``tasktrail doctor``; each yields a subject and what is wrong with it.
            tracer: is told when messages are sent and attempts are made; see ``tasktrail.otel``.

        Raises:
            ConfigurationError: the settings name no database.
        """
        if settings.database_url is None:
            raise ConfigurationError(
                "no database is configured: set TASKTRAIL_DATABASE_URL, or start the embedded stack first"
            )
        if settings.broker_url is not None:
            app.conf.update(broker_url=settings.broker_url.get_secret_value())
        self.app = app
        self.settings = settings
        self.schema = schema
        self.legacy_tables = tuple(legacy_tables)
        self.legacy_modules = tuple(legacy_modules)
        self.checks = tuple(checks)
        self.untracked: dict[str, str] = {}
        self.registry = Registry()
        self.engines = Engines(
            settings.database_url.get_secret_value(),
            connect_timeout=settings.connect_timeout,
            prepared_statements=settings.prepared_statements,
            silence=settings.lease,
        )
        self.figures = self.engines
        if settings.replica_url is not None:
            self.figures = Engines(
                settings.replica_url.get_secret_value(),
                connect_timeout=settings.connect_timeout,
                prepared_statements=settings.prepared_statements,
                setting="TASKTRAIL_REPLICA_URL",
            )
        self.publisher = Publisher(app, self.engines, tracer)
        self.losses = LossRecorder(
            self.engines,
            self.publisher,
            eta_horizon=settings.eta_horizon,
            patience=settings.database_patience,
        )
        self.heartbeats = Heartbeats(self.engines, settings.heartbeat_interval)
        persistence = Persistence(self.engines, schema, settings.database_patience)
        self.completions = Completions(self.engines, self.heartbeats, persistence)
        self._tasks: dict[str, TrackedTask[Any]] = {}
        self._parts = WorkerParts(
            registry=self.registry,
            engines=self.engines,
            publisher=self.publisher,
            heartbeats=self.heartbeats,
            loop=ProcessLoop(),
            schema=schema,
            persistence=persistence,
            completions=self.completions,
            eta_horizon=settings.eta_horizon,
            tracer=tracer,
        )
        self._install()

    def dispose(self) -> None:
        """Close this thread's connections and the pools of the sync engines."""
        self.engines.dispose()
        self.figures.dispose()

    def task(
        self,
        service: type[BaseTaskTrackingService[ModelT]],
        *,
        retry: RetryPolicy | None = None,
        name: str | None = None,
        retention: timedelta | None = None,
        **options: Any,
    ) -> Decorator[ModelT]:
        """Make a function, ``def`` or ``async def``, the tracked task of a domain.

        Args:
            service: the domain's service; its model is where the rows are.
            retry: how failed attempts are repeated.
            name: name of the Celery task; by default module and function.
            retention: age at which the domain's ended rows are deleted; by default what the settings say.
            **options: further options of the Celery task, e.g. ``queue`` or ``soft_time_limit``.

        Returns:
            A decorator; what it returns has ``enqueue``, ``aenqueue`` and ``enqueue_many``.

        Raises:
            ConfigurationError: the service has no model, the domain has a task already, or an option would
                work against the row.
        """
        model: type[ModelT] | None = getattr(service, "model", None)
        if model is None:
            raise ConfigurationError(f"{service.__name__} has no model: set it on the class")
        refused = sorted(TAKEN_OPTIONS & options.keys())
        if refused:
            raise ConfigurationError(
                f"{', '.join(refused)}: tasktrail decides this; use retry=RetryPolicy(...)"
            )

        def decorate(body: Callable[[Run[ModelT]], Any]) -> TrackedTask[ModelT]:
            task_name = name or f"{body.__module__}.{body.__name__}"
            domain = Domain(
                name=model.__tracking__.domain,
                model=model,
                service=service,
                task_name=task_name,
                policy=retry or RetryPolicy(),
                retention=retention,
                schema=self.schema,
            )
            self.registry.add(domain)
            execution = Execution(domain, body, self._parts)

            def perform(task: Any, tracking_id: int) -> Any:
                return execution(task, tracking_id)

            perform.__doc__, perform.__module__ = body.__doc__, body.__module__
            make_task: Any = self.app.task
            # Shared, it would turn up in every other Celery application of the process, with this database.
            celery_task = make_task(name=task_name, bind=True, shared=False, **{**TASK_OPTIONS, **options})(
                perform
            )
            celery_task.tracked = (domain, self.losses)
            task: TrackedTask[ModelT] = TrackedTask(domain, celery_task, self._parts, self.registry)
            self._tasks[domain.name] = task
            return task

        return decorate

    def leave_untracked(self, name: str, *, reason: str) -> None:
        """Declare that a Celery task is not tracked on purpose.

        Args:
            name: name of the Celery task.
            reason: why; shown by ``tasktrail doctor``.
        """
        self.untracked[name] = reason

    def task_of(self, domain: str) -> TrackedTask[Any]:
        """Return the tracked task of a domain.

        Args:
            domain: the domain's name.

        Raises:
            UnknownDomain: there is none of that name, or it has no task.
        """
        try:
            return self._tasks[domain]
        except KeyError:
            raise UnknownDomain(domain, self._tasks) from None

    def maintenance(self, chores: Sequence[Chore] = ()) -> Maintenance:
        """Return the maintenance of all domains; workers run it on a thread, ``tasktrail maintain`` alone.

        Args:
            chores: what the leader does besides.
        """
        return Maintenance(
            self.registry,
            self.engines,
            self._transmit,
            self.settings,
            schema=self.schema,
            chores=chores,
        )

    def _transmit(self, domain: Domain, rows: Sequence[tuple[int, str | None]]) -> bool:
        task = self._tasks[domain.name].celery_task
        return self.publisher.transmit(
            [Message(domain.model, task, tracking_id, celery_id) for tracking_id, celery_id in rows]
        )

    def _install(self) -> None:
        app: Any = self.app
        app.tasktrail = self
        app.steps["worker"].add(TrailStep)
        worker_process_shutdown.connect(self._on_process_shutdown, weak=False)
        if not app.conf.worker_soft_shutdown_timeout:
            app.conf.worker_soft_shutdown_timeout = self.settings.shutdown_grace

    def _on_process_shutdown(self, **_: Any) -> None:
        """Called in a child of the prefork pool that ends; it does not run what ``atexit`` knows."""
        self.completions.close()

    def check(self) -> None:
        """Make sure the database answers and fits this release, and the broker answers.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
            SchemaOutdated: migrations are missing.
            BrokerUnavailable: the broker cannot be reached.
        """
        with self.engines.pooled() as db:
            tasktrail_schema.require(db, self.registry, schema=self.schema)
        self.publisher.require_broker()
