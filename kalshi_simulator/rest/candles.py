"""Candlesticks: one market, several, an event, and the historical tier with its other names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.candles import Candle, Range, candles_of
from kalshi_simulator.figures import MINUTE_US, SECOND_US, dollars, fixed_point
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import (
    bad_request,
    json_response,
    needed,
    not_found,
    yes_or_no,
)
from kalshi_simulator.rest.context import Context, context_of

MOST_OF_ONE = 5_000
MOST_OF_BATCH = 10_000


@dataclass(frozen=True)
class Window:
    """The candles asked for: those that end within [start_ts, end_ts], seconds."""

    start_ts: int
    end_ts: int
    period_us: int

    def periods(self) -> int:
        """How many candles the window could hold, rounded up."""
        return -(-(self.end_ts - self.start_ts) * SECOND_US // self.period_us)

    def first_end_us(self) -> int:
        """The first boundary at or after the start."""
        return -(-self.start_ts * SECOND_US // self.period_us) * self.period_us

    def last_end_us(self) -> int:
        return self.end_ts * SECOND_US // self.period_us * self.period_us


def _window(request: Request) -> Window:
    start, end = needed(request, "start_ts"), needed(request, "end_ts")
    minutes = needed(request, "period_interval")
    if minutes not in (1, 60, 1_440):
        raise bad_request("period_interval must be one of 1, 60, 1440")
    if end < start:
        raise bad_request("end_ts must not be before start_ts")
    return Window(start, end, minutes * MINUTE_US)


def _capped(window: Window) -> Window:
    if window.periods() > MOST_OF_ONE:
        asked = (window.end_ts - window.start_ts) * SECOND_US / window.period_us
        raise bad_request(
            f"requested time range with candlesticks: {asked:.6f}, max candlesticks: {MOST_OF_ONE}"
        )
    return window


async def of_market(request: Request) -> Response:
    """Candles of one market of the live tier."""
    context, window = context_of(request), _capped(_window(request))
    market = context.market(request.path_params["ticker"])
    if context.exchange.directory.plan(market).ticker != request.path_params["series_ticker"]:
        raise not_found()
    latest = yes_or_no(request, "include_latest_before_start") is True
    candles = _live_views(context, market, window, latest)
    return json_response({"ticker": market.ticker, "candlesticks": candles})


async def of_markets(request: Request) -> Response:
    """Candles of several markets; unknown ones are left out, quiet ones have an empty list."""
    context, window = context_of(request), _window(request)
    tickers = [t for t in request.query_params.get("market_tickers", "").split(",") if t]
    if not 1 <= len(tickers) <= 100:
        raise bad_request("between 1 and 100 market_tickers are required")
    total = window.periods() * len(tickers)
    if total > MOST_OF_BATCH:
        raise bad_request(
            f"requested candlesticks across all markets: {total}, max candlesticks: {MOST_OF_BATCH}"
        )
    latest = yes_or_no(request, "include_latest_before_start") is True
    found = []
    for ticker in tickers:
        market = context.exchange.directory.find(ticker)
        if market is not None and market.settled_us >= context.exchange.cutoff_us:
            candles = _live_views(context, market, window, latest)
            found.append({"market_ticker": ticker, "candlesticks": candles})
            await asyncio.sleep(0)
    return json_response({"markets": found})


async def of_event(request: Request) -> Response:
    """Candles of an event's markets; cut where they would be too many."""
    context, window = context_of(request), _window(request)
    markets = list(context.exchange.directory.of_event(request.path_params["event_ticker"]))
    cutoff = context.exchange.cutoff_us
    markets = [market for market in markets if market.settled_us >= cutoff]
    if not markets:
        raise not_found()
    if context.exchange.directory.plan(markets[0]).ticker != request.path_params["series_ticker"]:
        raise not_found()
    most = MOST_OF_ONE // len(markets)
    if window.periods() > most:
        end_ts = window.start_ts + most * window.period_us // SECOND_US
        window = Window(window.start_ts, end_ts, window.period_us)
    candles = []
    for market in markets:
        candles.append(_live_views(context, market, window, False))
        await asyncio.sleep(0)
    return json_response(
        {
            "market_tickers": [market.ticker for market in markets],
            "market_candlesticks": candles,
            "adjusted_end_ts": window.end_ts,
        }
    )


async def of_historical(request: Request) -> Response:
    """Candles of a market settled before the cutoff: other names, nulls where nothing traded."""
    context, window = context_of(request), _capped(_window(request))
    market = context.exchange.directory.find(request.path_params["ticker"])
    if market is None or market.settled_us >= context.exchange.cutoff_us:
        raise not_found()
    candles = [_historical_view(candle) for candle in _candles(context, market, window)]
    return json_response({"ticker": market.ticker, "candlesticks": candles})


def _candles(context: Context, market: Market, window: Window) -> list[Candle]:
    return candles_of(
        context.exchange,
        market,
        window.first_end_us(),
        window.last_end_us(),
        window.period_us,
        context.now_us(),
    )


def _live_views(
    context: Context, market: Market, window: Window, latest: bool
) -> list[dict[str, Any]]:
    candles = _candles(context, market, window)
    views = [_live_view(candle) for candle in candles]
    first_end = window.first_end_us()
    if latest and not (candles and candles[0].end_us == first_end):
        before = context.exchange.last_trade(market, first_end - window.period_us)
        if before is not None:
            views.insert(0, _synthetic(first_end, before[0]))
    return views


def _live_range(values: Range) -> dict[str, str]:
    return {
        "open_dollars": dollars(values.open),
        "low_dollars": dollars(values.low),
        "high_dollars": dollars(values.high),
        "close_dollars": dollars(values.close),
    }


def _live_view(candle: Candle) -> dict[str, Any]:
    price: dict[str, str] = {}
    if candle.price is not None and candle.mean_e4 is not None:
        price = {**_live_range(candle.price), "mean_dollars": dollars(candle.mean_e4)}
    if candle.previous_e4 is not None:
        price["previous_dollars"] = dollars(candle.previous_e4)
    return {
        "end_period_ts": candle.end_us // SECOND_US,
        "yes_bid": _live_range(candle.bid),
        "yes_ask": _live_range(candle.ask),
        "price": price,
        "volume_fp": fixed_point(candle.volume_centis),
        "open_interest_fp": fixed_point(candle.interest_centis),
    }


def _synthetic(end_us: int, previous_e4: int) -> dict[str, Any]:
    """What stood before the window, as a first candle without anything of its own."""
    nothing = dict.fromkeys(("open_dollars", "low_dollars", "high_dollars", "close_dollars"))
    return {
        "end_period_ts": end_us // SECOND_US,
        "yes_bid": nothing,
        "yes_ask": nothing,
        "price": {**nothing, "mean_dollars": None, "previous_dollars": dollars(previous_e4)},
        "volume_fp": "0.00",
        "open_interest_fp": "0.00",
    }


def _historical_range(values: Range | None) -> dict[str, str | None]:
    if values is None:
        return dict.fromkeys(("open", "low", "high", "close"))
    return {
        "open": dollars(values.open),
        "low": dollars(values.low),
        "high": dollars(values.high),
        "close": dollars(values.close),
    }


def _historical_view(candle: Candle) -> dict[str, Any]:
    mean, previous = candle.mean_e4, candle.previous_e4
    return {
        "end_period_ts": candle.end_us // SECOND_US,
        "yes_bid": _historical_range(candle.bid),
        "yes_ask": _historical_range(candle.ask),
        "price": {
            **_historical_range(candle.price),
            "mean": None if mean is None else dollars(mean),
            "previous": None if previous is None else dollars(previous),
        },
        "volume": fixed_point(candle.volume_centis),
        "open_interest": fixed_point(candle.interest_centis),
    }


_API = "/trade-api/v2"
routes = [
    Route(f"{_API}/markets/candlesticks", of_markets),
    Route(f"{_API}/series/{{series_ticker}}/markets/{{ticker}}/candlesticks", of_market),
    Route(f"{_API}/series/{{series_ticker}}/events/{{event_ticker}}/candlesticks", of_event),
    Route(f"{_API}/historical/markets/{{ticker}}/candlesticks", of_historical),
]
