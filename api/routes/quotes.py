"""GET /quotes/{ticker}: every ticker message of a market, oldest first."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.auth import SECURITY, KeyedRoute
from api.completeness import Completeness
from api.database import ReadDatabase
from api.errors import problems
from api.feed_pages import FeedWindow, feed_rows
from api.feed_schemas import Quote
from api.inputs import Limit, Ticker
from api.markets import require_market
from api.pages import page_response
from api.schemas import Page
from kalshi_platform.storage.reads.quotes import QUOTE_COLUMNS, quotes_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["quotes"])


class QuotesQuery(FeedWindow):
    """Which quotes; see the parameters' descriptions."""

    limit: Limit = 100


@router.get(
    "/quotes/{ticker}",
    response_model=Page[Quote],
    responses=problems(404, 422),
    summary="A market's best bid and ask, oldest first",
)
async def list_quotes(
    ticker: Annotated[Ticker, Path()], query: Annotated[QuotesQuery, Query()], request: Request
) -> Response:
    """Every ticker message of the market, in the order (`ts`, arrival).

    The exchange sends one when a price, a size, the volume or the open interest changes, and one
    at the start of each subscription. A quote holds until the next. `X-Data-Status` says `gaps`
    where some were lost, or the window begins before anything was recorded.
    """
    database: ReadDatabase = request.app.state.database
    completeness: Completeness = request.app.state.completeness
    page = await feed_rows(
        request.app.state.archive,
        "quotes",
        QUOTE_COLUMNS,
        quotes_page,
        "quotes",
        ticker,
        query,
        query.limit,
    )
    if not page.rows:
        await require_market(database, ticker, field="ticker")
    status = await completeness.of_quotes(ticker, query.start_time, query.end_time)
    return page_response(request, page.rows, page.next_cursor, status)
