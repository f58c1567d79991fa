"""The truth, for those who compare: what there is at the simulated now, whatever REST shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import dollars, fixed_point, parse_instant, stamp, stamp_full
from kalshi_simulator.generation import BLOCK_TRADE, TAKER_YES
from kalshi_simulator.hashing import uuid_text
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import bad_request, json_response, not_found
from kalshi_simulator.rest.context import context_of
from kalshi_simulator.rest.views import book_view, event_view, market_views, series_view
from kalshi_simulator.standing import books_of

_AT_ONCE = 200
_ON_THE_STREAM, _OVER_REST = "lifecycle", "rest"


def _lines(parts: Iterator[str]) -> Response:
    """One JSON object a line; the process goes on with its work in between."""

    async def text() -> AsyncIterator[str]:
        for part in parts:
            yield part
            await asyncio.sleep(0)

    return StreamingResponse(text(), media_type="application/x-ndjson")


def _written(views: Sequence[dict[str, Any]]) -> str:
    return "".join(msgspec.json.encode(view).decode() + "\n" for view in views)


async def trades(request: Request) -> Response:
    """Trades in [start, end), in order of execution."""
    exchange = context_of(request).exchange
    try:
        start = parse_instant(request.query_params["start"])
        end = parse_instant(request.query_params["end"])
    except (KeyError, ValueError) as error:
        raise bad_request(f"start and end must be ISO 8601 instants: {error}") from error
    end = min(end, exchange.clock.now())
    return _lines(_trade_lines(exchange, start, end, request.query_params.get("ticker")))


def _trade_lines(exchange: Exchange, start_us: int, end_us: int, only: str | None) -> Iterator[str]:
    """The lines of one block at a time."""
    for ordinal in exchange.ledger.blocks_between(start_us, end_us):
        rows = exchange.ledger.block(ordinal).rows
        first = exchange.ledger.executed_before(ordinal)
        text = []
        columns = zip(
            rows.us.tolist(), rows.slot.tolist(), rows.price_e4.tolist(), rows.centis.tolist(),
            rows.flags.tolist(), rows.high.tolist(), rows.low.tolist(), strict=True,
        )  # fmt: skip
        for n, (us, slot, price, centis, flags, high, low) in enumerate(columns, first):
            if not start_us <= us < end_us:
                continue
            ticker = exchange.directory.at(slot, us).ticker
            if only is not None and ticker != only:
                continue
            side = "yes" if flags & TAKER_YES else "no"
            block = "true" if flags & BLOCK_TRADE else "false"
            text.append(
                f'{{"trade_id":"{uuid_text(high, low)}","ticker":"{ticker}",'
                f'"yes_price_dollars":"{dollars(price)}","count_fp":"{fixed_point(centis)}",'
                f'"created_time":"{stamp_full(us)}","taker_outcome_side":"{side}",'
                f'"is_block_trade":{block},"n":{n}}}\n'
            )
        yield "".join(text)


def _markets(request: Request) -> tuple[Exchange, int, list[Market]]:
    """Everything there is now, or what `ticker` names; the instant; in order of creation."""
    exchange = context_of(request).exchange
    now = exchange.clock.now()
    exchange.directory.advance(now)
    ticker = request.query_params.get("ticker")
    if ticker is None:
        return exchange, now, list(exchange.directory.all())
    found = exchange.directory.find(ticker)
    return exchange, now, [] if found is None else [found]


async def book(request: Request) -> Response:
    """The book of a market at an instant of the past, bids of both sides, best prices last."""
    context = context_of(request)
    exchange = context.exchange
    try:
        at = parse_instant(request.query_params["at"])
        ticker = request.query_params["ticker"]
    except (KeyError, ValueError) as error:
        raise bad_request(f"ticker and at (an ISO 8601 instant) are needed: {error}") from error
    context.feed.advance(exchange.clock.now())
    if at > context.feed.at_us:
        raise bad_request(f"at is in the future; it is {stamp_full(context.feed.at_us)}")
    market = exchange.directory.find(ticker)
    if market is None:
        raise not_found()
    [found] = books_of(exchange.layout, [market], at)
    shown = book_view(found)
    return json_response(
        {
            "ticker": ticker,
            "at": stamp_full(at),
            "yes": shown["yes_dollars"],
            "no": shown["no_dollars"],
        }
    )


async def markets(request: Request) -> Response:
    """Every market as REST spells it, of either tier, and whether it has `traded`."""
    exchange, now, found = _markets(request)

    def parts() -> Iterator[str]:
        for first in range(0, len(found), _AT_ONCE):
            some = found[first : first + _AT_ONCE]
            views = market_views(exchange, some, [now] * len(some))
            for market, view in zip(some, views, strict=True):
                view["traded"] = exchange.volume(market, now) > 0
            yield _written(views)

    return _lines(parts())


async def settlements(request: Request) -> Response:
    """Every market with an outcome: the outcome as it stands, and its versions in order.

    A version says when it took effect (`at`) and whether the stream told it (`told_by`
    lifecycle) or only REST shows it (rest): a dispute, and its end where the outcome was upheld.
    """
    exchange, now, found = _markets(request)
    decided = [market for market in found if market.determined_us <= now]

    def parts() -> Iterator[str]:
        for first in range(0, len(decided), _AT_ONCE):
            some = decided[first : first + _AT_ONCE]
            yield _written([settlement_view(exchange, market, now) for market in some])

    return _lines(parts())


def settlement_view(exchange: Exchange, market: Market, now: int) -> dict[str, Any]:
    versions = []
    for told_us, status in market.outcome_steps():
        outcome = exchange.directory.outcome_at(market, told_us)
        if told_us > now or outcome is None:
            break
        is_told = status == "finalized" or told_us in market.determinations()
        versions.append(
            {
                "status": status,
                "result": outcome[0],
                "settlement_value_dollars": dollars(outcome[1]),
                "at": stamp(market.settled_us if status == "finalized" else told_us),
                "told_by": _ON_THE_STREAM if is_told else _OVER_REST,
            }
        )
    last = versions[-1]
    view = {
        "ticker": market.ticker,
        "event_ticker": market.event_ticker,
        "status": last["status"],
        "result": last["result"],
        "settlement_value_dollars": last["settlement_value_dollars"],
        "versions": versions,
        "traded": exchange.volume(market, now) > 0,
    }
    if last["status"] == "finalized":
        view["settlement_ts"] = stamp(market.settled_us)
    return view


async def events(request: Request) -> Response:
    """Every event as REST spells it, without its markets."""
    exchange, now, _ = _markets(request)
    found = list(exchange.directory.events())

    def parts() -> Iterator[str]:
        for first in range(0, len(found), _AT_ONCE):
            some = found[first : first + _AT_ONCE]
            yield _written([event_view(exchange, event, now) for event in some])

    return _lines(parts())


async def series(request: Request) -> Response:
    """Every series that REST knows, as REST spells it."""
    exchange, now, _ = _markets(request)
    plans = exchange.directory.series
    views = [series_view(exchange, plan, now, with_volume=False) for plan in plans]
    return _lines(iter([_written(views)]))


routes = [
    Route("/control/ledger/trades", trades),
    Route("/control/ledger/book", book),
    Route("/control/ledger/markets", markets),
    Route("/control/ledger/events", events),
    Route("/control/ledger/series", series),
    Route("/control/ledger/settlements", settlements),
]
