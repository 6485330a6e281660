"""The servers and workers of a chaos run, each of which can be struck, and all of which end with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tasktrail.embedded import EmbeddedRedis
from tests.rabbitmq import RabbitMQ

ROOT: Final = Path(__file__).parents[2]
STOP_SECONDS: Final = 5.0
MARK: Final = "CHAOS_WORKER"


class Broker(ABC):
    """A broker that can be restarted in order or as after a crash.

    Attributes:
        can_be_emptied: whether it may lose everything, as Redis without persistence does.
    """

    can_be_emptied: bool

    @abstractmethod
    def start(self) -> str:
        """Start it and return its URL."""

    @abstractmethod
    def restart(self, *, crash: bool = False, forget: bool = False) -> None:
        """Stop it or kill it, and start it on the same address, with its data or without."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


class Redis(Broker):
    """Redis, with or without an append-only file."""

    can_be_emptied = True

    def __init__(self, folder: Path, *, persistent: bool) -> None:
        self._server = EmbeddedRedis(folder, persistent=persistent)

    def start(self) -> str:
        """Start it and return its URL."""
        return self._server.start()

    def restart(self, *, crash: bool = False, forget: bool = False) -> None:
        """Stop it or kill it, and start it on the same address, with its data or without."""
        self._server.stop("immediate" if crash else "fast")
        if forget:
            shutil.rmtree(self._server.data)
        self._server.start()

    def close(self) -> None:
        """End it."""
        self._server.stop("immediate")


class Rabbit(Broker):
    """RabbitMQ with durable queues and messages."""

    can_be_emptied = False

    def __init__(self, folder: Path) -> None:
        self._server = RabbitMQ(folder)

    def start(self) -> str:
        """Start it and return its URL."""
        return self._server.start()

    def restart(self, *, crash: bool = False, forget: bool = False) -> None:
        """Stop it or kill it, and start it on the same address, with its durable data."""
        assert not forget
        if crash:
            self._server.kill()
        else:
            self._server.stop()
        self._server.start()

    def close(self) -> None:
        """End it and its port mapper."""
        self._server.close()


@dataclass(eq=False)
class Worker:
    """One Celery worker: its main process leads a session, in which its children are too.

    Attributes:
        name: its host name for Celery; the worker that takes its place has another one.
        mark: what its processes have in their environment.
        process: the main process.
        log: the file it writes to.
        host: number of the host it runs on.
        struck: whether it was told or forced to end.
    """

    name: str
    mark: str
    process: subprocess.Popen[bytes]
    log: Path
    host: int = 0
    struck: bool = False

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return self.process.poll() is None

    def last_words(self) -> tuple[str, bool]:
        """Return why it ended, and whether it was Celery's own failing.

        Celery 5.7 ends a worker that loses Redis while it has messages (kombu fails to put them back on a
        connection that it has given up), one whose child is killed before its loop begins, and one whose
        child is killed in the middle of an answer. A supervisor starts another one, here as in production.
        """
        _, unrecoverable, end = self.log.read_text("utf-8", "replace").rpartition("Unrecoverable error: ")
        if not unrecoverable:
            return f"exit code {self.process.returncode}, see {self.log}", False
        # The error itself may quote an answer that was torn, with a traceback of ours in it: the frames tell.
        error, *frames = end.partition("\n[")[0].splitlines()
        return error, not any(frame.startswith('  File "') and "/tasktrail/" in frame for frame in frames)

    def children(self) -> list[psutil.Process]:
        """Return the pool's processes."""
        with suppress(psutil.NoSuchProcess):
            return sorted(psutil.Process(self.process.pid).children(), key=lambda child: child.pid)
        return []

    def family(self) -> Iterator[psutil.Process]:
        """Return every process of its session, also those whose parent is gone.

        The system may have given the worker's number to a stranger by now, so it must bear our mark as well.
        """
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid and process.environ().get(MARK) == self.mark:
                    yield process

    def kill(self, *, orphans: bool) -> None:
        """Kill the main process; its children go with it, or are left behind."""
        self.struck = True
        family = [] if orphans else list(self.family())
        self.process.kill()
        self.process.wait()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def terminate(self) -> None:
        """Ask it to finish its work and end."""
        self.struck = True
        self.process.terminate()


@dataclass
class Fleet:
    """So many workers; one that ended is replaced.

    Attributes:
        environment: what the workers' environment has besides ours.
        folder: of the logs.
        size: how many workers there are.
        concurrency: how many processes each pool has.
        hosts: what command lines begin with that run on a host; by default there is this one only.
        deserters: why workers ended that nobody had struck, with the failings of Celery.
        culprits: the same without those.
    """

    environment: Mapping[str, str]
    folder: Path
    size: int
    concurrency: int
    hosts: Sequence[Sequence[str]] = ((),)
    deserters: Counter[str] = field(default_factory=Counter)
    culprits: list[str] = field(default_factory=list)
    started: list[Worker] = field(default_factory=list)

    @property
    def workers(self) -> list[Worker]:
        """The workers that run."""
        return [worker for worker in self.started if worker.alive]

    def muster(self) -> None:
        """Start as many workers as are missing; one that was told to end counts no more."""
        for worker in self.started:
            if not worker.alive and not worker.struck:
                worker.struck = True
                reason, is_known = worker.last_words()
                self.deserters[reason] += 1
                self.culprits += [] if is_known else [reason]
        for _ in range(self.size - len(self._serving)):
            crews = [len(self.on(host)) for host in range(len(self.hosts))]
            self.started.append(self._start(len(self.started), crews.index(min(crews))))

    def on(self, host: int) -> list[str]:
        """Return the names of the workers that serve on a host."""
        return [worker.name for worker in self._serving if worker.host == host]

    @property
    def _serving(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.struck]

    def close(self) -> None:
        """End all workers and whatever they left behind."""
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.terminate()
        for worker in self.started:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End all workers and whatever they left behind, at once."""
        for worker in self.started:
            for process in worker.family():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            worker.process.wait()

    def _start(self, number: int, host: int) -> Worker:
        name, mark, prefetch = f"w{number}@chaos", f"{self.folder}/{number}", 1 + number % 4
        log = self.folder / f"w{number}.log"
        command = [
            *self.hosts[host],
            *(sys.executable, "-m", "celery", "--app", "tests.chaos.app", "worker", f"--hostname={name}"),
            *("--pool=prefork", f"--concurrency={self.concurrency}", f"--prefetch-multiplier={prefetch}"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            f"--loglevel={os.environ.get('CHAOS_LOG', 'WARNING')}",
        ]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **self.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Worker(name, mark, process, log, host)


def pause(process: psutil.Process) -> None:
    """Stop a process where it is."""
    process.send_signal(signal.SIGSTOP)


def resume(process: psutil.Process) -> None:
    """Let a stopped process go on, if it still is the one that was stopped."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)
