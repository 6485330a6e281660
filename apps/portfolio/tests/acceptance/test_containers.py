"""What the containers run, without an engine: the image's build and its commands, as their user.

The build stage of the Dockerfile is done line by line in a folder of its own, and the commands of
compose.yaml are started from it by a user who can write nowhere but in an empty folder.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tasktrail.embedded import EmbeddedPostgres
from tests.rabbitmq import RabbitMQ, require_rabbitmq
from tests.waiting import until

ROOT: Final = Path(__file__).parents[4]
DOCKERFILE: Final = ROOT / "deploy/Dockerfile"
COMPOSE: Final = ROOT / "deploy/compose.yaml"
SERVICES: Final[dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
PYTHON: Final = Path("/usr/bin/python3.11")
"""That of the system, which any user may run; the one of this environment may lie in somebody's home."""


def instructions(stage: int) -> list[tuple[str, str]]:
    """Return the instructions of a stage of the Dockerfile, each with what follows it."""
    lines = DOCKERFILE.read_text("utf-8").replace("\\\n", " ").splitlines()
    parts = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    starts = [at for at, (word, _) in enumerate(parts) if word == "FROM"]
    end = starts[stage + 1] if stage + 1 < len(starts) else len(parts)
    return [(word, rest) for word, rest in parts[starts[stage] : end]]


def variables(stage: int) -> dict[str, str]:
    """Return what a stage sets in the environment."""
    words = [word for name, rest in instructions(stage) if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


@dataclass(frozen=True)
class Image:
    """The virtual environment that the image has, and who uses it.

    Attributes:
        environment: the virtual environment.
        user: id of the user, who is his own group.
        home: the one folder that he may write to, empty at first.
        settings: what compose.yaml gives the containers, for the servers of this test.
    """

    environment: Path
    user: int
    home: Path
    settings: dict[str, str]

    def start(self, command: list[str], **more: str) -> subprocess.Popen[str]:
        """Start the command of a container."""
        own = {name: value for name, value in variables(1).items() if name != "PATH"}
        path = f"{self.environment / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return subprocess.Popen(
            [word.replace("=/tmp/", f"={self.home}/") for word in command],
            env={**own, **self.settings, **more, "PATH": path, "HOME": "/nonexistent"},
            cwd=self.home,
            user=self.user,
            group=self.user,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: list[str]) -> str:
        """Run the command of a container to its end, which must be a good one; return what it says."""
        process = self.start(command)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    @contextmanager
    def running(self, service: str, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        """Keep a container's command running, and stop it as the engine does, within its grace period."""
        given = SERVICES[service].get("environment", {})
        process = self.start(command, **{name: value for name, value in given.items() if "${" not in value})
        try:
            yield process
            assert process.poll() is None, process.communicate()[0]
            process.send_signal(signal.SIGTERM)
            grace = float(SERVICES[service].get("stop_grace_period", "10s").removesuffix("s"))
            said, _ = process.communicate(timeout=grace)
            assert process.returncode in {0, -signal.SIGTERM}, said
            assert "Traceback" not in said, said
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def require_another_user() -> None:
    """Skip the test where it may not become another user, or another user could not run Python."""
    if os.geteuid() != 0:
        pytest.skip("only root may run commands as the containers' user")
    if not PYTHON.exists():
        pytest.skip(f"there is no {PYTHON}, which the containers' user could run")


def build(folder: Path) -> Path:
    """Do what the first stage of the Dockerfile does, and return the virtual environment."""
    uv = shutil.which("uv") or str(ROOT / ".tools/bin/uv")
    own = {"UV_PYTHON": str(PYTHON), "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    unset = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    for word, rest in instructions(0):
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                found, place = ROOT / source, folder / target
                if found.is_dir():
                    shutil.copytree(found, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(found, place)
        elif word == "RUN" and rest.startswith("uv "):
            command = [uv, *shlex.split(rest)[1:]]
            environment = {**inherited, **own, **variables(0)}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    return folder / ".venv"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built, with the servers that compose.yaml starts beside it."""
    require_another_user()
    require_rabbitmq()
    (user,) = (rest for word, rest in instructions(1) if word == "USER")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tasktrail-image-")))
        folder.chmod(0o755)
        home = folder / "tmp"
        home.mkdir()
        os.chown(home, int(user.partition(":")[0]), int(user.partition(":")[2]))
        environment = build(folder / "srv")
        server = EmbeddedPostgres(folder / "postgres", options={"fsync": "off"})
        stack.callback(server.stop, "immediate")
        database_url = server.start()
        server.socket.parent.chmod(0o755)
        server.socket.chmod(0o777)
        broker = stack.enter_context(RabbitMQ(folder / "rabbitmq"))
        settings = {"TASKTRAIL_DATABASE_URL": database_url, "TASKTRAIL_BROKER_URL": broker.url}
        yield Image(environment, int(user.partition(":")[0]), home, settings)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_the_commands_of_the_containers_do_their_work_as_a_user_who_can_write_nowhere_else(
    image: Image,
) -> None:
    port = free_port()
    serve = json.loads(dict(instructions(1))["CMD"])
    serve[serve.index("0.0.0.0")] = "127.0.0.1"
    serve[serve.index("8000")] = str(port)
    (check,) = (rest.partition("CMD ")[2] for word, rest in instructions(1) if word == "HEALTHCHECK")
    healthy = [word.replace("8000", str(port)) for word in json.loads(check)]

    said = image.run(SERVICES["upgrade"]["command"])
    with ExitStack() as running:
        running.enter_context(image.running("web", serve))
        for service in ("worker", "maintenance", "beat"):
            running.enter_context(image.running(service, SERVICES[service]["command"]))
        until(lambda: is_well(image, healthy), seconds=60)
        updated = image.run(["portfolio", "rates", "update", "2026-10-30", "--wait"])
        listed = json.loads(image.run(["tasktrail", "list", "exchange_rate", "--json"]))
        token = image.run(["tasktrail", "tokens", "create", "prometheus"]).strip()

    (row,) = listed["rows"]
    assert said == "the database is up to date\n"
    assert "COMPLETED" in updated
    assert (row["status"], row["attempts"]) == ("COMPLETED", 0)
    assert token.startswith("tt_")
    written = [path.name for path in image.home.rglob("*")]
    assert {name.partition(".")[0] for name in written} <= {"beat"}


def is_well(image: Image, command: list[str]) -> bool:
    process = image.start(command)
    process.communicate(timeout=60)
    return process.returncode == 0


def test_the_image_has_what_the_application_needs_and_nothing_of_the_development(image: Image) -> None:
    installed = image.environment.glob("lib/*/site-packages/*.dist-info")
    found = {path.name.partition("-")[0].lower() for path in installed}

    assert {"portfolio", "tasktrail", "celery", "fastapi", "psycopg"} <= found
    assert not {"pytest", "mypy", "ruff", "sphinx"} & found
