"""Events and series."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import (
    bad_request,
    json_response,
    limited,
    make_cursor,
    not_found,
    read_cursor,
    whole,
    yes_or_no,
)
from kalshi_simulator.rest.context import Context, context_of
from kalshi_simulator.rest.markets import STATUSES
from kalshi_simulator.rest.views import event_view, market_views, series_view


async def list_events(request: Request) -> Response:
    """Ordinary events, newest first."""
    return _events(request, combos=False, default=200)


async def list_combos(request: Request) -> Response:
    """Multivariate events, newest first."""
    return _events(request, combos=True, default=100)


def _events(request: Request, *, combos: bool, default: int) -> Response:
    context = context_of(request)
    directory = context.exchange.directory
    now = context.exchange.clock.now()
    directory.advance(now)
    limit = limited(request, default, 200)
    status = request.query_params.get("status") or None
    if status is not None and status not in STATUSES:
        raise bad_request("invalid status filter")
    series = request.query_params.get("series_ticker") or None
    named = [part for part in request.query_params.get("tickers", "").split(",") if part]
    least_close = whole(request, "min_close_ts")
    least_updated = whole(request, "min_updated_ts")
    nested = yes_or_no(request, "with_nested_markets") is True
    place = read_cursor(request, tuple[int, str])
    chosen: list[tuple[str, list[Market]]] = []
    cursor = ""
    for event in reversed(directory.events()):
        markets = directory.of_event(event)
        first = markets[0]
        if (
            directory.plan(first).is_combo != combos
            or (place is not None and (first.created_us, event) >= place)
            or (series is not None and directory.plan(first).ticker != series)
            or (named and event not in named)
            or (status and not any(m.status_at(now) in STATUSES[status] for m in markets))
            or (least_close is not None and _latest_close(markets, now) <= least_close * SECOND_US)
            or (least_updated is not None and _updated(markets, now) <= least_updated * SECOND_US)
        ):
            continue
        if len(chosen) == limit:
            last, of_last = chosen[-1]
            cursor = make_cursor(of_last[0].created_us, last)
            break
        chosen.append((event, markets))
    views = [event_view(context, event, markets, nested=nested) for event, markets in chosen]
    return json_response({"events": views, "cursor": cursor})


def _latest_close(markets: list[Market], now: int) -> int:
    return max(market.close_at(now) for market in markets)


def _updated(markets: list[Market], now: int) -> int:
    return max(market.updated_at(now) for market in markets)


def _known(context: Context, event_ticker: str) -> list[Market]:
    context.exchange.directory.advance(context.exchange.clock.now())
    markets = context.exchange.directory.of_event(event_ticker)
    if not markets:
        raise not_found()
    return markets


async def one_event(request: Request) -> Response:
    """An event; its markets inside it or, as of old, beside it."""
    context = context_of(request)
    ticker = request.path_params["event_ticker"]
    markets = _known(context, ticker)
    if yes_or_no(request, "with_nested_markets"):
        return json_response({"event": event_view(context, ticker, markets, nested=True)})
    shown = [market for market in markets if market.settled_us >= context.exchange.cutoff_us]
    event = event_view(context, ticker, markets, nested=False)
    return json_response({"event": event, "markets": market_views(context, shown)})


async def event_metadata(request: Request) -> Response:
    """Pictures and sources of an event."""
    context = context_of(request)
    markets = _known(context, request.path_params["event_ticker"])
    sources = event_view(context, markets[0].event_ticker, markets, nested=False)
    return json_response(
        {
            "image_url": "",
            "settlement_sources": sources["settlement_sources"],
            "market_details": [
                {"market_ticker": market.ticker, "image_url": "", "color_code": ""}
                for market in markets
            ],
        }
    )


async def list_series(request: Request) -> Response:
    """All series; no paging."""
    context = context_of(request)
    category = request.query_params.get("category") or None
    tags = [tag for tag in request.query_params.get("tags", "").split(",") if tag]
    least = whole(request, "min_updated_ts")
    with_volume = yes_or_no(request, "include_volume") is True
    begins = context.exchange.state.begins_us
    plans = [
        plan
        for plan in context.exchange.layout.series
        if (category is None or plan.category == category)
        and (not tags or set(tags) & set(plan.tags))
        and (least is None or begins > least * SECOND_US)
    ]
    views = [series_view(context, plan, with_volume=with_volume) for plan in plans]
    return json_response({"series": views})


async def one_series(request: Request) -> Response:
    """One series."""
    context = context_of(request)
    with_volume = yes_or_no(request, "include_volume") is True
    for plan in context.exchange.layout.series:
        if plan.ticker == request.path_params["series_ticker"]:
            return json_response({"series": series_view(context, plan, with_volume=with_volume)})
    raise not_found()


routes = [
    Route("/trade-api/v2/events", list_events),
    Route("/trade-api/v2/events/multivariate", list_combos),
    Route("/trade-api/v2/events/{event_ticker}", one_event),
    Route("/trade-api/v2/events/{event_ticker}/metadata", event_metadata),
    Route("/trade-api/v2/series", list_series),
    Route("/trade-api/v2/series/{series_ticker}", one_series),
]
