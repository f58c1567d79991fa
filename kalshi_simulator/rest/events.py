"""Events and series."""

from __future__ import annotations

from bisect import bisect_left

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.markets import Event, Market
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
from kalshi_simulator.rest.choosing import STATUSES
from kalshi_simulator.rest.context import Context, context_of
from kalshi_simulator.rest.sight import Sight
from kalshi_simulator.rest.views import event_view, series_view


async def list_events(request: Request) -> Response:
    """Ordinary events, newest first."""
    return _events(request, combos=False, default=200)


async def list_combos(request: Request) -> Response:
    """Multivariate events, newest first."""
    return _events(request, combos=True, default=100)


def _events(request: Request, *, combos: bool, default: int) -> Response:
    context = context_of(request)
    directory = context.exchange.directory
    sight = context.sight()
    limit = limited(request, default, 200)
    status = request.query_params.get("status") or None
    if status is not None and status not in STATUSES:
        raise bad_request("invalid status filter")
    series = request.query_params.get("series_ticker") or None
    named = {part for part in request.query_params.get("tickers", "").split(",") if part}
    least_close = whole(request, "min_close_ts")
    least_updated = whole(request, "min_updated_ts")
    nested = yes_or_no(request, "with_nested_markets") is True
    place = read_cursor(request, tuple[int, str])
    events = directory.events()
    if named:
        found = [event for name in named if (event := directory.event(name)) is not None]
        events = sorted(found, key=lambda event: event.place)
    end = len(events)
    if place is not None:
        end = bisect_left(events, place, key=lambda event: event.place)
    chosen: list[Event] = []
    cursor = ""
    for number in range(end - 1, -1, -1):
        event = events[number]
        plan = directory.plan(event.markets[0])
        if (
            plan.is_combo != combos
            or not sight.shows_event(event)
            or (
                least_updated is not None
                and event.updated_at(sight.at_us) <= least_updated * SECOND_US
            )
            or (series is not None and plan.named != series)
            or (status is not None and not _has_status(event, sight, STATUSES[status]))
            or (least_close is not None and _latest_close(event, sight) <= least_close * SECOND_US)
        ):
            continue
        if len(chosen) == limit:
            cursor = make_cursor(*chosen[-1].place)
            break
        chosen.append(event)
    views = [event_view(context.exchange, event, sight.at_us) for event in chosen]
    if nested:
        for event, view in zip(chosen, views, strict=True):
            view["markets"] = context.views(sight, _shown(context, sight, event))
    return json_response({"events": views, "cursor": cursor})


def _has_status(event: Event, sight: Sight, wanted: tuple[str, ...]) -> bool:
    return any(market.status_at(sight.of(market)) in wanted for market in event.markets)


def _latest_close(event: Event, sight: Sight) -> int:
    return max(market.close_at(sight.of(market)) for market in event.markets)


def _shown(context: Context, sight: Sight, event: Event) -> list[Market]:
    """The markets of an event that the live tier shows."""
    cutoff = context.exchange.cutoff_us
    return [m for m in event.markets if m.settled_us >= cutoff and sight.shows(m)]


def _known(context: Context, sight: Sight, event_ticker: str) -> Event:
    event = context.exchange.directory.event(event_ticker)
    if event is None:
        raise not_found()
    if not sight.shows_event(event):
        context.note_hidden()
        raise not_found()
    return event


async def one_event(request: Request) -> Response:
    """An event; its markets inside it or, as of old, beside it."""
    context = context_of(request)
    sight = context.sight()
    event = _known(context, sight, request.path_params["event_ticker"])
    view = event_view(context.exchange, event, sight.at_us)
    markets = context.views(sight, _shown(context, sight, event))
    if yes_or_no(request, "with_nested_markets"):
        return json_response({"event": {**view, "markets": markets}})
    return json_response({"event": view, "markets": markets})


async def event_metadata(request: Request) -> Response:
    """Pictures and sources of an event."""
    context = context_of(request)
    sight = context.sight()
    event = _known(context, sight, request.path_params["event_ticker"])
    view = event_view(context.exchange, event, sight.at_us)
    return json_response(
        {
            "image_url": "",
            "settlement_sources": view["settlement_sources"],
            "market_details": [
                {"market_ticker": market.ticker, "image_url": "", "color_code": ""}
                for market in event.markets
            ],
        }
    )


async def list_series(request: Request) -> Response:
    """All series; no paging."""
    context = context_of(request)
    sight = context.sight()
    category = request.query_params.get("category") or None
    tags = [tag for tag in request.query_params.get("tags", "").split(",") if tag]
    least = whole(request, "min_updated_ts")
    with_volume = yes_or_no(request, "include_volume") is True
    begins = context.exchange.state.begins_us
    plans = [
        plan
        for plan in context.exchange.directory.series
        if (category is None or plan.category == category)
        and (not tags or set(tags) & set(plan.tags))
        and (least is None or begins > least * SECOND_US)
    ]
    views = [
        series_view(context.exchange, plan, sight.at_us, with_volume=with_volume) for plan in plans
    ]
    return json_response({"series": views})


async def one_series(request: Request) -> Response:
    """One series; some that events name are not there."""
    context = context_of(request)
    with_volume = yes_or_no(request, "include_volume") is True
    at = context.sight().at_us
    for plan in context.exchange.directory.series:
        if plan.ticker == request.path_params["series_ticker"]:
            view = series_view(context.exchange, plan, at, with_volume=with_volume)
            return json_response({"series": view})
    raise not_found()


routes = [
    Route("/trade-api/v2/events", list_events),
    Route("/trade-api/v2/events/multivariate", list_combos),
    Route("/trade-api/v2/events/{event_ticker}", one_event),
    Route("/trade-api/v2/events/{event_ticker}/metadata", event_metadata),
    Route("/trade-api/v2/series", list_series),
    Route("/trade-api/v2/series/{series_ticker}", one_series),
]
