"""GET /settlements and GET /settlements/{ticker}."""

from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import SECURITY, KeyedRoute
from api.cursors import TickerPlace
from api.errors import InvalidInput, OutcomePending, UnknownMarket, problems
from api.inputs import (
    Cursor,
    EventTicker,
    Instant,
    Limit,
    SeriesTicker,
    Ticker,
    from_unix_micros,
)
from api.lists import list_page, position_in, record_of
from api.pages import record_response
from api.reference_schemas import Settlement, SettlementDetail
from api.schemas import Page, Record
from kalshi_platform.storage.reads.settlements import (
    SETTLEMENT_BY_TICKER,
    SettlementFilters,
    settlements_page,
)

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["settlements"])


class _Place(NamedTuple):
    """Where an outcome stands, as it travels in a cursor."""

    effective_at_micros: int
    market_ticker: TickerPlace


class SettlementsQuery(BaseModel):
    """Which outcomes; all filters must hold. The window of `effective_at` is half-open."""

    model_config = ConfigDict(extra="forbid")

    result: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=50,
            pattern=r"^[^\x00-\x1f\x7f]+$",
            description="`yes`, `no`, `scalar`, `void`, …: Kalshi may add others.",
            examples=["yes"],
        ),
    ] = None
    status: Annotated[
        Literal["determined", "disputed", "amended", "finalized"] | None,
        Field(description="Only `finalized` is final."),
    ] = None
    event_ticker: EventTicker | None = None
    series_ticker: SeriesTicker | None = None
    start_time: Annotated[
        Instant | None, Field(description="First instant of the window of `effective_at`.")
    ] = None
    end_time: Annotated[
        Instant | None, Field(description="First instant after the window of `effective_at`.")
    ] = None
    cursor: Cursor | None = None
    limit: Limit = 100

    @model_validator(mode="after")
    def _window_runs_forward(self) -> "SettlementsQuery":
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            raise InvalidInput("end_time must be later than start_time.", field="end_time")
        return self

    def filters(self) -> SettlementFilters:
        return SettlementFilters(
            result=self.result,
            status=self.status,
            event_ticker=self.event_ticker,
            series_ticker=self.series_ticker,
            start=self.start_time,
            end=self.end_time,
        )


@router.get(
    "/settlements",
    response_model=Page[Settlement],
    responses=problems(422),
    summary="Outcomes, oldest first",
)
async def list_settlements(
    query: Annotated[SettlementsQuery, Query()], request: Request
) -> Response:
    """The outcome of each market as it stands, in the order (`effective_at`, `market_ticker`).

    An outcome that changes while you page (determined, then amended or final) moves to its new
    `effective_at`, later in the order, and may be met again. To follow outcomes, begin each walk
    some time before the end of the last: messages come late, and times are made exact afterwards.
    """
    filters = query.filters()
    bound = ("settlements", filters)
    place = position_in(query.cursor, bound, _Place)
    try:
        after = place and (from_unix_micros(place.effective_at_micros), place.market_ticker)
    except OverflowError as error:
        raise InvalidInput("cursor is none of ours.", field="cursor") from error
    page = settlements_page(filters, after=after, limit=query.limit)
    return await list_page(request, page, bound=bound, limit=query.limit)


@router.get(
    "/settlements/{ticker}",
    response_model=Record[SettlementDetail],
    responses=problems(404, 422),
    summary="One market's outcome with its history",
)
async def get_settlement(ticker: Annotated[Ticker, Path()], request: Request) -> Response:
    """The outcome in force and every version it had.

    404 for a market without an outcome says so (`outcome_pending`), and since when it is closed.
    """
    row = await record_of(request, SETTLEMENT_BY_TICKER, ticker)
    if row is None:
        raise UnknownMarket(f"ticker: no market {ticker!r} is known.", field="ticker")
    record, closed_at = row
    if record is None:
        since = None if closed_at is None else closed_at.decode()
        raise OutcomePending(
            f"ticker: {ticker!r} has no outcome yet; "
            + (f"it has been closed since {since}." if since else "it is not known to be closed."),
            field="ticker",
            members={"closed_at": since},
        )
    return record_response(request, record)
