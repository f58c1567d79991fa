"""POST /trades: a market's trades, oldest first."""

from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.archive import archived_page
from api.auth import SECURITY, KeyedRoute
from api.completeness import Completeness
from api.cursors import BadCursor, decode_cursor, encode_cursor
from api.database import ReadDatabase
from api.errors import InvalidInput, problems
from api.inputs import Cursor, Instant, Ticker, from_unix_micros, unix_micros
from api.markets import require_market
from api.pages import page_response
from api.schemas import Page, Trade
from kalshi_platform.storage.reads.trades import (
    SEPARATOR,
    TRADE_COLUMNS,
    TradePosition,
    trades_page,
)

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["trades"])


class _Place(NamedTuple):
    """A TradePosition as it travels in a cursor."""

    traded_at_micros: int
    feed_order: int | None
    trade_id: UUID


class TradesQuery(BaseModel):
    """Which trades. The window is half-open, [start_time, end_time); an open side has no bound."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "market_ticker": "KXHIGHNY-26NOV20-T50",
                    "start_time": "2026-11-20T00:00:00Z",
                    "end_time": "2026-11-21T00:00:00Z",
                    "limit": 1000,
                }
            ]
        },
    )

    market_ticker: Ticker
    start_time: Instant | None = None
    end_time: Instant | None = None
    cursor: Cursor | None = None
    limit: Annotated[int, Field(strict=True, ge=1, le=1000)] = 100

    @model_validator(mode="after")
    def _window_runs_forward(self) -> "TradesQuery":
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            # Raised as the request's own problem: pydantic would not name a field here.
            raise InvalidInput("end_time must be later than start_time.", field="end_time")
        return self


@router.post(
    "/trades",
    response_model=Page[Trade],
    responses=problems(404, 413, 422),
    summary="A market's trades, oldest first",
)
async def list_trades(query: TradesQuery, request: Request) -> Response:
    """Every trade once, in the order (`ts`, sequence of the feed where known, `trade_id`).

    Page by sending `next_cursor` back as `cursor` with the same other fields (`limit` may differ).
    Without `start_time` and `end_time` the pages walk through the market's whole history.
    """
    database: ReadDatabase = request.app.state.database
    completeness: Completeness = request.app.state.completeness
    bound = ("trades", query.market_ticker, query.start_time, query.end_time)
    row = await archived_page(
        request.app.state.archive,
        "trades",
        [*TRADE_COLUMNS],
        trades_page,
        query.market_ticker,
        start=query.start_time,
        end=query.end_time,
        after=_position(query.cursor, bound),
        limit=query.limit,
    )
    text, found, feed_order = row
    if text is None:
        await require_market(database, query.market_ticker, field="market_ticker")
    rows, next_cursor = text or b"", None
    if int(found or 0) > query.limit:
        rows = rows[: rows.rindex(SEPARATOR)]
        next_cursor = encode_cursor(bound, _place_of_last(rows, feed_order))
    status = await completeness.of(query.start_time, query.end_time)
    return page_response(request, rows, next_cursor, status)


def _position(cursor: str | None, bound: tuple[object, ...]) -> TradePosition | None:
    if cursor is None:
        return None
    try:
        place = decode_cursor(cursor, bound, _Place)
        return TradePosition(
            from_unix_micros(place.traded_at_micros), place.feed_order, place.trade_id
        )
    except (BadCursor, OverflowError) as error:
        raise InvalidInput(f"cursor {error}.", field="cursor") from error


def _place_of_last(rows: bytes, feed_order: bytes | None) -> _Place:
    last: dict[str, Any] = msgspec.json.decode(rows[rows.rfind(SEPARATOR) + 1 :].lstrip())
    return _Place(
        unix_micros(datetime.fromisoformat(last["ts"])),
        None if feed_order is None else int(feed_order),
        UUID(last["trade_id"]),
    )
