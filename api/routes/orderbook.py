"""POST /orderbook: a market's order book at an instant."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.archive import Archive
from api.archived_books import archived_book, book_held
from api.auth import SECURITY, KeyedRoute
from api.completeness import DataStatus
from api.database import ReadDatabase
from api.errors import BookNotRecorded, InvalidInput, never_recorded, problems
from api.feed_schemas import OrderBook
from api.inputs import Instant, Ticker
from api.markets import require_market
from api.pages import record_response
from api.schemas import Record

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["order books"])


class OrderBookQuery(BaseModel):
    """Whose book, when, and how much of it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "market_ticker": "KXHIGHNY-26NOV20-T50",
                    "timestamp": "2026-11-20T18:00:00Z",
                    "depth": 10,
                }
            ]
        },
    )

    market_ticker: Ticker
    timestamp: Annotated[
        Instant | None, Field(description="Not in the future; now if left out.")
    ] = None
    depth: Annotated[
        int | None,
        Field(strict=True, ge=1, le=1000, description="Levels of each side; all if left out."),
    ] = None


@router.post(
    "/orderbook",
    response_model=Record[OrderBook],
    responses=problems(404, 413, 422),
    summary="A market's order book at an instant",
)
async def get_orderbook(query: OrderBookQuery, request: Request) -> Response:
    """Both sides as they stood, with every change up to and including `timestamp`.

    Both sides are bids: who bids for no at 0.60 offers yes at 0.40, so `yes_asks` are the
    `no_bids` the other way round. Where `gap` is true, something was lost or the book was not
    watched: the levels are the last that are known, and `gap_reason` says why. A book is rebuilt
    from a snapshot (`snapshot_at`) and the changes since.
    """
    database: ReadDatabase = request.app.state.database
    now = datetime.now(UTC)
    at = query.timestamp or now
    if at > now:
        raise InvalidInput(
            "timestamp lies in the future; leave it out for the newest book.", field="timestamp"
        )
    archive: Archive = request.app.state.archive
    record, in_gap, *_ = await archived_book(archive, query.market_ticker, at, depth=query.depth)
    if record is None:
        await require_market(database, query.market_ticker, field="market_ticker")
        raise await _unknown_book(archive, query.market_ticker, at)
    status: DataStatus = "gaps" if in_gap == b"t" else "complete"
    return record_response(request, record, status)


async def _unknown_book(archive: Archive, market_ticker: str, at: datetime) -> BookNotRecorded:
    """Why there is no book: never recorded, not yet, or held no more."""
    held_since, watched_since = await book_held(archive, market_ticker)
    if held_since is not None and datetime.fromisoformat(held_since) > at:
        return BookNotRecorded(
            f"timestamp: the order book of {market_ticker!r} is held from {held_since} on.",
            field="timestamp",
            members={"held_since": held_since},
        )
    if watched_since is not None:
        return BookNotRecorded(
            f"timestamp: the order book of {market_ticker!r} was recorded from {watched_since} on,"
            " but is held no more: books are kept for some days.",
            field="timestamp",
        )
    return never_recorded(market_ticker)
