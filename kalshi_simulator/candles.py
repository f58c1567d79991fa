"""Candlesticks out of the ledger, in the true order of execution.

A bucket is half-open, [end - period, end), and exists only when a trade or a quote moved in it.
What stands when it begins is part of it. The bucket in which a market closes ends with an empty
book.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import HOUR_US, MINUTE_US
from kalshi_simulator.hashing import Integers
from kalshi_simulator.layout import Layout
from kalshi_simulator.markets import Market
from kalshi_simulator.schedule import STEP_US
from kalshi_simulator.standing import prices_of_market, tops_of
from kalshi_simulator.tallies import interest_changes


@dataclass(frozen=True, slots=True)
class Range:
    """Open, high, low and close in e4."""

    open: int
    high: int
    low: int
    close: int


@dataclass(frozen=True, slots=True)
class Candle:
    """One bucket of one market. `price` and `mean_e4` are None when nothing traded."""

    end_us: int
    price: Range | None
    mean_e4: int | None
    previous_e4: int | None
    bid: Range
    ask: Range
    volume_centis: int
    interest_centis: int


def candles_of(
    exchange: Exchange, market: Market, first_end_us: int, last_end_us: int, period_us: int,
    now_us: int,
) -> list[Candle]:  # fmt: skip
    """Candles that end within [first_end_us, last_end_us], ascending.

    Ends are multiples of the period. The bucket that is still running shows what has happened.
    """
    first = max(first_end_us - period_us, market.open_us // period_us * period_us)
    last = min(last_end_us, (market.close_us // period_us + 1) * period_us)
    to_us = min(last, now_us)
    if to_us <= first or market.is_dormant:
        return []
    trades = _Trades(exchange, market, first, to_us, period_us)
    before = exchange.last_trade(market, first)
    previous = before[0] if before else None
    interest = exchange.ledger.totals(market.slot, max(first, market.open_us))[1]
    interest -= exchange.ledger.totals(market.slot, market.open_us)[1]
    quotes = _quote_ranges(exchange.layout, market, first, to_us, period_us)
    found: list[Candle] = []
    standing = _standing_before(exchange.layout, market, first)
    for start in range(first, to_us, period_us):
        bid, ask = quotes[start]
        moved = standing != (bid.close, ask.close) or bid.low != bid.high or ask.low != ask.high
        traded = trades.buckets.get(start)
        if traded is not None:
            interest += traded.interest
        if moved or traded is not None:
            found.append(Candle(
                start + period_us,
                traded.price if traded else None,
                traded.mean_e4 if traded else None,
                previous,
                bid,
                ask,
                traded.volume if traded else 0,
                max(0, interest),
            ))  # fmt: skip
        if traded is not None:
            previous = traded.price.close
        standing = (bid.close, ask.close)
    return found


@dataclass(frozen=True, slots=True)
class _Traded:
    price: Range
    mean_e4: int
    volume: int
    interest: int


class _Trades:
    """The trades of a market folded into buckets by start."""

    def __init__(
        self, exchange: Exchange, market: Market, from_us: int, to_us: int, period_us: int
    ) -> None:
        self.buckets: dict[int, _Traded] = {}
        end = min(to_us, market.close_us)
        rows = exchange.ledger.rows_of_slot(market.slot, max(from_us, market.open_us), end)
        if not len(rows):
            return
        buckets = rows.us // period_us
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        ends = np.append(starts[1:], len(rows))
        prices = rows.price_e4.astype(np.int64)
        volumes = np.add.reduceat(rows.centis, starts).tolist()
        interests = np.add.reduceat(interest_changes(rows), starts).tolist()
        paid = np.add.reduceat(prices * rows.centis, starts).tolist()
        columns = zip(
            (buckets[starts] * period_us).tolist(), prices[starts].tolist(),
            np.maximum.reduceat(prices, starts).tolist(),
            np.minimum.reduceat(prices, starts).tolist(),
            prices[ends - 1].tolist(), volumes, interests, paid, strict=True,
        )  # fmt: skip
        for start, first, high, low, close, volume, interest, total in columns:
            mean = (2 * total + volume) // (2 * volume)
            self.buckets[start] = _Traded(Range(first, high, low, close), mean, volume, interest)


def _quote_ranges(
    layout: Layout, market: Market, from_us: int, to_us: int, period_us: int
) -> dict[int, tuple[Range, Range]]:
    """Bid and ask of every bucket from from_us on, by its start."""
    hours = range(from_us // HOUR_US, (to_us - 1) // HOUR_US + 1)
    parts = [
        _steps_of_hour(layout, market, hour)
        for hour in hours
        if hour * HOUR_US < market.close_us and (hour + 1) * HOUR_US > market.open_us
    ]
    if not parts:
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))]
    instants, bids, asks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if market.close_us < to_us:
        # Every order left goes away with the market, as it is told at the next step.
        instants = np.append(instants, -(-market.close_us // STEP_US) * STEP_US)
        bids, asks = np.append(bids, 0), np.append(asks, 10_000)
    inside = (instants >= from_us) & (instants < to_us)
    instants, bids, asks = instants[inside], bids[inside], asks[inside]
    buckets = instants // period_us
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    ends = np.append(starts[1:], len(buckets))
    found: dict[int, tuple[Range, Range]] = {}
    for left, right in zip(starts, ends, strict=True):
        found[int(buckets[left]) * period_us] = (
            _range(bids[left:right]),
            _range(asks[left:right]),
        )
    return found


def _standing_before(layout: Layout, market: Market, us: int) -> tuple[int, int] | None:
    """Bid and ask that stood until an instant; None when the market was not open yet."""
    if us <= market.open_us:
        return None
    [top] = tops_of(layout, [market], [us - 1])
    return top.bid_e4, top.ask_e4


def _range(values: Integers) -> Range:
    return Range(int(values[0]), int(values.max()), int(values.min()), int(values[-1]))


@lru_cache(maxsize=16_384)
def _steps_of_hour(
    layout: Layout, market: Market, hour: int
) -> tuple[Integers, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Start, bid and ask of the steps of one hour in which the market lives and anything changed.

    The first step of each minute is kept, so that a quiet minute knows what stood.
    """
    begin = max(hour * HOUR_US, market.open_us)
    end = min((hour + 1) * HOUR_US, market.close_us)
    steps = np.arange(begin // STEP_US, -(-end // STEP_US), dtype=np.int64)
    prices = prices_of_market(layout, market, steps)
    bids, asks = (column.astype(np.int32) for column in prices)
    changed = (np.diff(bids, prepend=-1) != 0) | (np.diff(asks, prepend=-1) != 0)
    kept = changed | (steps % (MINUTE_US // STEP_US) == 0)
    return steps[kept] * STEP_US, bids[kept], asks[kept]
