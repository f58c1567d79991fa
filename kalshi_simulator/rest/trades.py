"""Trades: newest first, inside one instant by trade_id descending, in two tiers."""

from __future__ import annotations

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator import bodies
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.generation import BLOCK_TRADE
from kalshi_simulator.hashing import uuid_text
from kalshi_simulator.ledger import Block
from kalshi_simulator.rest.answers import (
    limited,
    make_cursor,
    raw_response,
    read_cursor,
    whole,
    yes_or_no,
)
from kalshi_simulator.rest.context import context_of

Place = tuple[int, int, int]  # time (us) and the two halves of the id


async def live(request: Request) -> Response:
    """Trades since the cutoff."""
    context = context_of(request)
    return _page(request, context.exchange, context.exchange.cutoff_us, context.now_us())


async def historical(request: Request) -> Response:
    """Trades before the cutoff."""
    exchange = context_of(request).exchange
    return _page(request, exchange, exchange.ledger.begins_us, exchange.cutoff_us)


def _page(request: Request, exchange: Exchange, from_us: int, to_us: int) -> Response:
    """One page of trades in [from_us, to_us), narrowed by the parameters."""
    limit = limited(request, 100, 1_000)
    ticker = request.query_params.get("ticker") or None
    minimum, maximum = whole(request, "min_ts"), whole(request, "max_ts")
    block_trades = yes_or_no(request, "is_block_trade")
    place = read_cursor(request, tuple[int, int, int])
    slot = None
    if minimum is not None:
        from_us = max(from_us, minimum * SECOND_US)
    if maximum is not None:
        # Both ends count as inclusive; the exchange does not say.
        to_us = min(to_us, maximum * SECOND_US + 1)
    if ticker is not None:
        market = exchange.directory.find(ticker)
        if market is None:
            return raw_response('{"trades":[],"cursor":""}')
        slot = market.slot
        from_us, to_us = max(from_us, market.open_us), min(to_us, market.close_us)
    if place is not None:
        to_us = min(to_us, place[0] + 1)
    records, last, more = _collect(exchange, slot, from_us, to_us, place, limit, block_trades)
    cursor = make_cursor(*last) if more and last else ""
    return raw_response(f'{{"trades":[{",".join(records)}],"cursor":"{cursor}"}}')


def _collect(
    exchange: Exchange,
    slot: int | None,
    from_us: int,
    to_us: int,
    place: Place | None,
    limit: int,
    block_trades: bool | None,
) -> tuple[list[str], Place | None, bool]:
    """Records of a page, the place of the last, and whether anything follows."""
    records: list[str] = []
    last: Place | None = None
    for ordinal in reversed(exchange.ledger.blocks_between(from_us, to_us)):
        block = exchange.ledger.block(ordinal)
        chosen = _newest_first(block, slot, from_us, to_us, place)
        if block_trades is not None:
            is_block = (block.rows.flags[chosen] & BLOCK_TRADE) != 0
            chosen = chosen[is_block == block_trades]
        if len(records) == limit and len(chosen):
            return records, last, True
        room = limit - len(records)
        rows = block.rows.take(chosen[:room])
        columns = zip(
            rows.us.tolist(), rows.slot.tolist(), rows.price_e4.tolist(), rows.centis.tolist(),
            rows.flags.tolist(), rows.high.tolist(), rows.low.tolist(), strict=True,
        )  # fmt: skip
        for us, own, price, centis, flags, high, low in columns:
            ticker = exchange.directory.at(own, us).ticker
            identity = uuid_text(high, low)
            records.append(bodies.trade_record(identity, ticker, price, centis, flags, us))
            last = (us, high, low)
        if len(chosen) > room:
            return records, last, True
    return records, last, False


def _newest_first(
    block: Block, slot: int | None, from_us: int, to_us: int, place: Place | None
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of a block in [from_us, to_us) and after the place, as REST lists them."""
    order = block.rest_of(slot)
    times = block.rows.us[order]
    left, right = (int(at) for at in np.searchsorted(times, [from_us, to_us]))
    if place is not None:
        # Within the instant of the cursor, only smaller ids follow.
        us, high, low = place
        while right > left and int(times[right - 1]) == us:
            row = order[right - 1]
            if (int(block.rows.high[row]), int(block.rows.low[row])) < (high, low):
                break
            right -= 1
    return order[left:right][::-1]


routes = [
    Route("/trade-api/v2/markets/trades", live),
    Route("/trade-api/v2/historical/trades", historical),
]
