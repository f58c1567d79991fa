"""The exchange's messages as typed structures, and the one place where its words become ours.

Prices and counts become integers of ours, see `exchange.numbers`; no float is made.
Unknown fields are allowed everywhere; a missing or unreadable required one raises `Unreadable`.

Source: the WebSocket and REST references of docs.kalshi.com, read 2026-10 (AsyncAPI, OpenAPI 3.31).
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from kalshi_platform.exchange.book_messages import BookDeltaMessage, BookSnapshotMessage
from kalshi_platform.exchange.numbers import MICROS_PER_DOLLAR as MICROS_PER_DOLLAR
from kalshi_platform.exchange.numbers import Seq as _Seq
from kalshi_platform.exchange.numbers import Sid as _Sid
from kalshi_platform.exchange.numbers import Side as Side
from kalshi_platform.exchange.numbers import Unreadable as Unreadable
from kalshi_platform.exchange.numbers import WireInteger as _Number
from kalshi_platform.exchange.numbers import centis as centis
from kalshi_platform.exchange.numbers import micros as micros
from kalshi_platform.exchange.numbers import ticker as ticker

_SignedNumber = Annotated[int, msgspec.Meta(gt=-(1 << 53), lt=1 << 53)]
_Code = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_ChannelName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
# When the exchange sent a frame. Any number is let through: a frame whose sending time is absurd
# still says what it says, and `exchange_ms` does not believe the time.
_SentAt = int | UnsetType
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Kalshi opened in 2021; a time before 2018 or after 2100 is a unit error, not a time.
_EARLIEST_MS = 1_514_764_800_000
_LATEST_MS = 4_102_444_800_000


class Trade(Struct, gc=False):
    """One trade as one source reported it, in our units."""

    trade_id: str
    market_ticker: str
    yes_price_micros: int
    count_centis: int
    taker_side: str
    is_block_trade: bool | None
    traded_at_micros: int
    """Unix microseconds on the exchange's clock."""
    exact_time: bool
    """Whether the source gives microseconds (REST) or cuts to milliseconds (WebSocket)."""


class Quote(Struct, gc=False):
    """One ticker message in our units."""

    market_ticker: str
    quoted_at_ms: int
    price_micros: int
    yes_bid_micros: int
    yes_ask_micros: int
    yes_bid_size_centis: int
    yes_ask_size_centis: int
    last_trade_size_centis: int
    volume_centis: int
    open_interest_centis: int
    dollar_volume: int
    dollar_open_interest: int


# What the wire carries ---------------------------------------------------------------------------


class TradeMessage(Struct, gc=False):
    trade_id: str
    market_ticker: str
    yes_price_dollars: str
    no_price_dollars: str
    count_fp: str
    ts_ms: _Number
    taker_outcome_side: Side | UnsetType = UNSET
    taker_side: Side | UnsetType = UNSET  # the same under its deprecated name
    is_block_trade: bool | UnsetType = UNSET  # always sent only since 2026-08-13


class TickerMessage(Struct, gc=False):
    market_ticker: str
    price_dollars: str
    yes_bid_dollars: str
    yes_ask_dollars: str
    yes_bid_size_fp: str
    yes_ask_size_fp: str
    last_trade_size_fp: str
    volume_fp: str
    open_interest_fp: str
    dollar_volume: _SignedNumber
    dollar_open_interest: _SignedNumber
    ts_ms: _Number


class LifecycleMessage(Struct, gc=False):
    """The fields that index a lifecycle message; the rest stays JSON."""

    event_type: str | UnsetType = UNSET
    market_ticker: str | UnsetType = UNSET
    event_ticker: str | UnsetType = UNSET


class ErrorMessage(Struct):
    code: _Code
    msg: str = ""


class SubscribedMessage(Struct):
    channel: _ChannelName
    sid: _Sid


class TradeFrame(Struct, gc=False, tag_field="type", tag="trade"):
    sid: _Sid
    seq: _Seq
    msg: TradeMessage
    sending_ts_ms: _SentAt = UNSET


class TickerFrame(Struct, gc=False, tag_field="type", tag="ticker"):
    sid: _Sid
    msg: TickerMessage
    sending_ts_ms: _SentAt = UNSET


class _SequencedFrame(Struct, gc=False):
    sid: _Sid
    seq: _Seq
    msg: Raw
    sending_ts_ms: _SentAt = UNSET


class MarketLifecycleFrame(_SequencedFrame, tag_field="type", tag="market_lifecycle_v2"):
    """An ordinary market changed."""


class ComboLifecycleFrame(_SequencedFrame, tag_field="type", tag="multivariate_market_lifecycle"):
    """A combo market changed."""


class EventLifecycleFrame(_SequencedFrame, tag_field="type", tag="event_lifecycle"):
    """An event was created."""


class EventFeeFrame(_SequencedFrame, tag_field="type", tag="event_fee_update"):
    """An event's fee was overridden, or the override cleared."""


class BookSnapshotFrame(Struct, gc=False, tag_field="type", tag="orderbook_snapshot"):
    sid: _Sid
    seq: _Seq
    msg: BookSnapshotMessage
    sending_ts_ms: _SentAt = UNSET


class BookDeltaFrame(Struct, gc=False, tag_field="type", tag="orderbook_delta"):
    sid: _Sid
    seq: _Seq
    msg: BookDeltaMessage
    sending_ts_ms: _SentAt = UNSET


class SubscribedFrame(Struct, tag_field="type", tag="subscribed"):
    msg: SubscribedMessage
    id: int | UnsetType = UNSET
    sending_ts_ms: _SentAt = UNSET


class OkFrame(Struct, tag_field="type", tag="ok"):
    id: int | UnsetType = UNSET
    sid: _Sid | UnsetType = UNSET
    seq: _Seq | UnsetType = UNSET
    msg: Raw = Raw(b"null")
    sending_ts_ms: _SentAt = UNSET


class UnsubscribedFrame(Struct, tag_field="type", tag="unsubscribed"):
    sid: _Sid | UnsetType = UNSET
    seq: _Seq | UnsetType = UNSET
    id: int | UnsetType = UNSET
    sending_ts_ms: _SentAt = UNSET


class ErrorFrame(Struct, tag_field="type", tag="error"):
    msg: ErrorMessage
    id: int | UnsetType = UNSET
    sid: _Sid | UnsetType = UNSET
    seq: _Seq | UnsetType = UNSET
    sending_ts_ms: _SentAt = UNSET


LifecycleFrame = MarketLifecycleFrame | ComboLifecycleFrame | EventLifecycleFrame | EventFeeFrame
Frame = (
    TradeFrame
    | TickerFrame
    | MarketLifecycleFrame
    | ComboLifecycleFrame
    | EventLifecycleFrame
    | EventFeeFrame
    | BookSnapshotFrame
    | BookDeltaFrame
    | SubscribedFrame
    | OkFrame
    | UnsubscribedFrame
    | ErrorFrame
)


class _WatchedMarkets(Struct):
    market_tickers: list[str] | None = None


read_lifecycle = msgspec.json.Decoder(LifecycleMessage).decode
_read_watched = msgspec.json.Decoder(_WatchedMarkets | None).decode


def markets_listed(reply: OkFrame) -> frozenset[str] | None:
    """The markets that a subscription holds after a change; None where the reply does not say.

    Raises:
        Unreadable: it says something else in their place.
    """
    try:
        watched = _read_watched(reply.msg)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a list of markets: {error}") from error
    if watched is None or watched.market_tickers is None:
        return None
    return frozenset(watched.market_tickers)


class _RestTrade(Struct, gc=False):
    trade_id: str
    ticker: str
    yes_price_dollars: str
    no_price_dollars: str
    count_fp: str
    created_time: _Instant
    taker_outcome_side: Side | UnsetType = UNSET
    taker_side: Side | UnsetType = UNSET
    is_block_trade: bool | UnsetType = UNSET


class _RestTradesPage(Struct):
    trades: list[Raw]
    cursor: str | None = None


_decode_rest_page = msgspec.json.Decoder(_RestTradesPage).decode
_decode_rest_trade = msgspec.json.Decoder(_RestTrade).decode


# Translation -------------------------------------------------------------------------------------


def is_time(ts_ms: int) -> bool:
    """Whether a number can be a time of the exchange in Unix ms; another unit makes it none."""
    return _EARLIEST_MS <= ts_ms <= _LATEST_MS


def exchange_ms(sending_ts_ms: int | UnsetType, received_at_ns: int) -> int:
    """The exchange's time of a frame, in Unix ms: when it was sent, or else when it was received.

    A sending time in another unit is none. The local clock is no measure of it: a recording may be
    replayed, and a simulated exchange may run ahead.
    """
    if sending_ts_ms is UNSET or not is_time(sending_ts_ms):
        return received_at_ns // 1_000_000
    return sending_ts_ms


def read_trade(message: TradeMessage) -> Trade:
    """A WebSocket trade in our units.

    Raises:
        Unreadable: a price outside (0, 1], sides that do not sum to 1, a count that is not
            positive, a time that is none, an id that is no UUID.
    """
    ts_ms = message.ts_ms
    if not _EARLIEST_MS <= ts_ms <= _LATEST_MS:
        raise Unreadable(f"ts_ms {ts_ms} is no time in milliseconds")
    side = message.taker_outcome_side
    return _trade(message, message.market_ticker, side, ts_ms * 1000, exact_time=False)


def read_rest_trades(body: bytes) -> tuple[list[Trade], list[tuple[bytes, str]], str | None]:
    """One page of GET /markets/trades or /historical/trades.

    Returns:
        The trades, the unreadable ones as (bytes, reason), and the next page's cursor or None.

    Raises:
        Unreadable: the body is not a page of trades at all.
    """
    try:
        page = _decode_rest_page(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a page of trades: {error}") from error
    if page.cursor is not None and not page.cursor.isprintable():
        raise Unreadable("not a page of trades: its cursor is no text")
    trades: list[Trade] = []
    rejected: list[tuple[bytes, str]] = []
    for raw in page.trades:
        try:
            wire = _decode_rest_trade(raw)
            traded_at = (wire.created_time - _EPOCH) // _MICROSECOND
            trades.append(
                _trade(wire, wire.ticker, wire.taker_outcome_side, traded_at, exact_time=True)
            )
        except (ValueError, RecursionError) as error:
            rejected.append((bytes(raw), str(error)))
    return trades, rejected, page.cursor or None


def _trade(
    wire: TradeMessage | _RestTrade,
    market_ticker: str,
    side: Side | UnsetType,
    traded_at_micros: int,
    *,
    exact_time: bool,
) -> Trade:
    yes_price = price_of_yes(wire.yes_price_dollars, wire.no_price_dollars)
    count = centis(wire.count_fp)
    if count == 0:
        raise Unreadable("count_fp is zero")
    if side is UNSET:
        side = wire.taker_side
        if side is UNSET:
            raise Unreadable("Object missing required field `taker_outcome_side`")
    block = wire.is_block_trade
    return Trade(
        wire.trade_id,
        ticker(market_ticker),
        yes_price,
        count,
        side,
        None if block is UNSET else block,
        traded_at_micros,
        exact_time,
    )


def read_quote(message: TickerMessage) -> Quote:
    """A ticker message in our units.

    Raises:
        Unreadable: a price outside [0, 1], a number that is none.
    """
    if not _EARLIEST_MS <= message.ts_ms <= _LATEST_MS:
        raise Unreadable(f"ts_ms {message.ts_ms} is no time in milliseconds")
    prices = (
        micros(message.price_dollars),
        micros(message.yes_bid_dollars),
        micros(message.yes_ask_dollars),
    )
    if max(prices) > MICROS_PER_DOLLAR:
        raise Unreadable("a price is beyond 1 dollar")
    return Quote(
        ticker(message.market_ticker),
        message.ts_ms,
        *prices,
        centis(message.yes_bid_size_fp),
        centis(message.yes_ask_size_fp),
        centis(message.last_trade_size_fp),
        centis(message.volume_fp),
        centis(message.open_interest_fp),
        message.dollar_volume,
        message.dollar_open_interest,
    )


@lru_cache(maxsize=1 << 16)
def price_of_yes(yes: str, no: str) -> int:
    """The price of yes in micros, the price of no being its complement."""
    price = micros(yes)
    if not 0 < price <= MICROS_PER_DOLLAR:
        raise Unreadable(f"yes_price_dollars {yes} is not within (0, 1]")
    if price + micros(no) != MICROS_PER_DOLLAR:
        raise Unreadable(f"yes {yes} and no {no} do not sum to 1")
    return price
