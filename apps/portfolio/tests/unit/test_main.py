"""The composition root: which sources the settings name."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from portfolio.config import PortfolioSettings
from portfolio.etfs.sources import BundledPrices, YahooPrices
from portfolio.main import Application, build
from portfolio.rates.sources import BundledHistory, LiveEcb
from tasktrail import ConfigurationError, Settings

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def built(**options: object) -> Application:
    application = build(Settings.load(database_url=NOWHERE), **options)  # type: ignore[arg-type]
    application.celery.close()
    return application


@pytest.mark.parametrize(
    ("variables", "rates", "prices"),
    [
        ({}, BundledHistory, BundledPrices),
        ({"PORTFOLIO_RATES_SOURCE": "live"}, LiveEcb, BundledPrices),
        ({"PORTFOLIO_PRICES_SOURCE": "yahoo"}, BundledHistory, YahooPrices),
    ],
)
def test_the_environment_names_the_sources(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rates: type, prices: type
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    application = built()

    assert (type(application.source), type(application.prices)) == (rates, prices)


def test_a_source_there_is_not_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORTFOLIO_PRICES_SOURCE", "crystal ball")

    with pytest.raises(ConfigurationError, match=r"PORTFOLIO_PRICES_SOURCE: .*'crystal ball'"):
        built()


def test_sources_and_clock_may_be_passed_in() -> None:
    prices, now = BundledPrices(), datetime(2022, 12, 29, tzinfo=UTC)
    application = built(portfolio=PortfolioSettings(), prices=prices, clock=lambda: now)

    assert (application.prices, application.clock()) == (prices, now)
