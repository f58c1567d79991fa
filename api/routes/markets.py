"""GET /markets and GET /markets/{ticker}."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import SECURITY, KeyedRoute
from api.cursors import TickerPlace
from api.errors import InvalidInput, UnknownMarket, problems
from api.inputs import Category, Cursor, EventTicker, Instant, Limit, Search, SeriesTicker, Ticker
from api.lists import list_page, position_in
from api.markets import market_record
from api.pages import record_response
from api.reference_schemas import Market, MarketDetail
from api.schemas import Page, Record
from kalshi_platform.storage.reads.markets import MarketFilters, markets_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["markets"])


class MarketsQuery(BaseModel):
    """Which markets; all filters must hold."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[
        Literal[
            "initialized",
            "active",
            "inactive",
            "closed",
            "determined",
            "disputed",
            "amended",
            "finalized",
        ]
        | None,
        Field(description="Status at this instant."),
    ] = None
    event_ticker: EventTicker | None = None
    series_ticker: SeriesTicker | None = None
    category: Annotated[
        Category | None, Field(description="The category of the market's series.")
    ] = None
    min_close_time: Annotated[
        Instant | None, Field(description="First instant at which trading may end.")
    ] = None
    max_close_time: Annotated[
        Instant | None, Field(description="First instant at which it does not end any more.")
    ] = None
    is_combo: Annotated[
        bool | None, Field(description="Only combos (`KXMVE…`), or only ordinary markets.")
    ] = None
    search: Search | None = None
    cursor: Cursor | None = None
    limit: Limit = 100

    @model_validator(mode="after")
    def _window_runs_forward(self) -> "MarketsQuery":
        if (
            self.min_close_time
            and self.max_close_time
            and self.min_close_time >= self.max_close_time
        ):
            raise InvalidInput(
                "max_close_time must be later than min_close_time.", field="max_close_time"
            )
        return self

    def filters(self) -> MarketFilters:
        return MarketFilters(
            status=self.status,
            event_ticker=self.event_ticker,
            series_ticker=self.series_ticker,
            category=self.category,
            closes_from=self.min_close_time,
            closes_to=self.max_close_time,
            is_combo=self.is_combo,
            search=self.search,
        )


@router.get(
    "/markets", response_model=Page[Market], responses=problems(422), summary="Markets, by ticker"
)
async def list_markets(query: Annotated[MarketsQuery, Query()], request: Request) -> Response:
    """Every market that was ever seen; combos once they have traded.

    In the order of tickers, which never change: a walk over all pages meets each market that was
    known when it began exactly once. Statuses go on changing meanwhile.
    """
    filters = query.filters()
    bound = ("markets", filters)
    after = position_in(query.cursor, bound, TickerPlace)
    page = markets_page(filters, after=after, limit=query.limit)
    return await list_page(request, page, bound=bound, limit=query.limit)


@router.get(
    "/markets/{ticker}",
    response_model=Record[MarketDetail],
    responses=problems(404, 422),
    summary="One market",
)
async def get_market(ticker: Annotated[Ticker, Path()], request: Request) -> Response:
    """A market with its outcome, its newest quote, and from when to when trades of it are held.

    One that was only named so far, by a trade a moment ago, has null where nothing is known yet.
    """
    record = await market_record(request.app.state.archive, ticker)
    if record is None:
        raise UnknownMarket(f"ticker: no market {ticker!r} is known.", field="ticker")
    return record_response(request, record)
