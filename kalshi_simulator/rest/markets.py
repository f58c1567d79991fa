"""Markets: lists with the exchange's filter rules (protocol 3.2), single ones, order books."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import (
    bad_request,
    json_response,
    limited,
    make_cursor,
    not_found,
    read_cursor,
    whole,
)
from kalshi_simulator.rest.choosing import Test, filters, live_candidates, named, narrowing
from kalshi_simulator.rest.context import Context, context_of
from kalshi_simulator.rest.sight import Sight
from kalshi_simulator.rest.views import book_view
from kalshi_simulator.standing import books_of


async def list_markets(request: Request) -> Response:
    """Markets of the live tier, newest first."""
    context = context_of(request)
    sight = context.sight()
    tests = filters(request, context, sight)
    cutoff = context.exchange.cutoff_us
    tests += [sight.shows, lambda market: market.settled_us >= cutoff]
    found = live_candidates(request, context, sight)
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
    tests = narrowing(request, context)
    tests.append(lambda market: market.settled_us < cutoff)
    found = named(request, context)
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
    [book] = books_of(context.exchange.layout, [market], context.feed.at_us)
    return json_response({"orderbook_fp": book_view(book, depth)})


async def order_books(request: Request) -> Response:
    """The books of several markets; unknown tickers are left out."""
    context = context_of(request)
    tickers = request.query_params.getlist("tickers")
    if not 1 <= len(tickers) <= 100:
        raise bad_request("between 1 and 100 tickers are required")
    find = context.exchange.directory.find
    markets = [market for ticker in tickers if (market := find(ticker)) is not None]
    books = books_of(context.exchange.layout, markets, context.feed.at_us)
    pairs = zip(markets, books, strict=True)
    found = [{"ticker": market.ticker, "orderbook_fp": book_view(book)} for market, book in pairs]
    return json_response({"orderbooks": found})


routes = [
    Route("/trade-api/v2/markets", list_markets),
    Route("/trade-api/v2/markets/orderbooks", order_books),
    Route("/trade-api/v2/markets/{ticker}", one_market),
    Route("/trade-api/v2/markets/{ticker}/orderbook", order_book),
    Route("/trade-api/v2/historical/markets", list_historical),
    Route("/trade-api/v2/historical/markets/{ticker}", one_historical),
]
