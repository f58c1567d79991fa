"""What the routes work on."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from kalshi_simulator.exchange import Exchange
from kalshi_simulator.faults import Faults
from kalshi_simulator.feed import Feed
from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.hub import Hub
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import not_found
from kalshi_simulator.signing import Gatekeeper


@dataclass
class Counters:
    """REST requests so far."""

    requests: int = 0
    limited: int = 0
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
        """The instant up to which REST tells (exclusive): now, or earlier when it lags."""
        lag = self.faults.standing("rest_lag")
        now = self.exchange.clock.now()
        return now if lag is None else now - int((lag.seconds or 0) * SECOND_US)

    def market(self, ticker: str) -> Market:
        """A market that the live tier shows; 404 for any other."""
        now = self.exchange.clock.now()
        self.exchange.directory.advance(now)
        market = self.exchange.directory.find(ticker)
        if market is None or market.settled_us < self.exchange.cutoff_us:
            raise not_found()
        hidden = self.faults.standing("not_found_after_created")
        if hidden and now - market.created_us < int((hidden.seconds or 0) * SECOND_US):
            self.faults.note("not_found_after_created")
            raise not_found()
        return market


def context_of(request: Request) -> Context:
    """The context of the app that got the request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context
