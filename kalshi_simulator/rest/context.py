"""What the routes work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from kalshi_simulator.exchange import Exchange
from kalshi_simulator.faults import Faults
from kalshi_simulator.feed import Feed
from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.hub import Hub
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import not_found
from kalshi_simulator.rest.sight import REFERENCE_LAG, UNBORN, UNTOLD, Sight, sight_of
from kalshi_simulator.rest.views import market_views
from kalshi_simulator.signing import Gatekeeper


@dataclass
class Counters:
    """REST requests so far.

    Attributes:
        limited: refused with 429, by the budget or on command.
        over_budget: those of them refused by the budget.
        tokens_most_a_second: most tokens that one caller asked for within any one second of the
            wall clock, refused requests included.
    """

    requests: int = 0
    limited: int = 0
    over_budget: int = 0
    tokens_most_a_second: int = 0
    failed: int = 0
    by_path: dict[str, int] = field(default_factory=dict)


@dataclass
class Context:
    """The exchange and everything around it."""

    exchange: Exchange
    hub: Hub
    feed: Feed
    faults: Faults
    gatekeeper: Gatekeeper
    counters: Counters

    def now_us(self) -> int:
        """The instant up to which REST tells of trades (exclusive): now, or earlier if it lags."""
        lag = self.faults.standing("rest_lag")
        now = self.exchange.clock.now()
        return now if lag is None else now - int((lag.seconds or 0) * SECOND_US)

    def sight(self) -> Sight:
        """What REST shows of markets, events and series; all of them made up to now."""
        now = self.exchange.clock.now()
        self.exchange.directory.advance(now)
        return sight_of(self.faults, now)

    def market(self, ticker: str) -> Market:
        """A market that the live tier shows; 404 for any other."""
        sight = self.sight()
        market = self.exchange.directory.find(ticker)
        if market is None or market.settled_us < self.exchange.cutoff_us:
            raise not_found()
        if not sight.shows(market):
            self.note_hidden()
            raise not_found()
        return market

    def note_hidden(self) -> None:
        """Count that a fault kept a market from being seen."""
        for kind in (UNBORN, REFERENCE_LAG):
            if self.faults.standing(kind):
                self.faults.note(kind)

    def views(
        self, sight: Sight, markets: Sequence[Market], *, is_historical: bool = False
    ) -> list[dict[str, Any]]:
        """The Market objects of several markets, as REST shows them now."""
        for _ in filter(sight.hides_outcome, markets):
            self.faults.note(UNTOLD)
        instants = [sight.of(market) for market in markets]
        return market_views(self.exchange, markets, instants, is_historical=is_historical)


def context_of(request: Request) -> Context:
    """The context of the app that got the request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context
