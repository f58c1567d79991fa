"""GET /coverage and GET /coverage/{ticker}: what is complete, and what is known to be missing."""

import datetime
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import SECURITY, KeyedRoute
from api.database import ReadDatabase
from api.errors import InvalidInput, problems
from api.inputs import EARLIEST, LATEST, Cursor, Limit, Ticker
from api.lists import list_page, position_in
from api.markets import require_market
from api.schemas import Contracts, Number, Page, Shape, UtcInstant
from kalshi_platform.storage.reads.coverage import coverage_page, market_coverage_page

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["coverage"])

_Day = Annotated[datetime.date, Field(ge=EARLIEST.date(), le=LATEST.date())]
_DAY = Field(description="UTC day.", examples=["2026-11-20"])
_STATUS = Field(
    description="Of the day's trades. `proven`: the exchange's own record holds no other; "
    "`healed`: it held some that had been missed, which were added; `degraded`: some are known to "
    "be missing; `unknown`: not compared yet."
)


class Place(NamedTuple):
    """The last day of a page, as it travels in a cursor."""

    day: datetime.date


class CoverageQuery(BaseModel):
    """Which days."""

    model_config = ConfigDict(extra="forbid")

    date: Annotated[
        _Day | None, Field(description="One UTC day; all of them if left out.")
    ] = None  # fmt: skip
    cursor: Cursor | None = None
    limit: Limit = 100


class MarketCoverageQuery(BaseModel):
    """Which days of a market: first and last UTC day, both included."""

    model_config = ConfigDict(extra="forbid")

    start_date: Annotated[_Day | None, Field(description="First UTC day.")] = None
    end_date: Annotated[_Day | None, Field(description="Last UTC day, included.")] = None
    cursor: Cursor | None = None
    limit: Limit = 100

    @model_validator(mode="after")
    def _days_run_forward(self) -> "MarketCoverageQuery":
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise InvalidInput("end_date must not be before start_date.", field="end_date")
        return self


class Gap(Shape):
    """An interval in which a channel of the feed may have lost something."""

    channel: str = Field(
        description="`trade`, `ticker` (quotes), `orderbook_delta`, or a channel of lifecycles.",
        examples=["trade"],
    )
    market_ticker: str | None = Field(description="The one market concerned; null: all.")
    cause: str = Field(examples=["disconnect: connection lost"])
    status: Literal["open", "healed", "explained"] = Field(
        description="`open`: being fetched; `healed`: what was missed is there; `explained`: the "
        "exchange keeps no history of this channel, what was missed cannot be fetched."
    )
    starts_at: UtcInstant = Field(description="Last instant known to be complete.")
    ends_at: UtcInstant = Field(description="First instant known to be complete again.")
    healed_at: UtcInstant | None = Field(description="Null where it is not, or cannot be.")
    trades_missing: int | None = Field(description="Trades that healing added.", examples=[3])


class CoverageDay(Shape):
    """What is known of a day's completeness."""

    date: datetime.date = _DAY
    status: Literal["proven", "healed", "degraded", "unknown"] = _STATUS
    trades_held: int | None = Field(
        description="Trades of that day, when it was compared; null before.", examples=[1204311]
    )
    trades_swept: int | None = Field(
        description="Trades that the exchange's record reported.", examples=[1204311]
    )
    trades_added: int | None = Field(
        description="Of those, the ones that had been missed.", examples=[12]
    )
    trades_unconfirmed: int | None = Field(
        description="Recorded trades that it did not report.", examples=[0]
    )
    swept_until: UtcInstant | None = Field(description="Up to there the day was compared.")
    updated_at: UtcInstant | None = Field(description="When it was compared last.")
    gaps: list[Gap] = Field(description="By start; of many, the 1,000 longest.")


class BookWatch(Shape):
    """An interval in which the market's order book is known without a gap."""

    starts_at: UtcInstant
    ends_at: UtcInstant | None = Field(description="Null: it goes on.")
    ended_by: str | None = Field(examples=["not watched any more"])


class MarketCoverageDay(Shape):
    """What is known of the completeness of one market's day."""

    date: datetime.date = _DAY
    market_ticker: str = Field(examples=["KXHIGHNY-26NOV20-T50"])
    status: Literal["proven", "healed", "degraded", "unknown"] = _STATUS
    swept_until: UtcInstant | None = Field(description="Up to there the day was compared.")
    trade_count: int = Field(examples=[118])
    volume: Number = Field(description="Contracts traded.", examples=[1204.5])
    volume_fp: Contracts = Field(examples=["1204.50"])
    quote_count: int = Field(description="Ticker messages.", examples=[5310])
    quote_gap: bool = Field(description="Quotes of it may have been lost.")
    gaps: list[Gap] = Field(description="Of all markets and of this one; the 1,000 longest.")
    book_watches: list[BookWatch] = Field(description="By start; empty: its book was not watched.")


@router.get(
    "/coverage",
    response_model=Page[CoverageDay],
    responses=problems(422, charged=False),
    summary="What is complete, by day",
)
async def list_coverage(query: Annotated[CoverageQuery, Query()], request: Request) -> Response:
    """Each UTC day since the first that is held, newest first, with the evidence and all gaps."""
    bound = ("coverage", query.date)
    place = position_in(query.cursor, bound, Place)
    page = coverage_page(on=query.date, after=place and place.day, limit=query.limit)
    return await list_page(request, page, bound=bound, limit=query.limit)


@router.get(
    "/coverage/{ticker}",
    response_model=Page[MarketCoverageDay],
    responses=problems(404, 422, charged=False),
    summary="What is complete of one market, by day",
)
async def get_coverage(
    ticker: Annotated[Ticker, Path()],
    query: Annotated[MarketCoverageQuery, Query()],
    request: Request,
) -> Response:
    """The UTC days on which the market traded or was quoted, newest first.

    Counts of today are those of the last refresh, a minute old at most.
    """
    bound = ("coverage", ticker, query.start_date, query.end_date)
    place = position_in(query.cursor, bound, Place)
    page = market_coverage_page(
        ticker,
        first=query.start_date,
        last=query.end_date,
        after=place and place.day,
        limit=query.limit,
    )
    lists: ReadDatabase = request.app.state.lists
    await require_market(lists, ticker, field="ticker")
    return await list_page(request, page, bound=bound, limit=query.limit)
