"""GET /events and GET /events/{event_ticker}."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import SECURITY, KeyedRoute
from api.cursors import TickerPlace
from api.errors import UnknownEvent, problems
from api.inputs import Category, Cursor, EventTicker, Limit, Search, SeriesTicker
from api.lists import list_page, position_in, record_of
from api.pages import record_response
from api.reference_schemas import Event, EventDetail
from api.schemas import Page, Record
from kalshi_platform.storage.reads.events import EVENT_BY_TICKER, EventFilters, events_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["events"])


class EventsQuery(BaseModel):
    """Which events; all filters must hold."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[
        Literal["open", "closed", "settled"] | None,
        Field(
            description="`open` while one of its markets trades or will, `settled` once all are"
            " final, `closed` in between."
        ),
    ] = None
    series_ticker: SeriesTicker | None = None
    category: Category | None = None
    search: Search | None = None
    cursor: Cursor | None = None
    limit: Limit = 100

    def filters(self) -> EventFilters:
        return EventFilters(
            status=self.status,
            series_ticker=self.series_ticker,
            category=self.category,
            search=self.search,
        )


@router.get(
    "/events", response_model=Page[Event], responses=problems(422), summary="Events, by ticker"
)
async def list_events(query: Annotated[EventsQuery, Query()], request: Request) -> Response:
    """Every event that the exchange lists or a market names, in the order of tickers.

    Its status follows from the markets that are known here; without any it is null.
    """
    filters = query.filters()
    bound = ("events", filters)
    after = position_in(query.cursor, bound, TickerPlace)
    page = events_page(filters, after=after, limit=query.limit)
    return await list_page(request, page, bound=bound, limit=query.limit)


@router.get(
    "/events/{event_ticker}",
    response_model=Record[EventDetail],
    responses=problems(404, 422),
    summary="One event with its markets",
)
async def get_event(event_ticker: Annotated[EventTicker, Path()], request: Request) -> Response:
    """An event and its markets by ticker, 1,000 at most: `market_count` says how many there are,
    and `GET /markets?event_ticker=` pages through them."""
    row = await record_of(request, EVENT_BY_TICKER, event_ticker)
    if row is None or row[0] is None:
        raise UnknownEvent(
            f"event_ticker: no event {event_ticker!r} is known.", field="event_ticker"
        )
    return record_response(request, row[0])
