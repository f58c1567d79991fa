"""GET /series and GET /series/{ticker}."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from api.auth import SECURITY, KeyedRoute
from api.cursors import TickerPlace
from api.errors import UnknownSeries, problems
from api.inputs import Category, Cursor, Limit, Search, SeriesTicker, Tag
from api.lists import list_page, position_in, record_of
from api.pages import record_response
from api.reference_schemas import Series, SeriesDetail
from api.schemas import Page, Record
from kalshi_platform.storage.reads.series import SERIES_BY_TICKER, SeriesFilters, series_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["series"])


class SeriesQuery(BaseModel):
    """Which series; all filters must hold. Any of a series' categories and tags counts."""

    model_config = ConfigDict(extra="forbid")

    category: Category | None = None
    tag: Tag | None = None
    search: Search | None = None
    cursor: Cursor | None = None
    limit: Limit = 100

    def filters(self) -> SeriesFilters:
        return SeriesFilters(category=self.category, tag=self.tag, search=self.search)


@router.get(
    "/series", response_model=Page[Series], responses=problems(422), summary="Series, by ticker"
)
async def list_series(query: Annotated[SeriesQuery, Query()], request: Request) -> Response:
    """Every series of events that is known, in the order of tickers."""
    filters = query.filters()
    bound = ("series", filters)
    after = position_in(query.cursor, bound, TickerPlace)
    page = series_page(filters, after=after, limit=query.limit)
    return await list_page(request, page, bound=bound, limit=query.limit)


@router.get(
    "/series/{ticker}",
    response_model=Record[SeriesDetail],
    responses=problems(404, 422),
    summary="One series",
)
async def get_series(ticker: Annotated[SeriesTicker, Path()], request: Request) -> Response:
    """A series; 404 says whether no event names it or the exchange itself has none like it."""
    row = await record_of(request, SERIES_BY_TICKER, ticker)
    if row is None:
        raise UnknownSeries(f"ticker: no event has named a series {ticker!r}.", field="ticker")
    record, not_found_at = row
    assert record is not None, "a row of a series makes a record"
    if not_found_at is not None:
        asked_at = not_found_at.decode()
        raise UnknownSeries(
            f"ticker: events name {ticker!r}, but the exchange has no such series"
            f" (asked at {asked_at}).",
            field="ticker",
            members={"asked_at": asked_at},
        )
    return record_response(request, record)
