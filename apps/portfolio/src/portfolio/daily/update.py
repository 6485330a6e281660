"""The work of a daily update: decide, order what is missing, and look what came of it.

The updates it orders are rows of their own, which it waits for without holding a worker. It comes back when
all of them have ended, in whatever way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from portfolio.clock import Clock
from portfolio.daily.decision import decide
from portfolio.daily.kinds import check_daily, etf_id_of, is_about_etfs
from portfolio.daily.store import (
    Outcome,
    etf_outcomes,
    rate_outcomes,
    stored_price_days,
    stored_rate_days,
)
from portfolio.etfs.calendar import calendar_of, newest_final_day, why_it_is_closed
from portfolio.etfs.errors import UnknownEtf
from portfolio.etfs.orders import EtfOrders
from portfolio.etfs.request import UpdateType
from portfolio.etfs.tracking import symbol_of
from portfolio.models import DailyUpdateTracking
from portfolio.rates.calendar import newest_published_day, why_nothing_is_published
from portfolio.rates.orders import RateOrders
from tasktrail import GiveUp, Prerequisite, Run, TrackingRef, WaitFor

SHOWN = 5
"""How many failures the notes name."""


class NothingFound(GiveUp):
    """The updates that were due brought no data."""


@dataclass(frozen=True, slots=True)
class DailyWork:
    """How daily updates are worked on.

    Attributes:
        rates: orders exchange rates.
        etfs: orders prices of ETFs.
        prices: name of the source of prices.
        clock: tells the time.
    """

    rates: RateOrders
    etfs: EtfOrders
    prices: str
    clock: Clock

    async def update(self, run: Run[DailyUpdateTracking]) -> None:
        """Bring one kind of data up to date as of the row's day.

        Args:
            run: the attempt.

        Raises:
            InvalidField: the row's day is in the future.
            UnknownEtf: the row is about an ETF that does not exist.
            WaitFor: updates are due; they are enqueued and waited for.
            NothingFound: they brought no data.
        """
        waited = [needed for needed in await run.aprerequisites() if needed.is_current]
        if waited:
            await self._conclude(run, waited)
            return
        check_daily(run.row.update_date, run.row.update_type, self.clock())
        if is_about_etfs(run.row.update_type):
            orders, reason = await self._order_prices(run)
        else:
            orders, reason = await self._order_rates(run)
        if not orders:
            await run.arecord(data_found=False, notes=reason)
            return
        await run.arecord(data_found=None, notes=reason)
        raise WaitFor(orders, if_unmet="proceed")

    async def _order_rates(self, run: Run[DailyUpdateTracking]) -> tuple[list[TrackingRef], str]:
        day = run.row.update_date
        decision = decide(
            day,
            await stored_rate_days(run.asession, day),
            newest_out=newest_published_day(self.clock()),
            why_none=why_nothing_is_published,
        )
        return await self.rates.place(run.asession, decision.days), decision.reason

    async def _order_prices(self, run: Run[DailyUpdateTracking]) -> tuple[list[TrackingRef], str]:
        day, etf_id = run.row.update_date, etf_id_of(run.row.update_type)
        etfs = await stored_price_days(run.asession, day, self.prices, etf_id)
        if etf_id is not None and not etfs:
            raise UnknownEtf("the database", etf_id)
        orders = []
        reasons: dict[str, list[str]] = {}
        for etf, stored in etfs:
            calendar = calendar_of(symbol_of(etf))
            decision = decide(
                day,
                stored,
                newest_out=newest_final_day(self.clock(), calendar),
                why_none=partial(why_it_is_closed, calendar=calendar),
            )
            reasons.setdefault(decision.reason, []).append(etf.id)
            for first, last in decision.ranges:
                orders.append(await self.etfs.place(run.asession, etf, UpdateType.PRICES_ONLY, first, last))
        told = [f"{', '.join(ids)}: {reason}" for reason, ids in reasons.items()]
        return orders, "\n".join(told) or "there are no ETFs"

    async def _conclude(self, run: Run[DailyUpdateTracking], waited: Sequence[Prerequisite]) -> None:
        if is_about_etfs(run.row.update_type):
            ids = [needed.ref.id for needed in waited if needed.ref.domain == self.etfs.task.domain.name]
            outcomes = await etf_outcomes(run.asession, ids, self.prices)
        else:
            ids = [needed.ref.id for needed in waited if needed.ref.domain == self.rates.task.domain.name]
            outcomes = await rate_outcomes(run.asession, ids)
        found = any(outcome.found for outcome in outcomes)
        notes = _summary(outcomes)
        await run.arecord(data_found=found, notes=notes)
        if not found and any(outcome.failure for outcome in outcomes):
            raise NothingFound(notes)


def _summary(outcomes: Sequence[Outcome]) -> str:
    found = [outcome.what for outcome in outcomes if outcome.found]
    failed = [f"{outcome.what}: {outcome.failure}" for outcome in outcomes if outcome.failure]
    lines = [f"{len(found)} of {len(outcomes)} updates brought data"]
    lines += failed[:SHOWN]
    if (more := len(failed) - SHOWN) > 0:
        lines.append(f"and {more} more")
    return "\n".join(lines)
