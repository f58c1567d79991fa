"""What stands in the books of markets at an instant: the one truth that everybody is told.

Tickers, snapshots and deltas of the stream, markets and order books over REST, and candlesticks all
read from here. A book is that of the step (a second) which holds the instant. It is empty before a
market opens and from its close on, is held during a pause, and begins anew after one. See
`schedule.resting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import DOLLAR_E4
from kalshi_simulator.hashing import Integers, Words
from kalshi_simulator.layout import Layout
from kalshi_simulator.markets import Market
from kalshi_simulator.quotes import (
    Mask,
    Quotes,
    level_sizes,
    quotes_at,
    quotes_of_market,
    withdrawn,
)
from kalshi_simulator.schedule import STEP_US

BOOK_LEVELS = 8

Side = dict[int, int]


class Top(NamedTuple):
    """Best quotes in e4 and what rests there in centis; an empty side is 0 or 1 dollar, size 0."""

    bid_e4: int
    ask_e4: int
    bid_centis: int
    ask_centis: int


NO_TOP = Top(0, DOLLAR_E4, 0, 0)


class Book(NamedTuple):
    """Bids of both sides, {price e4: centis}; no-side prices in no terms."""

    yes: Side
    no: Side


@dataclass(frozen=True)
class Tops:
    """Columns of `Top`, row by row."""

    bid_e4: Integers
    ask_e4: Integers
    bid_centis: Integers
    ask_centis: Integers

    def columns(self) -> tuple[Integers, Integers, Integers, Integers]:
        return self.bid_e4, self.ask_e4, self.bid_centis, self.ask_centis


@dataclass(frozen=True)
class _Resting:
    """What the rows of a question come to: whose orders, and which sides have none."""

    us: Integers
    keys: Words
    quotes: Quotes
    no_yes: Mask
    no_no: Mask


def _resting(layout: Layout, slots: Integers, us: Integers) -> _Resting:
    shown, empty = schedule.resting(layout, slots, us)
    keys = layout.market_keys(slots, layout.instance_at(slots, shown))
    no_yes, no_no = withdrawn(keys, shown)
    return _Resting(shown, keys, quotes_at(layout, slots, shown), empty | no_yes, empty | no_no)


def tops_at(layout: Layout, slots: Integers, us: Integers) -> Tops:
    """Best quotes of the markets that have the slots at the instants, row by row."""
    found = _resting(layout, slots, us)
    bid, ask = found.quotes.bid_e4(), found.quotes.ask_e4()
    return Tops(
        np.where(found.no_yes, 0, bid),
        np.where(found.no_no, DOLLAR_E4, ask),
        np.where(found.no_yes, 0, level_sizes(found.keys, 0, bid, found.us)),
        np.where(found.no_no, 0, level_sizes(found.keys, 1, DOLLAR_E4 - ask, found.us)),
    )


def has_book(market: Market, us: int) -> bool:
    """Whether the slot of a market is its own in the step that holds an instant."""
    step_us = us // STEP_US * STEP_US
    return not market.is_dormant and market.open_us <= step_us < market.planned_close_us


def tops_of(layout: Layout, markets: Sequence[Market], instants: Sequence[int]) -> list[Top]:
    """Best quotes of markets, each at its own instant."""
    found = [NO_TOP] * len(markets)
    pairs = zip(markets, instants, strict=True)
    own = [number for number, (market, us) in enumerate(pairs) if has_book(market, us)]
    if own:
        slots = np.array([markets[number].slot for number in own], dtype=np.int64)
        tops = tops_at(layout, slots, np.array([instants[number] for number in own]))
        rows = zip(*(column.tolist() for column in tops.columns()), strict=True)
        for number, row in zip(own, rows, strict=True):
            found[number] = Top(*row)
    return found


def prices_of_market(layout: Layout, market: Market, steps: Integers) -> tuple[Integers, Integers]:
    """Best bid and ask (e4) of one market at ascending steps of its life: tops_at, much faster."""
    slots = np.full(len(steps), market.slot, dtype=np.int64)
    shown, empty = schedule.resting(layout, slots, steps * STEP_US)
    keys = np.full(len(steps), market.key, dtype=np.uint64)
    no_yes, no_no = withdrawn(keys, shown)
    quotes = quotes_of_market(
        layout, market.slot, market.open_us, market.period_us, shown // STEP_US
    )
    bids = np.where(empty | no_yes, 0, quotes.bid_e4())
    return bids, np.where(empty | no_no, DOLLAR_E4, quotes.ask_e4())


def books_at(layout: Layout, slots: Integers, us: Integers) -> list[Book]:
    """Books of the markets that have the slots at the instants, row by row."""
    found = _resting(layout, slots, us)
    structures = found.quotes.structures[:, None]
    depth = np.arange(BOOK_LEVELS, dtype=np.int64)
    bids, asks = found.quotes.bid[:, None] - depth, found.quotes.ask[:, None] + depth
    last = ticks.last_index(structures)
    yes = ticks.price_at(structures, np.maximum(bids, 0))
    no = DOLLAR_E4 - ticks.price_at(structures, np.minimum(asks, last))
    keys, at = found.keys[:, None], found.us[:, None]
    sizes = level_sizes(keys, 0, yes, at), level_sizes(keys, 1, no, at)
    sizes[0][(bids < 0) | found.no_yes[:, None]] = 0
    sizes[1][(asks > last) | found.no_no[:, None]] = 0
    rows = zip(yes.tolist(), sizes[0].tolist(), no.tolist(), sizes[1].tolist(), strict=True)
    return [
        Book(_side(yes_prices, yes_sizes), _side(no_prices, no_sizes))
        for yes_prices, yes_sizes, no_prices, no_sizes in rows
    ]


def _side(prices: list[int], sizes: list[int]) -> Side:
    return {e4: centis for e4, centis in zip(prices, sizes, strict=True) if centis}


def books_of(layout: Layout, markets: Sequence[Market], us: int) -> list[Book]:
    """Books of markets at one instant."""
    own = [market for market in markets if has_book(market, us)]
    books: dict[str, Book] = {}
    if own:
        slots = np.array([market.slot for market in own], dtype=np.int64)
        found = books_at(layout, slots, np.full(len(own), us, dtype=np.int64))
        books = {market.ticker: book for market, book in zip(own, found, strict=True)}
    return [books.get(market.ticker) or Book({}, {}) for market in markets]
