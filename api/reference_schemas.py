"""The shapes of series, events, markets and outcomes, as documented; tests hold the bytes to them.

Null stands for what is not known (yet) or does not apply, never for zero.
"""

from typing import Any, Literal

from pydantic import Field

from api.schemas import Contracts, Dollars, Number, Shape, UtcInstant

_VALUE = "What one yes contract pays, in cents; null before the outcome, or where it was not told."


class SettlementVersion(Shape):
    """One version of a market's outcome."""

    version: int = Field(description="1, 2, … in the order of the exchange's time.")
    status: str = Field(examples=["determined", "disputed", "amended", "finalized"])
    result: str | None = Field(examples=["yes", "no", "scalar"])
    settlement_value: Number | None = Field(description=_VALUE, examples=[100, 43.75])
    settlement_value_dollars: Dollars | None = Field(examples=["1.0000", "0.4375"])
    effective_at: UtcInstant = Field(description="Since when it held; the exchange's clock.")
    source: str = Field(
        description="Who told it: `lifecycle` (the feed), `rest` or `historical`.",
        examples=["lifecycle"],
    )
    recorded_at: UtcInstant = Field(description="When it was learnt here.")
    confirmed_at: UtcInstant | None = Field(description="When the exchange's REST said the same.")
    in_force: bool = Field(description="Whether this is the version that is valid now.")


class Settlement(Shape):
    """The outcome of a market as it stands."""

    market_ticker: str = Field(examples=["KXHIGHNY-26NOV20-T50"])
    event_ticker: str | None = Field(examples=["KXHIGHNY-26NOV20"])
    series_ticker: str | None = Field(
        description="Null where the event has none, or is not known yet.", examples=["KXHIGHNY"]
    )
    status: str = Field(
        description="`determined`, `disputed`, `amended` or `finalized`; only the last is final.",
        examples=["finalized"],
    )
    result: str | None = Field(
        description="`yes`, `no`, `scalar`, `void`, …: an open set.", examples=["yes"]
    )
    settlement_value: Number | None = Field(description=_VALUE, examples=[100, 43.75])
    settlement_value_dollars: Dollars | None = Field(examples=["1.0000", "0.4375"])
    effective_at: UtcInstant = Field(
        description="Since when this holds, by the exchange's clock; the order of lists.",
        examples=["2026-11-20T23:01:02.345678Z"],
    )
    determined_at: UtcInstant | None = Field(
        description="When the result was determined, to the second; null where no message told it."
    )
    settled_at: UtcInstant | None = Field(description="When it was paid; null before.")
    source: str = Field(
        description="Who told it: `lifecycle` (the feed), `rest` or `historical`.",
        examples=["rest"],
    )
    recorded_at: UtcInstant = Field(description="When its newest version was learnt here.")
    confirmed_at: UtcInstant | None = Field(
        description="When the exchange's REST first told this result, whatever its status was then;"
        " so it may be earlier than `recorded_at`."
    )


class SettlementDetail(Settlement):
    """An outcome with every version it had."""

    history: list[SettlementVersion] = Field(
        description="Oldest first; the last is in force. Of outcomes from before the recording, the"
        " exchange tells the last version alone."
    )


class Market(Shape):
    """A market; its quote is as of `quoted_at`."""

    ticker: str = Field(examples=["KXHIGHNY-26NOV20-T50"])
    event_ticker: str | None = Field(examples=["KXHIGHNY-26NOV20"])
    series_ticker: str | None = Field(
        description="Null where the event has none, or is not known yet.", examples=["KXHIGHNY"]
    )
    market_type: str | None = Field(examples=["binary"])
    title: str | None = Field(examples=["Will the high temperature in New York be above 50°?"])
    yes_sub_title: str | None = Field(examples=["51° or above"])
    no_sub_title: str | None = Field(examples=["51° or above"])
    status: str | None = Field(
        description="At this instant: `initialized`, `active`, `inactive`, `closed`, `determined`,"
        " `disputed`, `amended` or `finalized`; null for a market that was only named so far.",
        examples=["active"],
    )
    result: str | None = Field(description="Null before the outcome.", examples=["yes"])
    settlement_value: Number | None = Field(description=_VALUE, examples=[100])
    settlement_value_dollars: Dollars | None = Field(examples=["1.0000"])
    created_time: UtcInstant | None
    open_time: UtcInstant | None = Field(description="Trading begins.")
    close_time: UtcInstant | None = Field(description="Trading ends; may be moved.")
    expected_expiration_time: UtcInstant | None
    can_close_early: bool | None
    settlement_timer_seconds: int | None = Field(
        description="From determination to settlement.", examples=[60]
    )
    strike_type: str | None = Field(examples=["greater", "between", "structured"])
    floor_strike: Number | None = Field(description="Exact.", examples=[50, 77414.99])
    cap_strike: Number | None = Field(description="Exact.", examples=[51])
    functional_strike: str | None
    custom_strike: dict[str, Any] | None
    price_level_structure: str | None = Field(examples=["linear_cent"])
    price_ranges: list[dict[str, Any]] | None = Field(
        description="Tick sizes in dollars.",
        examples=[[{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]],
    )
    is_combo: bool = Field(description="A multivariate market; kept once it has traded.")
    yes_bid: Number | None = Field(description="Cents; 0 where there is no bid.", examples=[35])
    yes_bid_dollars: Dollars | None = Field(examples=["0.3500"])
    yes_ask: Number | None = Field(description="Cents; 100 where there is no ask.", examples=[36])
    yes_ask_dollars: Dollars | None = Field(examples=["0.3600"])
    last_price: Number | None = Field(description="Cents.", examples=[36])
    last_price_dollars: Dollars | None = Field(examples=["0.3600"])
    volume: Number | None = Field(description="Contracts since it opened.", examples=[1520.5])
    volume_fp: Contracts | None = Field(examples=["1520.50"])
    open_interest: Number | None = Field(description="Contracts.", examples=[803])
    open_interest_fp: Contracts | None = Field(examples=["803.00"])
    quoted_at: UtcInstant | None = Field(description="When the quote and the volumes were so.")
    updated_time: UtcInstant | None = Field(
        description="When a fact of it last changed; the exchange's clock."
    )
    first_seen_at: UtcInstant = Field(description="When it was first named here.")


class MarketDetail(Market):
    """A market with its outcome, its newest quote, and the data held of it."""

    quote_source: str | None = Field(
        description="`feed`, or `rest` where that is newer.", examples=["feed"]
    )
    settlement: Settlement | None = Field(description="Null before the outcome.")
    first_trade_at: UtcInstant | None = Field(description="First trade held; null without any.")
    last_trade_at: UtcInstant | None = Field(description="Last trade held; null without any.")
    metadata: dict[str, Any] | None = Field(
        description="The exchange's own words, rules among them, without figures of trading."
    )


class Event(Shape):
    """An event: markets on one question."""

    event_ticker: str = Field(examples=["KXHIGHNY-26NOV20"])
    series_ticker: str | None = Field(
        description="Null where it has none, or is not known yet.", examples=["KXHIGHNY"]
    )
    title: str | None = Field(examples=["Highest temperature in New York?"])
    sub_title: str | None = Field(examples=["On Nov 20, 2026"])
    category: str | None = Field(
        description="Its own, or its series'.", examples=["Climate and Weather"]
    )
    status: Literal["open", "closed", "settled"] | None = Field(
        description="From its markets: `open` while one trades or will, `settled` once all are"
        " final, `closed` in between; null without any."
    )
    market_count: int = Field(
        description="Markets known here; 0 where the event was over before the recording and its"
        " days have not been backfilled.",
        examples=[6],
    )
    mutually_exclusive: bool | None
    collateral_return_type: str | None = Field(examples=["MECNET"])
    strike_date: UtcInstant | None
    strike_period: str | None
    fee_type_override: str | None = Field(description="Null where the fee is the series' own.")
    fee_multiplier_override: Number | None
    updated_time: UtcInstant | None = Field(
        description="When a fact of it last changed; the exchange's clock."
    )
    first_seen_at: UtcInstant = Field(description="When it was first named here.")


class EventDetail(Event):
    """An event with its markets."""

    markets: list[Market] = Field(description="By ticker, the first 1,000.")
    metadata: dict[str, Any] | None = Field(description="The exchange's own words.")


class Series(Shape):
    """A series of events."""

    ticker: str = Field(examples=["KXHIGHNY"])
    title: str | None = Field(examples=["Highest temperature in New York"])
    frequency: str | None = Field(examples=["daily"])
    category: str | None = Field(
        description="The first of its categories.", examples=["Climate and Weather"]
    )
    categories: list[str] | None
    tags: list[str] | None = Field(examples=[["Daily temperature"]])
    settlement_sources: list[dict[str, Any]] | None = Field(
        examples=[[{"name": "National Weather Service", "url": "https://www.weather.gov"}]]
    )
    fee_type: str | None = Field(examples=["quadratic"])
    fee_multiplier: Number | None = Field(examples=[1])
    updated_time: UtcInstant | None = Field(
        description="When a fact of it last changed; the exchange's clock."
    )
    first_seen_at: UtcInstant = Field(description="When an event first named it here.")


class SeriesDetail(Series):
    """A series with the exchange's own words."""

    metadata: dict[str, Any] | None = Field(description="The exchange's own words.")
