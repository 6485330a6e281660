"""The settings: what the environment says, or one line that names the variable at fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasktrail import ConfigurationError, Settings
from tasktrail.settings import ENVIRONMENT_PREFIX, sqlalchemy_url


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)


def test_an_empty_environment_means_the_embedded_servers() -> None:
    settings = Settings.load()

    assert (settings.database_url, settings.broker_url) == (None, None)
    assert (Path(".tasktrail"), 900.0, 5) == (settings.home, settings.eta_horizon, settings.connect_timeout)


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "TASKTRAIL_DATABASE_URL": "postgresql://shop@db.example/shop",
        "TASKTRAIL_BROKER_URL": "amqp://shop@mq.example//",
        "TASKTRAIL_HOME": "/var/lib/shop",
        "TASKTRAIL_ETA_HORIZON": "60.5",
        "TASKTRAIL_CONNECT_TIMEOUT": "2",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = Settings.load()

    assert settings.database_url.get_secret_value() == "postgresql://shop@db.example/shop"
    assert settings.broker_url.get_secret_value() == "amqp://shop@mq.example//"
    assert (Path("/var/lib/shop"), 60.5, 2) == (
        settings.home,
        settings.eta_horizon,
        settings.connect_timeout,
    )


@pytest.mark.parametrize("name", ["DATABASE_URL", "BROKER_URL", "HOME", "ETA_HORIZON", "CONNECT_TIMEOUT"])
def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name}", "")

    assert Settings() == Settings.load()
    assert Settings.model_fields[name.lower()].default == getattr(Settings.load(), name.lower())


def test_an_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_CONNECT_TIMEOUT", "2")

    assert Settings.load(connect_timeout=3).connect_timeout == 3


def test_variables_of_other_tools_with_our_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_DASHBOARD_PORT", "80")

    assert Settings.load().connect_timeout == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgresql"),
        ("DATABASE_URL", "mysql://shop:secret@db.example/shop"),
        ("DATABASE_URL", "sqlite:///shop.db"),
        ("DATABASE_URL", "postgresql://shop:secret@db.example:port/shop"),
        ("BROKER_URL", "nonsense"),
        ("BROKER_URL", "kafka://shop:secret@mq.example"),
        ("BROKER_URL", "memory://"),
        ("BROKER_URL", "shop:secret@mq.example/0"),
        ("BROKER_URL", "redis://:secret@mq.example:port/0"),
        ("BROKER_URL", "redis://:secret@mq.example:99999999/0"),
        ("BROKER_URL", "redis://:secret@mq.example/first"),
        ("BROKER_URL", "redis+socket://"),
        ("BROKER_URL", "amqp://shop:secret@[mq.example//"),
        ("BROKER_URL", "amqp://shop:secret@mq.example//;nonsense"),
        ("ETA_HORIZON", "15 min"),
        ("CONNECT_TIMEOUT", "1.5"),
    ],
)
def test_a_bad_value_gives_one_line_that_names_the_variable_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name}", value)

    with pytest.raises(ConfigurationError) as caught:
        Settings.load()

    message = str(caught.value)
    assert message.startswith(f"TASKTRAIL_{name} ")
    assert "\n" not in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "value",
    [
        "redis://",
        "redis://mq.example",
        "rediss://:p%40ss@mq.example:6380/15?ssl_cert_reqs=required",
        "redis+socket:///run/redis.sock?virtual_host=3",
        "sentinel://a.example:26379;sentinel://b.example:26379",
        "amqp://",
        "amqps://shop:secret@mq.example:5671/orders",
        "pyamqp://shop@[::1]//",
        "amqp://a.example//;amqp://b.example//",
    ],
)
def test_a_broker_of_celery_is_taken_as_it_is_written(value: str) -> None:
    assert Settings.load(broker_url=value).broker_url.get_secret_value() == value


NUMBERS = [name for name, field in Settings.model_fields.items() if isinstance(field.default, int | float)]
SWITCHES = [name for name in NUMBERS if isinstance(Settings.model_fields[name].default, bool)]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1,5"])
@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in SWITCHES])
def test_no_number_may_be_zero_negative_endless_or_unreadable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name.upper()}", value)

    with pytest.raises(ConfigurationError, match=f"^TASKTRAIL_{name.upper()} .+$"):
        Settings.load()


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("0", False), ("off", False), ("yes", True)])
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_on_or_off(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool
) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name.upper()}", value)

    assert expected is getattr(Settings.load(), name)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_nothing_in_between(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name.upper()}", "perhaps")

    with pytest.raises(ConfigurationError, match=f"^TASKTRAIL_{name.upper()} .+$"):
        Settings.load()


def test_a_lease_that_one_late_heartbeat_would_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_LEASE", "19.9")

    with pytest.raises(ConfigurationError, match=r"^TASKTRAIL_LEASE is 19\.9 s, but must be at least two"):
        Settings.load()

    assert Settings.load(lease=20).lease == 20


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert f"\n        {name}: " in (Settings.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "DATABASE_URL",
            "nonsense",
            "is not a database URL; write postgresql://user@host:5432/name",
        ),
        ("DATABASE_URL", "mysql://db.example", "names 'mysql'; tasktrail works on postgresql:// only"),
        (
            "DATABASE_URL",
            "postgresql://db.example:port/shop",
            "is not a database URL; write postgresql://user@host:5432/name",
        ),
        (
            "BROKER_URL",
            "kafka://x",
            "names the transport 'kafka'; write redis://host:6379/0 or amqp://user@host//",
        ),
        ("ETA_HORIZON", "-1", "is '-1': input should be greater than 0"),
    ],
)
def test_the_line_says_what_to_write_instead(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"TASKTRAIL_{name}", value)

    with pytest.raises(ConfigurationError) as caught:
        Settings.load()

    assert f"TASKTRAIL_{name} {expected}" == str(caught.value)


@pytest.mark.parametrize("value", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_is_read_with_the_one_driver(value: str) -> None:
    settings = Settings.load(database_url=f"{value}://shop:p%40ss@db.example:5433/shop?sslmode=require")

    url = sqlalchemy_url(settings.database_url.get_secret_value())

    assert url.drivername == "postgresql+psycopg"
    assert (
        url.username,
        url.password,
        url.host,
        url.port,
        url.database,
    ) == ("shop", "p@ss", "db.example", 5433, "shop")
    assert url.query == {"sslmode": "require"}


def test_settings_are_frozen() -> None:
    settings = Settings.load()

    with pytest.raises(ValidationError, match="frozen"):
        settings.connect_timeout = 1


def test_no_secret_is_shown() -> None:
    settings = Settings.load(
        database_url="postgresql://shop:secret@db.example", broker_url="redis://:secret@mq"
    )

    assert "secret" not in f"{settings!r} {settings} {settings.model_dump()}"
