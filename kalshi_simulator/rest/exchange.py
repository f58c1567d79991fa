"""The exchange about itself: status, hours, cutoff, limits."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.figures import DAY_US, HOUR_US, stamp, when
from kalshi_simulator.rest.answers import Problem, json_response
from kalshi_simulator.rest.context import context_of
from kalshi_simulator.rest.gate import BUCKET_SECONDS, REQUEST_COST
from kalshi_simulator.signing import KEY_HEADER

_DAYS = ("monday", "tuesday", "wednesday", "friday", "saturday", "sunday")


async def status(_: Request) -> Response:
    """Whether the exchange is open; it is, unless a fault says otherwise."""
    up = {"exchange_active": True, "trading_active": True, "intra_exchange_transfers_active": True}
    shards = [
        {"exchange_index": index, "description": name, **up}
        for index, name in enumerate(("Default", "Combos"))
    ]
    return json_response({**up, "exchange_index_statuses": shards})


async def schedule(request: Request) -> Response:
    """Trading hours and the next maintenance, as published; trading here never pauses."""
    return json_response(schedule_of(context_of(request).exchange.clock.now()))


def schedule_of(now: int) -> dict[str, Any]:
    """The body of /exchange/schedule at an instant (microseconds)."""
    year = when(now).year
    all_day = [{"open_time": "00:00", "close_time": "00:00"}]
    hours: dict[str, Any] = {
        "start_time": f"{year}-01-01T00:00:00Z",
        "end_time": f"{year + 1}-01-01T00:00:00Z",
        **dict.fromkeys(_DAYS, all_day),
        "thursday": [
            {"open_time": "00:00", "close_time": "03:00"},
            {"open_time": "05:00", "close_time": "00:00"},
        ],
    }
    today = now // DAY_US * DAY_US
    thursday = today + (3 - when(now).weekday()) % 7 * DAY_US
    window = {
        "start_datetime": stamp(thursday + 8 * HOUR_US),
        "end_datetime": stamp(thursday + 10 * HOUR_US),
    }
    return {"schedule": {"standard_hours": [hours], "maintenance_windows": [window]}}


async def cutoff(request: Request) -> Response:
    """Where the live tier begins."""
    instant = stamp(context_of(request).exchange.cutoff_us)
    return json_response(
        {
            "market_settled_ts": instant,
            "trades_created_ts": instant,
            "orders_updated_ts": instant,
            "market_positions_last_updated_ts": instant,
        }
    )


async def limits(request: Request) -> Response:
    """The caller's budget; needs a key."""
    if KEY_HEADER not in request.headers:
        raise Problem(401, "unauthorized", "unauthorized", "authentication headers are missing")
    rate = request.app.state.read_tokens_per_second
    return json_response(
        {
            "usage_tier": "basic",
            "read": {"refill_rate": rate, "bucket_capacity": rate * BUCKET_SECONDS},
            "write": {"refill_rate": 100, "bucket_capacity": 100},
            "grants": [],
        }
    )


async def costs(_: Request) -> Response:
    """What a request costs; nothing here costs other than the default."""
    return json_response({"default_cost": REQUEST_COST, "endpoint_costs": []})


routes = [
    Route("/trade-api/v2/exchange/status", status),
    Route("/trade-api/v2/exchange/schedule", schedule),
    Route("/trade-api/v2/historical/cutoff", cutoff),
    Route("/trade-api/v2/account/limits", limits),
    Route("/trade-api/v2/account/endpoint_costs", costs),
]
