"""Markets, events and series as REST tells them, in our units.

The fields are named like the columns of their tables. Prices and counts are integers, strikes and
fee multipliers `Decimal` with the digits of the wire; no float is made. The exchange's own JSON is
kept beside, without the figures of trading, which change with every trade and say nothing of what
the market is.

Source: schemas Market, EventData and Series of Kalshi's OpenAPI 3.31, read 2026-10. Keys whose
value is null are left out on the wire.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec
from msgspec import Raw, Struct

from kalshi_platform.exchange.numbers import (
    Instant,
    Text,
    Unreadable,
    Word,
    centis,
    change_time,
    exact,
    name,
    outcome_micros,
)

_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_FIGURES = (
    "yes_bid",
    "yes_ask",
    "no_bid",
    "no_ask",
    "last_price",
    "previous_",
    "volume",
    "open_interest",
    "liquidity",
    "dollar_",
)


class MarketFacts(Struct, kw_only=True):
    """A market; None only where the wire may leave a field out."""

    market_ticker: str
    event_ticker: str
    market_type: str
    status: str
    title: str | None
    yes_sub_title: str
    no_sub_title: str
    created_at: datetime
    opens_at: datetime
    closes_at: datetime
    expected_expires_at: datetime | None
    exchange_updated_at: datetime
    can_close_early: bool
    settlement_timer_seconds: int
    strike_type: str | None
    floor_strike: Decimal | None
    cap_strike: Decimal | None
    functional_strike: str | None
    custom_strike: bytes | None
    """A JSON object."""
    price_level_structure: str
    price_ranges: bytes
    """A JSON list of {start, end, step}, dollar strings."""
    result: str
    """yes, no, scalar, void, …; empty before."""
    settlement_value_micros: int | None
    settled_at: datetime | None
    yes_bid_micros: int
    yes_ask_micros: int
    last_price_micros: int
    volume_centis: int
    open_interest_centis: int
    metadata: bytes
    """The exchange's JSON object without the figures of trading."""


class EventFacts(Struct, kw_only=True):
    """An event; its series is empty where it names none."""

    event_ticker: str
    series_ticker: str
    title: str
    sub_title: str
    category: str | None
    mutually_exclusive: bool
    collateral_return_type: str
    strike_date: datetime | None
    strike_period: str | None
    fee_type_override: str | None
    fee_multiplier_override: Decimal | None
    exchange_updated_at: datetime | None
    metadata: bytes
    """The exchange's JSON object without its markets."""


class SeriesFacts(Struct, kw_only=True):
    """A series of events."""

    series_ticker: str
    title: str
    frequency: str
    category: str
    categories: list[str] | None
    """None before the exchange told more than one."""
    tags: list[str] | None
    settlement_sources: bytes | None
    """A JSON list of {name, url}."""
    fee_type: str
    fee_multiplier: Decimal
    exchange_updated_at: datetime | None
    metadata: bytes
    """The exchange's JSON object without its volume."""


# What the wire carries ---------------------------------------------------------------------------


class Tick(Struct):
    """The step of prices in [start, end], dollar strings."""

    start: Word
    end: Word
    step: Word


class _Market(Struct):
    ticker: str
    event_ticker: str
    market_type: Word
    status: str
    yes_sub_title: Text
    no_sub_title: Text
    created_time: Instant
    updated_time: Instant
    open_time: Instant
    close_time: Instant
    settlement_timer_seconds: _Seconds
    result: Word
    can_close_early: bool
    price_level_structure: Word
    price_ranges: list[Tick]
    yes_bid_dollars: str
    yes_ask_dollars: str
    last_price_dollars: str
    volume_fp: str
    open_interest_fp: str
    title: Text | None = None
    expected_expiration_time: Instant | None = None
    settlement_value_dollars: str | None = None
    settlement_ts: Instant | None = None
    strike_type: Word | None = None
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    functional_strike: Text | None = None
    custom_strike: dict[str, Raw] | None = None


class _Event(Struct):
    event_ticker: str
    title: Text
    sub_title: Text
    mutually_exclusive: bool
    collateral_return_type: Word
    series_ticker: str | None = None
    category: Text | None = None
    strike_date: Instant | None = None
    strike_period: Text | None = None
    last_updated_ts: Instant | None = None
    fee_type_override: Word | None = None
    fee_multiplier_override: Decimal | None = None


class _Series(Struct):
    ticker: str
    frequency: Word
    title: Text
    category: Text
    fee_type: Word
    fee_multiplier: Decimal
    categories: list[Text] | None = None
    tags: list[Text] | None = None
    settlement_sources: list[dict[str, Raw]] | None = None
    last_updated_ts: Instant | None = None


_decode_market = msgspec.json.Decoder(_Market).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_series = msgspec.json.Decoder(_Series).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_anything = msgspec.json.Decoder().decode

_Wire = TypeVar("_Wire")
_Facts = TypeVar("_Facts")


# Translation -------------------------------------------------------------------------------------


def read_market(body: bytes) -> MarketFacts:
    """A Market object of any list or single answer.

    Raises:
        Unreadable: it is no market; the text says which field and why.
    """
    return _read(body, _decode_market, _market)


def read_event(body: bytes) -> EventFacts:
    """An Event object; its nested markets are left out.

    Raises:
        Unreadable: it is no event; the text says which field and why.
    """
    return _read(body, _decode_event, _event)


def read_series(body: bytes) -> SeriesFacts:
    """A Series object.

    Raises:
        Unreadable: it is no series; the text says which field and why.
    """
    return _read(body, _decode_series, _series)


def storable_json(body: bytes) -> None:
    """Whether a database can hold this JSON, which reading a few of its fields does not show.

    Raises:
        Unreadable: a zero character, half of a surrogate pair, a number beyond all bounds,
            nesting without end.
    """
    if b"\\u0000" in body:
        raise Unreadable("a text holds a zero character, which no database text can")
    try:
        _decode_anything(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def _read(
    body: bytes,
    decode: Callable[[bytes], _Wire],
    translate: Callable[[_Wire, dict[str, Raw]], _Facts],
) -> _Facts:
    try:
        wire = decode(body)
        fields = _decode_fields(body)
        storable_json(body)
        return translate(wire, fields)
    except Unreadable:
        raise
    except (ValueError, RecursionError, OverflowError) as error:
        raise Unreadable(str(error)) from error


def _market(wire: _Market, fields: dict[str, Raw]) -> MarketFacts:
    value = wire.settlement_value_dollars
    kept = {key: raw for key, raw in fields.items() if not key.startswith(_FIGURES)}
    custom_strike = None if wire.custom_strike is None else bytes(fields["custom_strike"])
    return MarketFacts(
        market_ticker=name(wire.ticker, "ticker"),
        event_ticker=name(wire.event_ticker, "event_ticker"),
        market_type=wire.market_type,
        status=name(wire.status, "status"),
        title=wire.title,
        yes_sub_title=wire.yes_sub_title,
        no_sub_title=wire.no_sub_title,
        created_at=_utc(wire.created_time),
        opens_at=_utc(wire.open_time),
        closes_at=_utc(wire.close_time),
        expected_expires_at=_utc_or_none(wire.expected_expiration_time),
        exchange_updated_at=change_time(wire.updated_time, "updated_time"),
        can_close_early=wire.can_close_early,
        settlement_timer_seconds=wire.settlement_timer_seconds,
        strike_type=wire.strike_type,
        floor_strike=_exact_or_none(wire.floor_strike, "floor_strike"),
        cap_strike=_exact_or_none(wire.cap_strike, "cap_strike"),
        functional_strike=wire.functional_strike,
        custom_strike=custom_strike,
        price_level_structure=wire.price_level_structure,
        price_ranges=bytes(fields["price_ranges"]),
        result=name(wire.result, "result") if wire.result else "",
        settlement_value_micros=(
            None if value is None else outcome_micros(value, "settlement_value_dollars")
        ),
        settled_at=_change_time_or_none(wire.settlement_ts, "settlement_ts"),
        yes_bid_micros=outcome_micros(wire.yes_bid_dollars, "yes_bid_dollars"),
        yes_ask_micros=outcome_micros(wire.yes_ask_dollars, "yes_ask_dollars"),
        last_price_micros=outcome_micros(wire.last_price_dollars, "last_price_dollars"),
        volume_centis=centis(wire.volume_fp),
        open_interest_centis=centis(wire.open_interest_fp),
        metadata=msgspec.json.encode(kept),
    )


def _event(wire: _Event, fields: dict[str, Raw]) -> EventFacts:
    fields.pop("markets", None)
    return EventFacts(
        event_ticker=name(wire.event_ticker, "event_ticker"),
        series_ticker=name(wire.series_ticker, "series_ticker") if wire.series_ticker else "",
        title=wire.title,
        sub_title=wire.sub_title,
        category=wire.category,
        mutually_exclusive=wire.mutually_exclusive,
        collateral_return_type=wire.collateral_return_type,
        strike_date=_utc_or_none(wire.strike_date),
        strike_period=wire.strike_period,
        fee_type_override=wire.fee_type_override,
        fee_multiplier_override=_exact_or_none(
            wire.fee_multiplier_override, "fee_multiplier_override"
        ),
        exchange_updated_at=_change_time_or_none(wire.last_updated_ts, "last_updated_ts"),
        metadata=msgspec.json.encode(fields),
    )


def _series(wire: _Series, fields: dict[str, Raw]) -> SeriesFacts:
    sources = None if wire.settlement_sources is None else bytes(fields["settlement_sources"])
    kept = {key: raw for key, raw in fields.items() if not key.startswith("volume")}
    return SeriesFacts(
        series_ticker=name(wire.ticker, "ticker"),
        title=wire.title,
        frequency=wire.frequency,
        category=wire.category,
        categories=wire.categories,
        tags=wire.tags,
        settlement_sources=sources,
        fee_type=wire.fee_type,
        fee_multiplier=exact(wire.fee_multiplier, "fee_multiplier"),
        exchange_updated_at=_change_time_or_none(wire.last_updated_ts, "last_updated_ts"),
        metadata=msgspec.json.encode(kept),
    )


def _utc(told: datetime) -> datetime:
    """The instant in UTC; another offset at the edge of the calendar has no day there."""
    return told.astimezone(UTC)


def _utc_or_none(told: datetime | None) -> datetime | None:
    return None if told is None else _utc(told)


def _change_time_or_none(told: datetime | None, field: str) -> datetime | None:
    return None if told is None else change_time(told, field)


def _exact_or_none(number: Decimal | None, field: str) -> Decimal | None:
    return None if number is None else exact(number, field)
