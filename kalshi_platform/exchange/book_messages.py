"""Messages of order books: what the wire carries, and the same in our units.

A snapshot tells a whole book, a delta the change of one price level. Both sides are bids; prices
here are always in terms of their own side, whatever the feed was asked to send (`use_yes_price`).

Source: the WebSocket reference of docs.kalshi.com, orderbook updates, read 2026-10.
"""

from collections.abc import Callable

from msgspec import UNSET, Raw, Struct, UnsetType

from kalshi_platform.exchange.numbers import (
    MICROS_PER_DOLLAR,
    Side,
    Unreadable,
    WireInteger,
    centis,
    price_within,
    signed_centis,
    ticker,
)

Levels = dict[int, int]
"""Contracts (centis) by price (micros), ascending."""


class BookSnapshot(Struct, gc=False):
    """A whole book; only levels with contracts."""

    market_ticker: str
    yes: Levels
    no: Levels


class BookDelta(Struct, gc=False):
    """The change of one level."""

    market_ticker: str
    side: Side
    price_micros: int
    delta_centis: int
    """Contracts more, or fewer where negative."""


# What the wire carries ---------------------------------------------------------------------------


class BookSnapshotMessage(Struct):
    market_ticker: str
    # A side without orders is left out.
    yes_dollars_fp: list[tuple[str, str]] | UnsetType = UNSET
    no_dollars_fp: list[tuple[str, str]] | UnsetType = UNSET
    # How sides were called before 2026-03-12: where these come alone, the book is not empty.
    yes: Raw | UnsetType = UNSET
    no: Raw | UnsetType = UNSET
    yes_dollars: Raw | UnsetType = UNSET
    no_dollars: Raw | UnsetType = UNSET


class BookDeltaMessage(Struct, gc=False):
    market_ticker: str
    price_dollars: str
    delta_fp: str
    side: Side
    ts_ms: WireInteger | UnsetType = UNSET


# Translation -------------------------------------------------------------------------------------


def read_snapshot(message: BookSnapshotMessage, *, use_yes_price: bool) -> BookSnapshot:
    """A snapshot in our units.

    Args:
        use_yes_price: the feed tells prices of the no side in terms of yes.

    Raises:
        Unreadable: a price outside (0, 1) or there twice, a count that is not positive, sides in
            the shape of before 2026-03-12.
    """
    sides = message.yes_dollars_fp, message.no_dollars_fp
    earlier = message.yes, message.no, message.yes_dollars, message.no_dollars
    if sides == (UNSET, UNSET) and any(side is not UNSET for side in earlier):
        raise Unreadable("Object missing required field `yes_dollars_fp` or `no_dollars_fp`")
    return BookSnapshot(
        ticker(message.market_ticker),
        _levels(sides[0], price_within),
        _levels(sides[1], _complement if use_yes_price else price_within),
    )


def read_delta(message: BookDeltaMessage, *, use_yes_price: bool) -> BookDelta:
    """A delta in our units.

    Raises:
        Unreadable: a price outside (0, 1), a number that is none.
    """
    price, side = price_within(message.price_dollars), message.side
    if use_yes_price and side == "no":
        price = MICROS_PER_DOLLAR - price
    return BookDelta(ticker(message.market_ticker), side, price, signed_centis(message.delta_fp))


def _levels(wire: list[tuple[str, str]] | UnsetType, price_of: Callable[[str], int]) -> Levels:
    if wire is UNSET:
        return {}
    levels: Levels = {}
    for price, count in wire:
        size = centis(count)
        if size == 0:
            raise Unreadable(f"a level at {price} without contracts")
        levels[price_of(price)] = size
    if len(levels) < len(wire):
        raise Unreadable("a price is there twice")
    return dict(sorted(levels.items()))


def _complement(price: str) -> int:
    return MICROS_PER_DOLLAR - price_within(price)
