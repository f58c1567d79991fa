"""Quotes and books: what is bid and asked at any instant, from the seed alone.

A market's quotes stand still within a step of one second. The middle is a sum of smooth noises,
from hours down to seconds, so it wanders like a price and can be asked for at any instant. Bid
and ask are positions in the market's grid of prices; sizes of levels are redrawn now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import DOLLAR_E4, HOUR_US, MINUTE_US, SECOND_US
from kalshi_simulator.hashing import Integers, Words, hash_of, hash_words
from kalshi_simulator.layout import Layout

STEP_US = SECOND_US
BOOK_LEVELS = 8
_REDRAWN_EVERY = 9  # steps between two sizes of one level

# period, swing in e4
_WAVES = (
    (6 * HOUR_US, 1_800), (45 * MINUTE_US, 900), (6 * MINUTE_US, 350),
    (40 * SECOND_US, 90), (7 * SECOND_US, 25),
)  # fmt: skip


@dataclass(frozen=True)
class Quotes:
    """Best quotes of markets at instants, as positions in the grid of `structures`."""

    structures: Integers
    bid: Integers
    ask: Integers

    def bid_e4(self) -> Integers:
        return ticks.price_at(self.structures, self.bid)

    def ask_e4(self) -> Integers:
        return ticks.price_at(self.structures, self.ask)


def quotes_at(layout: Layout, slots: Integers, us: Integers) -> Quotes:
    """Quotes of the markets that have the slots at the instants, row by row."""
    steps = us // STEP_US
    instants = steps * STEP_US
    keys = layout.market_keys(slots, layout.instance_at(slots, us))
    total = _base_e4(keys)
    for salt, (period, swing) in enumerate(_WAVES):
        cells = instants // period
        wave = keys ^ np.uint64(salt + 1)
        here, there = _corner(wave, cells), _corner(wave, cells + 1)
        total = total + _between(here, there, instants, cells, period, swing)
    return _quotes(schedule.structures(layout, slots, us), total, _spread(keys, steps // 5))


def quotes_of_market(
    layout: Layout, slot: int, open_us: int, period_us: int, steps: Integers
) -> Quotes:
    """Quotes of one market at consecutive steps (step numbers): quotes_at, much faster.

    Noises are drawn once for a cell of theirs, not once for a step.
    """
    one = np.array([slot], dtype=np.int64)
    opened = np.array([open_us], dtype=np.int64)
    key = layout.market_keys(one, layout.instance_at(one, opened))
    instants = steps * STEP_US
    before = schedule.structures(layout, one, opened)
    after = schedule.structures(layout, one, opened + period_us - 1)
    structures = np.where(instants >= open_us + schedule.half(period_us), after, before)
    total = _base_e4(key)
    for salt, (period, swing) in enumerate(_WAVES):
        cells = instants // period
        corners = np.arange(int(cells[0]), int(cells[-1]) + 2, dtype=np.int64)
        drawn = _corner(key ^ np.uint64(salt + 1), corners)
        at = cells - cells[0]
        total = total + _between(drawn[at], drawn[at + 1], instants, cells, period, swing)
    fifths = steps // 5
    widths = np.arange(int(fifths[0]), int(fifths[-1]) + 1, dtype=np.int64)
    spread = _spread(key, widths)[fifths - fifths[0]]
    return _quotes(structures, total, spread)


def _quotes(structures: Integers, middle: Integers, spread: Integers) -> Quotes:
    last = ticks.last_index(structures)
    middle_e4 = np.clip(middle, 20, DOLLAR_E4 - 20)
    bid = np.minimum(ticks.index_at(structures, middle_e4), last - 1)
    return Quotes(structures, bid, np.minimum(bid + spread, last))


def _base_e4(keys: Words) -> Integers:
    return 300 + (keys % np.uint64(9_400)).astype(np.int64)


def _spread(keys: Words, fifths: Integers) -> Integers:
    """Ticks between bid and ask, the same for five steps."""
    wide = (hash_words(keys, fifths) >> np.uint64(61)).astype(np.int64)
    return np.asarray(1 + (wide == 0) + (wide <= 1))


def _corner(keys: Words, cells: Integers) -> Integers:
    """What a noise is at the beginning of a cell, within +-2^20."""
    return (hash_words(keys, cells) >> np.uint64(43)).astype(np.int64) - (1 << 20)


def _between(
    here: Integers, there: Integers, us: Integers, cells: Integers, period_us: int, swing: int
) -> Integers:
    """Straight from corner to corner, scaled to a swing in e4."""
    parts = (us - cells * period_us) * 1_024 // period_us
    return (here + ((there - here) * parts >> 10)) * swing // (1 << 20)


def level_size(key: int, side: int, e4: int, step: int) -> int:
    """Centis resting at a price during a step; side 0 is yes, 1 is no."""
    place = hash_of(key, side, e4)
    draw = hash_of(place, (step + place % _REDRAWN_EVERY) // _REDRAWN_EVERY)
    whole = 100 * (1 + (draw >> 20) % (1 << (3 + draw % 11)))
    return whole + (draw >> 45) % 100 if draw % 4 == 0 else whole


def book_at(layout: Layout, slot: int, us: int) -> tuple[dict[int, int], dict[int, int]]:
    """Bids of both sides, {price e4: centis}; no-side prices in no terms, ascending."""
    slots = np.array([slot], dtype=np.int64)
    instants = np.array([us], dtype=np.int64)
    quotes = quotes_at(layout, slots, instants)
    instance = int(layout.instance_at(slots, instants)[0])
    key = hash_of(int(layout.key[slot]), instance)
    step = us // STEP_US
    prices = ticks.grid(int(quotes.structures[0]))
    bid, ask = int(quotes.bid[0]), int(quotes.ask[0])
    yes = [int(price) for price in prices[max(0, bid - BOOK_LEVELS + 1) : bid + 1]]
    no = [DOLLAR_E4 - int(price) for price in prices[ask : ask + BOOK_LEVELS][::-1]]
    return (
        {e4: level_size(key, 0, e4, step) for e4 in yes},
        {e4: level_size(key, 1, e4, step) for e4 in no},
    )
