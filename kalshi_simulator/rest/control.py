"""Levers that the real exchange does not have: faults, truth, trades by hand."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator import ticks
from kalshi_simulator.faults import FaultRequest
from kalshi_simulator.figures import (
    DAY_US,
    MINUTE_US,
    count_centis,
    parse_instant,
    price_e4,
    stamp,
    stamp_full,
)
from kalshi_simulator.generation import BLOCK_TRADE, OPENS, ORDER_ENDS, TAKER_YES
from kalshi_simulator.hashing import uuid_text
from kalshi_simulator.rest.answers import bad_request, json_response, not_found
from kalshi_simulator.rest.context import Context, context_of
from kalshi_simulator.state import TradeState


async def add_fault(request: Request) -> Response:
    """Put a fault in force, or do it at once."""
    context = context_of(request)
    try:
        fault = msgspec.json.decode(await request.body(), type=FaultRequest)
        context.faults.add(fault)
        done = await _do_at_once(context, fault)
    except (msgspec.DecodeError, ValueError) as error:
        raise bad_request(str(error)) from error
    return json_response({"fault": fault.kind, "struck": done, **context.faults.report()})


async def _do_at_once(context: Context, fault: FaultRequest) -> int | None:
    hub = context.hub
    if fault.kind in ("code25", "code10"):
        done = hub.end_subscriptions(int(fault.kind.removeprefix("code")), fault.channel)
    elif fault.kind == "stall":
        done = hub.stall()
    elif fault.kind == "close":
        done = await hub.close_clients(fault.code)
    elif fault.kind == "drop_connection":
        done = hub.drop_clients()
    elif fault.kind == "move_cutoff" and fault.after_requests is None:
        context.exchange.move_cutoff(fault.to)
        done = 1
    else:
        return None
    context.faults.note(fault.kind)
    return done


async def list_faults(request: Request) -> Response:
    """Faults in force and how often each kind has struck."""
    return json_response(context_of(request).faults.report())


async def clear_faults(request: Request) -> Response:
    """End all faults that last."""
    faults = context_of(request).faults
    faults.clear()
    return json_response(faults.report())


class ClockRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /control/clock: times as fast as the wall clock; 0 holds time."""

    speed: float


async def set_clock(request: Request) -> Response:
    """Let time stand still, or go on, without a jump; what happened until now is told first."""
    context = context_of(request)
    try:
        wanted = msgspec.json.decode(await request.body(), type=ClockRequest)
    except msgspec.DecodeError as error:
        raise bad_request(str(error)) from error
    if wanted.speed < 0:
        raise bad_request("speed must not be below zero")
    exchange = context.exchange
    exchange.set_speed(round(wanted.speed * 1_000))
    now = exchange.clock.now()
    context.feed.advance(now)
    return json_response({"now": stamp_full(now), "speed": exchange.clock.speed_milli / 1_000})


class TouchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /control/touch."""

    count: int


async def touch(request: Request) -> Response:
    """Change dormant markets now: other rules, another expected expiration."""
    exchange = context_of(request).exchange
    try:
        wanted = msgspec.json.decode(await request.body(), type=TouchRequest)
    except msgspec.DecodeError as error:
        raise bad_request(str(error)) from error
    if wanted.count < 1:
        raise bad_request("count must be above zero")
    return json_response({"touched": exchange.touch(wanted.count)})


class TradeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /control/trades; without created_time it happens now, on both sides.

    With a created_time in the past only REST tells it: a trade that the stream never had.
    """

    ticker: str
    yes_price_dollars: str
    count_fp: str
    taker_outcome_side: str = "yes"
    created_time: str | None = None
    is_block_trade: bool = False


async def add_trade(request: Request) -> Response:
    """Add one exact trade to the ledger."""
    context = context_of(request)
    exchange = context.exchange
    try:
        wanted = msgspec.json.decode(await request.body(), type=TradeRequest)
        price = price_e4(wanted.yes_price_dollars)
        centis = count_centis(wanted.count_fp)
        us = None if wanted.created_time is None else parse_instant(wanted.created_time)
    except (msgspec.DecodeError, ValueError) as error:
        raise bad_request(str(error)) from error
    market = exchange.directory.find(wanted.ticker)
    if market is None or market.is_dormant:
        raise not_found()
    late = us is not None and us < context.feed.at_us
    us = context.feed.at_us + (context.feed.at_us % MINUTE_US == 0) if us is None else us
    if us >= exchange.clock.now() + DAY_US or us < exchange.ledger.begins_us:
        raise bad_request("created_time is outside the life of the exchange")
    if not market.open_us <= us < market.close_us:
        raise bad_request("the market is not open at that time")
    if market.recess is not None and market.recess[0] <= us < market.recess[1]:
        raise bad_request("the market does not trade at that time")
    if not ticks.allows(exchange.directory.structure_at(market, us), price):
        raise bad_request("the price is not on the market's grid")
    if centis <= 0:
        raise bad_request("count must be above zero")
    flags = OPENS | ORDER_ENDS
    flags |= TAKER_YES if wanted.taker_outcome_side == "yes" else 0
    flags |= BLOCK_TRADE if wanted.is_block_trade else 0
    identity = os.urandom(16)
    high, low = int.from_bytes(identity[:8], "big"), int.from_bytes(identity[8:], "big")
    exchange.inject(TradeState(market.slot, us, price, centis, flags, high, low))
    if late:
        context.feed.recount(market.slot)
    return json_response({"trade_id": uuid_text(high, low), "created_time": stamp_full(us)}, 201)


async def stats(request: Request) -> Response:
    """Counters and the simulated time."""
    context = context_of(request)
    hub = context.hub
    now = context.exchange.clock.now()
    return json_response(
        {
            "now": stamp(now),
            "uptime_seconds": round(
                timedelta(microseconds=now - context.exchange.state.started_us).total_seconds(), 3
            ),
            "sent": hub.sent(),
            "swallowed": hub.swallowed,
            "connections": [
                {
                    "number": client.number,
                    "key_id": client.key_id,
                    "sent": client.sent,
                    "backlog_bytes": client.backlog(),
                    "subscriptions": [
                        {"sid": s.sid, "channel": s.channel, "seq": s.seq}
                        for s in client.subscriptions.values()
                    ],
                }
                for client in hub.clients.values()
            ],
            "connections_ever": hub.connections_ever,
            "handshakes_refused": hub.refused,
            "rest_requests": context.counters.requests,
            "rest_limited": context.counters.limited,
            "rest_over_budget": context.counters.over_budget,
            "rest_tokens_most_a_second": context.counters.tokens_most_a_second,
            "rest_failed_on_command": context.counters.failed,
            "rest_by_path": context.counters.by_path,
        }
    )


routes = [
    Route("/control/faults", add_fault, methods=["POST"]),
    Route("/control/faults", list_faults, methods=["GET"]),
    Route("/control/faults", clear_faults, methods=["DELETE"]),
    Route("/control/clock", set_clock, methods=["POST"]),
    Route("/control/touch", touch, methods=["POST"]),
    Route("/control/trades", add_trade, methods=["POST"]),
    Route("/control/stats", stats),
]
