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
        ("BROKER_URL", "kafka://x", "names the transport 'kafka'; write redis://… or amqp://…"),
        ("ETA_HORIZON", "-1", "Input should be greater than 0"),
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


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+socket", "amqp", "amqps", "pyamqp", "sentinel"])
def test_redis_and_rabbitmq_are_known_by_all_their_names(scheme: str) -> None:
    assert f"{scheme}://x" == Settings.load(broker_url=f"{scheme}://x").broker_url.get_secret_value()


def test_settings_are_frozen() -> None:
    settings = Settings.load()

    with pytest.raises(ValidationError, match="frozen"):
        settings.connect_timeout = 1


def test_no_secret_is_shown() -> None:
    settings = Settings.load(
        database_url="postgresql://shop:secret@db.example", broker_url="redis://:secret@mq"
    )

    assert "secret" not in f"{settings!r} {settings} {settings.model_dump()}"
