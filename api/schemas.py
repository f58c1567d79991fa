"""The shapes of answers, as documented and as tests hold the bytes to them.

Pages are built as text by Postgres and passed through; no object here is made on the way.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Row = TypeVar("Row")

# JSON numbers, exact to the last digit; decimal in Python, never a float.
Number = Annotated[Decimal, WithJsonSchema({"type": "number"})]
Dollars = Annotated[
    str, Field(pattern=r"^\d+\.\d{4}(\d\d)?$", description="Dollars, exact, 4 or 6 decimals.")
]
Contracts = Annotated[str, Field(pattern=r"^\d+\.\d{2}$", description="Contracts, 2 decimals.")]
UtcInstant = Annotated[datetime, Field(description="ISO 8601, UTC, ends in Z.")]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Shape, Generic[Row]):
    """One page of records, in order."""

    data: list[Row]
    next_cursor: str | None = Field(
        description="Send it back for the next page; null on the last.", examples=[None]
    )
    has_more: bool
    request_id: str = Field(
        description="The same as the X-Request-Id header; name it in questions.",
        examples=["0b3f6a1c9d2e4f58a7c6b5d4e3f20191"],
    )
    response_time: Number = Field(description="Seconds this answer took.", examples=[0.004])


class Record(Shape, Generic[Row]):
    """One record."""

    data: Row
    request_id: str = Field(
        description="The same as the X-Request-Id header; name it in questions.",
        examples=["0b3f6a1c9d2e4f58a7c6b5d4e3f20191"],
    )
    response_time: Number = Field(description="Seconds this answer took.", examples=[0.004])


class Trade(Shape):
    """One trade, at the price of yes; the price of no is what remains of a dollar."""

    trade_id: str = Field(examples=["5c1f4a66-1d3c-4f7d-8a7e-0c6a3f3b2f10"])
    market_ticker: str = Field(examples=["KXHIGHNY-26NOV20-T50"])
    yes_price: Number = Field(description="Cents; whole or with decimals.", examples=[36, 36.25])
    no_price: Number = Field(description="Cents.", examples=[64, 63.75])
    yes_price_dollars: Dollars = Field(examples=["0.3600", "0.3625"])
    no_price_dollars: Dollars = Field(examples=["0.6400", "0.6375"])
    count: Number = Field(description="Contracts.", examples=[12, 0.5])
    count_fp: Contracts = Field(examples=["12.00", "0.50"])
    taker_side: Literal["yes", "no"]
    is_block_trade: bool | None = Field(description="Null where no source said.")
    ts: UtcInstant = Field(
        description="When it traded: ISO 8601, UTC, microseconds (milliseconds until the REST"
        " sweep has confirmed the trade).",
        examples=["2026-11-20T18:00:05.123456Z"],
    )


class QuoteRange(Shape):
    """A best price over an interval: of what stood at its start and what came since."""

    open: Number = Field(description="Cents; as it stood at the start.", examples=[36])
    high: Number = Field(description="Cents.", examples=[38])
    low: Number = Field(description="Cents.", examples=[35.5])
    close: Number = Field(description="Cents.", examples=[37])
    open_dollars: Dollars = Field(examples=["0.3600"])
    high_dollars: Dollars = Field(examples=["0.3800"])
    low_dollars: Dollars = Field(examples=["0.3550"])
    close_dollars: Dollars = Field(examples=["0.3700"])


class Candle(Shape):
    """One interval of one market in which it traded or was quoted, at prices of yes.

    Prices are null where nothing traded, quotes where none was ever seen; further nulls only where
    `fill=null` asked for them. How a market settles is never part of a price.
    """

    bucket: UtcInstant = Field(
        description="Start of the interval; ISO 8601, UTC.", examples=["2026-11-20T18:00:00Z"]
    )
    market_ticker: str = Field(examples=["KXHIGHNY-26NOV20-T50"])
    open: Number | None = Field(description="Cents; of the first trade.", examples=[36])
    high: Number | None = Field(description="Cents.", examples=[38])
    low: Number | None = Field(description="Cents.", examples=[35.5])
    close: Number | None = Field(description="Cents; of the last trade.", examples=[37])
    open_dollars: Dollars | None = Field(examples=["0.3600"])
    high_dollars: Dollars | None = Field(examples=["0.3800"])
    low_dollars: Dollars | None = Field(examples=["0.3550"])
    close_dollars: Dollars | None = Field(examples=["0.3700"])
    volume: Number | None = Field(description="Contracts traded.", examples=[120.5])
    volume_fp: Contracts | None = Field(examples=["120.50"])
    trade_count: int | None = Field(examples=[14])
    vwap_dollars: Dollars | None = Field(
        description="Mean price per contract, rounded half to even; null without volume.",
        examples=["0.366250"],
    )
    previous_dollars: Dollars | None = Field(
        description="Price of the last trade before the interval; null if there was none.",
        examples=["0.3600"],
    )
    filled: bool = Field(
        description="Whether the interval had no trade (with `fill=null`: no quote either) and"
        " `fill` made what stands here for it."
    )
    yes_bid: QuoteRange | None = Field(description="Best bid; 0 where there was none.")
    yes_ask: QuoteRange | None = Field(description="Best ask; 1 dollar where there was none.")
    open_interest: Number | None = Field(
        description="Contracts at the end of the interval.", examples=[1200]
    )
    open_interest_fp: Contracts | None = Field(examples=["1200.00"])
    quoted_at: UtcInstant | None = Field(
        description="The last quote before the end of the interval, carried in if none is inside.",
        examples=["2026-11-20T18:00:05.123000Z"],
    )
    quote_count: int | None = Field(description="Quotes within the interval.", examples=[7])
    quote_gap: bool | None = Field(
        description="Whether bid, ask or open interest may be wrong: quotes were lost since the one"
        " that stood at the start."
    )


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["urn:kalshi-platform:problem:invalid_input"])
    title: str
    status: int = Field(examples=[422])
    detail: str = Field(description="One sentence, with the remedy where there is one.")
    field: str | None = Field(None, description="The input at fault.", examples=["end_time"])
    errors: list[dict[str, Any]] | None = Field(None, description="Each of several faults.")
    request_id: str
