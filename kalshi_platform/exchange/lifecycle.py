"""What a lifecycle message changes, in our units.

`read_change` reads the `msg` of a lifecycle frame. Columns are named like those of `markets` and
`events`; a message names only what it changes. Times are Unix seconds on the wire. Opening and
closing by the clock send no message at all.

Source: channels market_lifecycle_v2 and multivariate_market_lifecycle of Kalshi's AsyncAPI, read
2026-10.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from kalshi_platform.exchange.numbers import (
    Text,
    Unreadable,
    Word,
    exact,
    name,
    outcome_micros,
    ticker,
)
from kalshi_platform.exchange.reference import Tick, storable_json

# Unix seconds until the year 10000; milliseconds by mistake are beyond.
_UnixSeconds = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800)]
# Those of an outcome: from 2018, before Kalshi opened, to 2100.
_OutcomeSeconds = Annotated[int, msgspec.Meta(ge=1_514_764_800, lt=4_102_444_800)]
Columns = dict[str, datetime | str | bool | Decimal | Raw | None]


class MarketChange(Struct):
    """Facts of a market: created, paused or not, other close, other ticks, other strikes."""

    kind: ClassVar[Literal["market"]] = "market"
    market_ticker: str
    columns: Columns
    metadata: bytes | None = None
    """The exchange's JSON, where the message tells of the whole market."""


class Determined(Struct):
    """The outcome of a market is known. It may be told again with another result."""

    kind: ClassVar[Literal["determined"]] = "determined"
    market_ticker: str
    result: str
    settlement_value_micros: int | None
    """None before 2026-02-26, when the exchange began to tell it."""
    determined_at: datetime


class Settled(Struct):
    """A market was paid out with the result in force."""

    kind: ClassVar[Literal["settled"]] = "settled"
    market_ticker: str
    settled_at: datetime


class EventChange(Struct):
    """Facts of an event: created, or another fee."""

    kind: ClassVar[Literal["event"]] = "event"
    event_ticker: str
    columns: Columns
    metadata: bytes | None = None


LifecycleChange = MarketChange | Determined | Settled | EventChange


# What the wire carries ---------------------------------------------------------------------------


class _Strikes(Struct):
    strike_type: Word | UnsetType | None = UNSET
    floor_strike: Decimal | UnsetType | None = UNSET
    cap_strike: Decimal | UnsetType | None = UNSET
    custom_strike: dict[str, Raw] | UnsetType | None = UNSET
    yes_sub_title: Text | UnsetType = UNSET


class _CreatedMarket(_Strikes, kw_only=True):
    title: Text
    yes_sub_title: Text
    no_sub_title: Text
    event_ticker: str
    can_close_early: bool
    expected_expiration_ts: _UnixSeconds


class _Created(Struct):
    market_ticker: str
    open_ts: _UnixSeconds
    close_ts: _UnixSeconds
    price_level_structure: Word
    additional_metadata: _CreatedMarket
    price_ranges: list[Tick] | UnsetType = UNSET  # combos have none


class _Closing(Struct):
    market_ticker: str
    close_ts: _UnixSeconds


class _Pause(Struct):
    market_ticker: str


class _Ticks(Struct):
    market_ticker: str
    price_level_structure: Word
    price_ranges: list[Tick]


class _Renamed(_Strikes, kw_only=True):
    market_ticker: str


class _Determined(Struct):
    market_ticker: str
    result: Word
    determination_ts: _OutcomeSeconds
    settlement_value: str | None = None


class _Settled(Struct):
    market_ticker: str
    settled_ts: _OutcomeSeconds


class _EventCreated(Struct):
    event_ticker: str
    title: Text
    subtitle: Text
    collateral_return_type: Word
    series_ticker: str | None = None
    strike_date: _UnixSeconds | None = None
    strike_period: Text | None = None


class _Fee(Struct):
    event_ticker: str
    fee_type_override: Word | None
    fee_multiplier_override: Decimal | None


class _Type(Struct):
    event_type: str | UnsetType = UNSET


_read_type = msgspec.json.Decoder(_Type).decode
_decode_created = msgspec.json.Decoder(_Created).decode
_decode_closing = msgspec.json.Decoder(_Closing).decode
_decode_pause = msgspec.json.Decoder(_Pause).decode
_decode_ticks = msgspec.json.Decoder(_Ticks).decode
_decode_renamed = msgspec.json.Decoder(_Renamed).decode
_decode_determined = msgspec.json.Decoder(_Determined).decode
_decode_settled = msgspec.json.Decoder(_Settled).decode
_decode_event_created = msgspec.json.Decoder(_EventCreated).decode
_decode_fee = msgspec.json.Decoder(_Fee).decode


# Translation -------------------------------------------------------------------------------------


def read_change(kind: str, raw: bytes) -> LifecycleChange | None:
    """What a lifecycle message changes; None for an event type that changes nothing of ours.

    Args:
        kind: type of the frame (market_lifecycle_v2, event_lifecycle, …).
        raw: its `msg`.

    Raises:
        Unreadable: the message lacks something, or says what cannot be.
    """
    try:
        if kind == "event_lifecycle":
            return _event_created(raw)
        if kind == "event_fee_update":
            return _fee(raw)
        event_type = _read_type(raw).event_type
        read = None if event_type is UNSET else _READERS.get(event_type)
        return None if read is None else read(raw)
    except Unreadable:
        raise
    except (ValueError, RecursionError, OverflowError) as error:
        raise Unreadable(str(error)) from error


def _created(raw: bytes) -> MarketChange:
    wire = _decode_created(raw)
    storable_json(raw)
    told = wire.additional_metadata
    columns: Columns = {
        "event_ticker": name(told.event_ticker, "event_ticker"),
        "title": told.title,
        "no_sub_title": told.no_sub_title,
        "opens_at": _instant(wire.open_ts),
        "closes_at": _instant(wire.close_ts),
        "expected_expires_at": _instant(told.expected_expiration_ts),
        "can_close_early": told.can_close_early,
        "price_level_structure": wire.price_level_structure,
    }
    if wire.price_ranges is not UNSET:
        columns["price_ranges"] = Raw(msgspec.json.encode(wire.price_ranges))
    return MarketChange(ticker(wire.market_ticker), columns | _strikes(told), bytes(raw))


def _paused(raw: bytes) -> MarketChange:
    return MarketChange(ticker(_decode_pause(raw).market_ticker), {"is_paused": True})


def _resumed(raw: bytes) -> MarketChange:
    return MarketChange(ticker(_decode_pause(raw).market_ticker), {"is_paused": False})


def _closing(raw: bytes) -> MarketChange:
    wire = _decode_closing(raw)
    return MarketChange(ticker(wire.market_ticker), {"closes_at": _instant(wire.close_ts)})


def _ticks(raw: bytes) -> MarketChange:
    wire = _decode_ticks(raw)
    ranges = Raw(msgspec.json.encode(wire.price_ranges))
    columns: Columns = {
        "price_level_structure": wire.price_level_structure,
        "price_ranges": ranges,
    }
    return MarketChange(ticker(wire.market_ticker), columns)


def _renamed(raw: bytes) -> MarketChange:
    wire = _decode_renamed(raw)
    storable_json(raw)
    return MarketChange(ticker(wire.market_ticker), _strikes(wire))


def _determined(raw: bytes) -> Determined:
    wire = _decode_determined(raw)
    value = wire.settlement_value
    return Determined(
        ticker(wire.market_ticker),
        name(wire.result, "result"),
        None if value is None else outcome_micros(value, "settlement_value"),
        _instant(wire.determination_ts),
    )


def _settled(raw: bytes) -> Settled:
    wire = _decode_settled(raw)
    return Settled(ticker(wire.market_ticker), _instant(wire.settled_ts))


def _event_created(raw: bytes) -> EventChange:
    wire = _decode_event_created(raw)
    storable_json(raw)
    columns: Columns = {
        "series_ticker": name(wire.series_ticker, "series_ticker") if wire.series_ticker else "",
        "title": wire.title,
        "sub_title": wire.subtitle,
        "collateral_return_type": wire.collateral_return_type,
    }
    if wire.strike_date is not None:
        columns["strike_date"] = _instant(wire.strike_date)
    if wire.strike_period is not None:
        columns["strike_period"] = wire.strike_period
    return EventChange(name(wire.event_ticker, "event_ticker"), columns, bytes(raw))


def _fee(raw: bytes) -> EventChange:
    wire = _decode_fee(raw)
    multiplier = wire.fee_multiplier_override
    columns: Columns = {
        "fee_type_override": wire.fee_type_override,
        "fee_multiplier_override": (
            None if multiplier is None else exact(multiplier, "fee_multiplier_override")
        ),
    }
    return EventChange(name(wire.event_ticker, "event_ticker"), columns)


def _strikes(wire: _Strikes) -> Columns:
    """The strikes that were told; a null clears one."""
    columns: Columns = {}
    if wire.strike_type is not UNSET:
        columns["strike_type"] = wire.strike_type
    for field, strike in (("floor_strike", wire.floor_strike), ("cap_strike", wire.cap_strike)):
        if strike is not UNSET:
            columns[field] = None if strike is None else exact(strike, field)
    if wire.custom_strike is not UNSET:
        custom = wire.custom_strike
        columns["custom_strike"] = None if custom is None else Raw(msgspec.json.encode(custom))
    if wire.yes_sub_title is not UNSET:
        columns["yes_sub_title"] = wire.yes_sub_title
    return columns


def _instant(unix_seconds: int) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


_READERS: dict[str, Callable[[bytes], LifecycleChange]] = {
    "created": _created,
    "activated": _resumed,
    "deactivated": _paused,
    "close_date_updated": _closing,
    "determined": _determined,
    "settled": _settled,
    "price_level_structure_updated": _ticks,
    "metadata_updated": _renamed,
}
