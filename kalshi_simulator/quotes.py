"""Quotes and books: what is bid and asked at any instant, from the seed alone.

A market's quotes stand still within a step of one second. The middle is a sum of smooth noises,
from hours down to seconds, so it wanders like a price and can be asked for at any instant. Bid
and ask are positions in the market's grid of prices; sizes of levels are redrawn now and then.
These are the quotes that trades happen at. What of them a market shows is told by `standing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import DOLLAR_E4, HOUR_US, MINUTE_US, SECOND_US
from kalshi_simulator.hashing import Integers, Words, hash_words
from kalshi_simulator.layout import Layout
from kalshi_simulator.schedule import STEP_US

Mask = npt.NDArray[np.bool_]

_REDRAWN_EVERY = 9  # steps between two sizes of one level
_LONELY = 8_191

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
    """Quotes of one market at steps (step numbers, ascending): quotes_at, much faster.

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


def level_sizes(keys: Words, side: int, e4: Integers, us: Integers) -> Integers:
    """Centis resting at prices at instants, row by row; side 0 is yes, 1 is no."""
    places = hash_words(hash_words(keys, side), e4)
    turns = (
        us // STEP_US + (places % np.uint64(_REDRAWN_EVERY)).astype(np.int64)
    ) // _REDRAWN_EVERY
    draws = hash_words(places, turns)
    widths = np.uint64(3) + draws % np.uint64(11)
    wholes = np.uint64(1) + (draws >> np.uint64(20)) % (np.uint64(1) << widths)
    parts = np.where(
        draws % np.uint64(4) == 0, (draws >> np.uint64(45)) % np.uint64(100), np.uint64(0)
    )
    return np.asarray((wholes * np.uint64(100) + parts).astype(np.int64))


def withdrawn(keys: Words, us: Integers) -> tuple[Mask, Mask]:
    """Where nobody bids for yes, and where nobody bids for no: half a minute now and then.

    One market in twelve knows this. Its trades go on all the while.
    """
    drawn = hash_words(keys ^ np.uint64(_LONELY), us // (MINUTE_US // 2))
    gone = (keys % np.uint64(12) == 5) & (drawn % np.uint64(60) == 0)
    is_no = drawn >> np.uint64(63) == 1
    return np.asarray(gone & ~is_no), np.asarray(gone & is_no)
