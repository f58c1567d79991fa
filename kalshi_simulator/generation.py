"""Trades of one block of time, out of the seed.

A taker order comes, and fills against one or more resting orders: its trades share one
microsecond, are numbered in order of execution, and walk away from the best price. Orders crowd
into bursts, into few markets (Zipf) and around midnight, because that is where mistakes hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import DAY_US, MINUTE_US, SECOND_US
from kalshi_simulator.hashing import Integers, Words, hash_of, hash_words
from kalshi_simulator.layout import Layout
from kalshi_simulator.quotes import quotes_at

TAKER_YES, BLOCK_TRADE, OPENS, CLOSES, ORDER_ENDS = 1, 2, 4, 8, 16

_FILLS = np.array([1, 2, 3, 4, 6, 12, 26], dtype=np.int64)
_FILL_PER_MILLE = np.array([620, 180, 100, 50, 30, 15, 5], dtype=np.int64)
_MEAN_FILLS_MILLI = int((_FILLS * _FILL_PER_MILLE).sum())
_BURST_EVERY_SECONDS = 400  # on average, for three seconds
_BURST_MOST = 5_000  # trades a second


@dataclass
class Rows:
    """Trades in order of execution, a column each."""

    us: Integers
    slot: npt.NDArray[np.int32]
    price_e4: npt.NDArray[np.int32]
    centis: Integers
    flags: npt.NDArray[np.uint8]
    high: Words
    low: Words

    def __len__(self) -> int:
        return len(self.us)

    def take(self, which: npt.NDArray[np.bool_] | Integers | slice) -> Rows:
        """A selection of the rows, in the order selected."""
        return Rows(
            self.us[which], self.slot[which], self.price_e4[which], self.centis[which],
            self.flags[which], self.high[which], self.low[which],
        )  # fmt: skip

    @staticmethod
    def concatenated(parts: list[Rows]) -> Rows:
        return Rows(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("us", "slot", "price_e4", "centis", "flags", "high", "low")
            )
        )


def trades_of_block(layout: Layout, key: int, start_us: int, end_us: int, rate: float) -> Rows:
    """All trades in [start_us, end_us) at `rate` trades a second.

    `key` seeds the block; the same arguments give the same trades, ids included.
    """
    dice = np.random.Generator(np.random.PCG64(key))
    fresh = _order_times(dice, layout.seed, start_us, end_us, rate)
    midnight = _midnight_times(dice, start_us, end_us)
    us = np.sort(np.concatenate([fresh, midnight]), kind="stable")
    # A trade on a whole minute would hang on which end of a bucket is closed.
    us = us + (us % MINUTE_US == 0)
    slots = np.searchsorted(layout.shares, dice.random(len(us)), side="right").astype(np.int64)
    slots = np.minimum(slots, len(layout.slots) - 1)

    quotes = quotes_at(layout, slots, us)
    takes_yes = dice.integers(0, 100, len(us)) < 54
    is_block = dice.integers(0, 1_000, len(us)) < 3
    fills = np.repeat(_FILLS, _FILL_PER_MILLE)[dice.integers(0, 1_000, len(us))]
    fills[is_block] = 1
    depth = np.minimum(dice.integers(1, 5, len(us)), fills)
    best = np.where(takes_yes, quotes.ask, quotes.bid)

    order = np.repeat(np.arange(len(us)), fills)
    nth = np.arange(len(order)) - np.repeat(np.cumsum(fills) - fills, fills)
    level = nth * depth[order] // fills[order]
    index = np.where(takes_yes[order], best[order] + level, best[order] - level)
    index = np.clip(index, 0, ticks.last_index(quotes.structures[order]))
    price = ticks.price_at(quotes.structures[order], index)

    size = 1 + (dice.integers(0, 1 << 20, len(order)) >> dice.integers(8, 21, len(order)))
    part = np.where(dice.integers(0, 10, len(order)) < 3, dice.integers(1, 100, len(order)), 0)
    centis = size * 100 * np.where(is_block[order], 50, 1)
    tiny = dice.integers(0, 50, len(order)) == 0
    centis = np.where(tiny & (part > 0), part, centis + part)

    interest = dice.integers(0, 10, len(order))
    flags = (
        takes_yes[order] * TAKER_YES
        + is_block[order] * BLOCK_TRADE
        + (interest < 5) * OPENS
        + (interest >= 8) * CLOSES
        + (nth == fills[order] - 1) * ORDER_ENDS
    )
    ids = np.uint64(key) ^ np.arange(len(order), dtype=np.uint64)
    rows = Rows(
        us[order], slots[order].astype(np.int32), price.astype(np.int32), centis,
        flags.astype(np.uint8), hash_words(ids, 1), hash_words(ids, 2),
    )  # fmt: skip
    # Cut by time only after all is drawn: a block that ends early has the same first trades.
    allowed = schedule.trading(layout, slots, us) & (us >= start_us) & (us < end_us)
    return rows.take(np.asarray(allowed[order]))


def block_key(seed: int, epoch: int, number: int) -> int:
    """The word that seeds one block."""
    return hash_of(seed, 1_001, epoch, number)


def _order_times(
    dice: np.random.Generator, seed: int, start_us: int, end_us: int, rate: float
) -> Integers:
    """Unsorted instants of taker orders, ten times as dense in bursts."""
    seconds = -(-(end_us - start_us) // SECOND_US)
    first = start_us // SECOND_US
    clock = np.arange(first, first + seconds, dtype=np.int64) // 3
    drawn = hash_words(np.full(seconds, hash_of(seed, 55), dtype=np.uint64), clock)
    # Ten times as many, or less where that would be more than a client is meant to stand.
    burst = max(2, min(10, int(_BURST_MOST / rate))) if rate else 1
    weights = np.where(drawn % np.uint64(_BURST_EVERY_SECONDS // 3) == 0, burst, 1)
    usual = rate / (1 + (burst - 1) * 3 / _BURST_EVERY_SECONDS)
    orders = int(dice.poisson(usual * int(weights.sum()) * 1_000 / _MEAN_FILLS_MILLI))
    bounds = np.cumsum(weights)
    second = np.searchsorted(bounds, dice.integers(0, int(bounds[-1]), orders), side="right")
    return start_us + second.astype(np.int64) * SECOND_US + dice.integers(0, SECOND_US, orders)


def _midnight_times(dice: np.random.Generator, start_us: int, end_us: int) -> Integers:
    """A few orders within a millisecond of each UTC midnight, on both sides of it."""
    nearest = -(-(start_us - SECOND_US) // DAY_US) * DAY_US
    times = [
        midnight + side * int(offset)
        for midnight in range(nearest, end_us + SECOND_US, DAY_US)
        for side in (-1, 1)
        for offset in dice.integers(1, 900, 3)
    ]
    return np.array(times, dtype=np.int64)
