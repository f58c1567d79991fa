"""The shapes of quotes and order books, as documented and as tests hold the bytes to them."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas import Contracts, Dollars, Number, Shape, UtcInstant

_TICKER = Field(examples=["KXHIGHNY-26NOV20-T50"])
_Amount = Annotated[
    str, Field(pattern=r"^-?\d+\.\d{2}$", description="Contracts, 2 decimals, with a sign if less.")
]
_Level = Annotated[
    tuple[Dollars, Contracts], Field(description="[price in dollars, contracts at that price]")
]
_Spread = Annotated[str, Field(pattern=r"^-?\d+\.\d{4}(\d\d)?$")]


class Quote(Shape):
    """One ticker message: the best prices of a market and its figures from then on."""

    market_ticker: str = _TICKER
    ts: UtcInstant = Field(
        description="When the exchange sent it; milliseconds.",
        examples=["2026-11-20T18:00:05.123000Z"],
    )
    yes_bid: Number = Field(description="Cents; 0 where nobody bids.", examples=[36])
    yes_bid_dollars: Dollars = Field(examples=["0.3600"])
    yes_ask: Number = Field(description="Cents; 100 where nobody offers.", examples=[38])
    yes_ask_dollars: Dollars = Field(examples=["0.3800"])
    yes_bid_size: Number = Field(description="Contracts at the best bid.", examples=[120])
    yes_bid_size_fp: Contracts = Field(examples=["120.00"])
    yes_ask_size: Number = Field(description="Contracts at the best ask.", examples=[75.5])
    yes_ask_size_fp: Contracts = Field(examples=["75.50"])
    last_price: Number = Field(
        description="Cents; of the last trade. 0 before the first.", examples=[37]
    )
    last_price_dollars: Dollars = Field(examples=["0.3700"])
    last_trade_size: Number = Field(description="Contracts of the last trade.", examples=[10])
    last_trade_size_fp: Contracts = Field(examples=["10.00"])
    volume: Number = Field(
        description="Contracts traded since the market opened.", examples=[51234.25]
    )
    volume_fp: Contracts = Field(examples=["51234.25"])
    open_interest: Number = Field(description="Contracts outstanding.", examples=[20100])
    open_interest_fp: Contracts = Field(examples=["20100.00"])
    dollar_volume: int = Field(description="Whole dollars, as told.", examples=[19012])
    dollar_open_interest: int = Field(description="Whole dollars, as told.", examples=[10050])


class Delta(Shape):
    """One change of one price level of an order book."""

    market_ticker: str = _TICKER
    ts: UtcInstant = Field(
        description="When it happened; milliseconds.", examples=["2026-11-20T18:00:05.123000Z"]
    )
    side: Literal["yes", "no"] = Field(description="Whose bids changed.", examples=["no"])
    price: Number = Field(description="Cents bid, in terms of that side.", examples=[61])
    price_dollars: Dollars = Field(examples=["0.6100"])
    delta: Number = Field(description="Contracts more, or fewer.", examples=[-54, 0.5])
    delta_fp: _Amount = Field(examples=["-54.00"])
    sid: int = Field(description="The subscription that told it.", examples=[2])
    seq: int = Field(
        description="Its number on that subscription, over all markets of it.", examples=[104377]
    )


class OrderBook(Shape):
    """An order book at an instant, best levels first."""

    market_ticker: str = _TICKER
    timestamp: UtcInstant = Field(
        description="The instant asked for.", examples=["2026-11-20T18:00:00.000000Z"]
    )
    gap: bool = Field(
        description="Whether the book may be wrong: something was lost, or nobody watched."
    )
    gap_reason: str | None = Field(
        description="Why `gap` is true.",
        examples=[None, "known until 2026-11-20T17:58:11.402000Z: sequence_jump"],
    )
    as_of: UtcInstant = Field(
        description="When the last message that is in it was told.",
        examples=["2026-11-20T17:59:58.250000Z"],
    )
    age_seconds: Number = Field(description="`timestamp` less `as_of`.", examples=[1.75])
    yes_bids: list[_Level] = Field(examples=[[["0.3600", "120.00"], ["0.3500", "40.00"]]])
    no_bids: list[_Level] = Field(
        description="In terms of no.", examples=[[["0.6200", "75.50"], ["0.6100", "10.00"]]]
    )
    yes_asks: list[_Level] = Field(
        description="The same as `no_bids`, in terms of yes.",
        examples=[[["0.3800", "75.50"], ["0.3900", "10.00"]]],
    )
    best_yes_bid_dollars: Dollars | None = Field(
        description="Null where nobody bids.", examples=["0.3600"]
    )
    best_yes_ask_dollars: Dollars | None = Field(
        description="Null where nobody offers.", examples=["0.3800"]
    )
    spread_dollars: _Spread | None = Field(
        description="Ask less bid; null where one is missing, below zero only in a gap.",
        examples=["0.0200"],
    )
    yes_levels: int = Field(description="Of the whole book, like depths.", examples=[2])
    no_levels: int = Field(examples=[2])
    yes_depth_fp: Contracts = Field(description="Contracts bid for yes.", examples=["160.00"])
    no_depth_fp: Contracts = Field(description="Contracts bid for no.", examples=["85.50"])
    snapshot_at: UtcInstant = Field(
        description="When the snapshot was told that the book is built upon.",
        examples=["2026-11-20T17:50:00.100000Z"],
    )
    snapshot_source: Literal["exchange", "own"] = Field(
        description="`own`: rebuilt by us from the one before, to shorten the way.",
        examples=["exchange"],
    )
