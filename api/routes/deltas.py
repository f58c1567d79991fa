"""POST /deltas: changes of a market's order book, oldest first."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from api.auth import SECURITY, KeyedRoute
from api.completeness import Completeness
from api.database import ReadDatabase
from api.errors import never_recorded, problems
from api.feed_pages import FeedWindow, feed_rows
from api.feed_schemas import Delta
from api.inputs import Ticker
from api.markets import require_market
from api.pages import page_response
from api.schemas import Page
from kalshi_platform.storage.reads.deltas import DELTA_COLUMNS, deltas_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["order books"])


class DeltasQuery(FeedWindow):
    """Which changes. The window is half-open, [start_time, end_time)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "market_ticker": "KXHIGHNY-26NOV20-T50",
                    "start_time": "2026-11-20T18:00:00Z",
                    "end_time": "2026-11-20T19:00:00Z",
                    "limit": 1000,
                }
            ]
        },
    )

    market_ticker: Ticker
    limit: Annotated[int, Field(strict=True, ge=1, le=1000)] = 100


@router.post(
    "/deltas",
    response_model=Page[Delta],
    responses=problems(404, 413, 422),
    summary="Changes of a market's order book, oldest first",
)
async def list_deltas(query: DeltasQuery, request: Request) -> Response:
    """Every change of one price level, in the order (`ts`, arrival).

    Add `delta` to the contracts at that price and side; at 0 the level is gone. To replay a book,
    ask `POST /orderbook` for an instant, then the changes after it. `X-Data-Status` is `complete`
    where the book was watched throughout the window without losing a message, `gaps` where it was
    not: ask for the book anew behind a gap.
    """
    database: ReadDatabase = request.app.state.database
    completeness: Completeness = request.app.state.completeness
    page = await feed_rows(
        request.app.state.archive,
        "book_deltas",
        DELTA_COLUMNS,
        deltas_page,
        "deltas",
        query.market_ticker,
        query,
        query.limit,
    )
    watched = await completeness.of_book(query.market_ticker, query.start_time, query.end_time)
    if not page.rows and watched is None:
        await require_market(database, query.market_ticker, field="market_ticker")
        raise never_recorded(query.market_ticker)
    return page_response(request, page.rows, page.next_cursor, watched or "gaps")
