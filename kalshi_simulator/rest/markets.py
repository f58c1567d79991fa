"""Markets: lists with the exchange's filter rules (protocol 3.2), single ones, order books."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.figures import SECOND_US, dollars, fixed_point
from kalshi_simulator.markets import Market
from kalshi_simulator.quotes import STEP_US, book_at
from kalshi_simulator.rest.answers import (
    bad_request,
    json_response,
    limited,
    make_cursor,
    not_found,
    read_cursor,
    whole,
)
from kalshi_simulator.rest.context import Context, context_of
from kalshi_simulator.rest.sight import Sight
from kalshi_simulator.schedule import SETTLEMENT_TOLD_US

STATUSES = {
    "unopened": ("initialized",),
    "open": ("active",),
    "paused": ("inactive",),
    "closed": ("closed", "determined", "disputed", "amended"),
    "settled": ("finalized",),
}
_STATUS_WITH = {
    "created": ("unopened", "open", None),
    "close": ("closed", None),
    "settled": ("settled", None),
    "updated": (None,),
}
Test = Callable[[Market], bool]
_EVER_US = 1 << 62


async def list_markets(request: Request) -> Response:
    """Markets of the live tier, newest first."""
    context = context_of(request)
    sight = context.sight()
    tests = _filters(request, context, sight)
    cutoff = context.exchange.cutoff_us
    tests += [sight.shows, lambda market: market.settled_us >= cutoff]
    found = _live_candidates(request, context, sight)
    return _page(request, context, sight, found, tests)


async def list_historical(request: Request) -> Response:
    """Markets settled before the cutoff, newest first."""
    context = context_of(request)
    names = ("tickers", "event_ticker", "series_ticker", "mve_filter")
    given = [name for name in names if request.query_params.get(name)]
    if len(given) > 1:
        raise bad_request("only one of tickers, event_ticker, series_ticker, mve_filter")
    if request.query_params.get("mve_filter") not in (None, "", "exclude"):
        raise bad_request("invalid mve_filter")
    sight = context.sight()
    cutoff = context.exchange.cutoff_us
    tests = _narrowing(request, context)
    tests.append(lambda market: market.settled_us < cutoff)
    found = _named(request, context)
    if found is None:
        found = context.exchange.directory.created_between(0, cutoff)
    return _page(request, context, sight, found, tests, is_historical=True)


def _page(
    request: Request,
    context: Context,
    sight: Sight,
    candidates: Sequence[Market],
    tests: Sequence[Test],
    *,
    is_historical: bool = False,
) -> Response:
    """One page of the candidates that pass the tests; they come in order of creation."""
    limit = limited(request, 100, 1_000)
    place = read_cursor(request, tuple[int, str])
    end = len(candidates)
    if place is not None:
        end = bisect_left(candidates, place, key=lambda market: market.place)
    chosen: list[Market] = []
    cursor = ""
    for number in range(end - 1, -1, -1):
        market = candidates[number]
        if all(test(market) for test in tests):
            if len(chosen) == limit:
                cursor = make_cursor(*chosen[-1].place)
                break
            chosen.append(market)
    views = context.views(sight, chosen, is_historical=is_historical)
    return json_response({"markets": views, "cursor": cursor})


def _named(request: Request, context: Context) -> Sequence[Market] | None:
    """The markets of the tickers, event or series asked for; None when none is named."""
    directory = context.exchange.directory
    tickers = _list(request, "tickers")
    if tickers:
        found = [market for ticker in tickers if (market := directory.find(ticker)) is not None]
        return sorted(set(found), key=lambda market: market.place)
    event = request.query_params.get("event_ticker")
    if event:
        return directory.of_event(event)
    series = request.query_params.get("series_ticker")
    return directory.of_series(series) if series else None


def _live_candidates(request: Request, context: Context, sight: Sight) -> Sequence[Market]:
    """As few markets as hold all that the parameters choose, in order of creation.

    Without this, each page would look at every market there ever was.
    """
    directory = context.exchange.directory
    low, high = (
        {name: whole(request, f"{end}_{name}_ts") for name in _STATUS_WITH}
        for end in ("min", "max")
    )

    def bound(bounds: dict[str, int | None], name: str, otherwise: int) -> int:
        value = bounds[name]
        return otherwise if value is None else value * SECOND_US

    if low["updated"] is not None:
        return directory.changes.between(
            bound(low, "updated", 0), min(sight.at_us, bound(high, "updated", sight.at_us))
        )
    if low["settled"] is not None:
        end = bound(high, "settled", sight.at_us) + SETTLEMENT_TOLD_US
        return directory.changes.between(bound(low, "settled", 0), min(sight.at_us, end))
    if low["close"] is not None and high["close"] is not None:
        return directory.closes.between(bound(low, "close", 0), bound(high, "close", 0))
    named = _named(request, context)
    if named is not None:
        return named
    if low["created"] is not None or high["created"] is not None:
        end = bound(high, "created", _EVER_US) + 1
        return directory.created_between(bound(low, "created", 0), end)
    if request.query_params.get("status") in ("unopened", "open", "paused", "closed"):
        return directory.unsettled(min(sight.at_us, sight.told_us))
    return directory.all()


def _list(request: Request, name: str) -> list[str]:
    text = request.query_params.get(name, "")
    return [part for part in text.split(",") if part]


def _narrowing(request: Request, context: Context) -> list[Test]:
    """Tests for tickers, events, series and combos."""
    directory = context.exchange.directory
    tests: list[Test] = []
    tickers = set(_list(request, "tickers"))
    if tickers:
        tests.append(lambda market: market.ticker in tickers)
    event = request.query_params.get("event_ticker", "")
    if "," in event:
        raise bad_request("only one event_ticker is supported")
    if event:
        tests.append(lambda market: market.event_ticker == event)
    series = request.query_params.get("series_ticker")
    if series:
        tests.append(lambda market: directory.plan(market).ticker == series)
    combos = request.query_params.get("mve_filter")
    if combos not in (None, "", "only", "exclude"):
        raise bad_request("invalid mve_filter")
    if combos:
        tests.append(lambda market: directory.plan(market).is_combo == (combos == "only"))
    return tests


def _filters(request: Request, context: Context, sight: Sight) -> list[Test]:
    """Tests for everything a live list may be narrowed by; 400 for what does not go together."""
    query = request.query_params
    status = query.get("status") or None
    if status is not None and status not in STATUSES:
        raise bad_request("invalid status filter")
    tests = _narrowing(request, context)
    if status is not None:
        wanted = STATUSES[status]
        tests.append(lambda market: market.status_at(sight.of(market)) in wanted)
    families = [
        family
        for family in _STATUS_WITH
        if query.get(f"min_{family}_ts") or query.get(f"max_{family}_ts")
    ]
    if len(families) > 1:
        raise bad_request("timestamp filters are mutually exclusive")
    for family in families:
        if status not in _STATUS_WITH[family]:
            raise bad_request(f"{family} timestamp filters cannot be used with status {status}")
        if family == "updated":
            if query.get("tickers") or query.get("event_ticker"):
                raise bad_request("updated timestamp filters only go with series_ticker")
            if query.get("mve_filter") == "only" or (
                query.get("series_ticker") and query.get("mve_filter") != "exclude"
            ):
                raise bad_request("updated timestamp filters need mve_filter=exclude")
        tests.append(_time_test(request, family, sight))
    return tests


def _time_test(request: Request, family: str, sight: Sight) -> Test:
    least, most = whole(request, f"min_{family}_ts"), whole(request, f"max_{family}_ts")
    low = -1 if least is None else least * SECOND_US
    high = _EVER_US if most is None else most * SECOND_US

    def settled(market: Market) -> int:
        return market.settled_us if market.finalized_us <= sight.of(market) else -2

    moment_of: Callable[[Market], int] = {
        "created": lambda market: market.created_us,
        "close": lambda market: market.close_at(sight.of(market)),
        "settled": settled,
        "updated": lambda market: market.updated_at(sight.of(market)),
    }[family]
    # "later than" and "at or before".
    return lambda market: low < moment_of(market) <= high


async def one_market(request: Request) -> Response:
    """A market of the live tier."""
    context = context_of(request)
    market = context.market(request.path_params["ticker"])
    return json_response({"market": context.views(context.sight(), [market])[0]})


async def one_historical(request: Request) -> Response:
    """A market of the historical tier."""
    context = context_of(request)
    sight = context.sight()
    market = context.exchange.directory.find(request.path_params["ticker"])
    if market is None or market.settled_us >= context.exchange.cutoff_us:
        raise not_found()
    return json_response({"market": context.views(sight, [market], is_historical=True)[0]})


async def order_book(request: Request) -> Response:
    """The book of a market; both sides are always there, empty lists when nothing rests."""
    context = context_of(request)
    depth = whole(request, "depth") or 0
    if not 0 <= depth <= 100:
        raise bad_request("depth must be between 0 and 100")
    market = context.market(request.path_params["ticker"])
    return json_response({"orderbook_fp": _book(context, market, depth)})


async def order_books(request: Request) -> Response:
    """The books of several markets; unknown tickers are left out."""
    context = context_of(request)
    tickers = request.query_params.getlist("tickers")
    if not 1 <= len(tickers) <= 100:
        raise bad_request("between 1 and 100 tickers are required")
    find = context.exchange.directory.find
    markets = [market for ticker in tickers if (market := find(ticker)) is not None]
    books = [
        {"ticker": market.ticker, "orderbook_fp": _book(context, market, 0)} for market in markets
    ]
    return json_response({"orderbooks": books})


def _book(context: Context, market: Market, depth: int) -> dict[str, list[list[str]]]:
    at = context.feed.at_us // STEP_US * STEP_US
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    if market.status_at(at) in ("active", "inactive") and not market.is_dormant:
        sides = book_at(context.exchange.layout, market.slot, at)
    yes, no = (
        [[dollars(e4), fixed_point(side[e4])] for e4 in sorted(side)][-depth if depth else 0 :]
        for side in sides
    )
    return {"yes_dollars": yes, "no_dollars": no}


routes = [
    Route("/trade-api/v2/markets", list_markets),
    Route("/trade-api/v2/markets/orderbooks", order_books),
    Route("/trade-api/v2/markets/{ticker}", one_market),
    Route("/trade-api/v2/markets/{ticker}/orderbook", order_book),
    Route("/trade-api/v2/historical/markets", list_historical),
    Route("/trade-api/v2/historical/markets/{ticker}", one_historical),
]
