"""Whatever arrives when, and whenever candles are refreshed, they end up the same."""

import random
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as some

from kalshi_platform.storage import tables
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.candles import candles_frame
from kalshi_platform.storage.reads.quality import answer
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform import quality, quality_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.transform.reference import (
    DAY,
    Candle,
    StoredGap,
    StoredQuote,
    StoredTrade,
    candles,
    expected_candles,
    land,
    lose,
    quote,
    rows_of,
    tell,
    trade,
)

_MARKETS = ("KXA", "KXB")
_DAYS = (-1, 0, 1)
_WINDOW = (DAY - timedelta(days=1), DAY + timedelta(days=2))

# Few distinct instants and prices, on both sides of a minute, an hour and midnight: ties abound.
_instants = some.sampled_from(
    [DAY + timedelta(seconds=second) for second in (-60, -1, 0, 5, 59, 60, 3599, 3600, 86_399)]
)


@some.composite
def _trades(draw: Any) -> list[StoredTrade]:
    numbers = count(1)
    parts = some.builds(
        lambda at, micros, price, size, order, market: trade(
            at + timedelta(microseconds=micros),
            price,
            size,
            feed_order=order,
            market=market,
            number=next(numbers),
        ),
        _instants,
        some.sampled_from([0, 1, 999_999]),
        some.integers(1, 1_000_000),
        some.integers(1, 10**9),
        some.none() | some.integers(1, 5),
        some.sampled_from(_MARKETS),
    )
    return draw(some.lists(parts, min_size=1, max_size=14))


@some.composite
def _quotes(draw: Any) -> list[StoredQuote]:
    # Milliseconds, at the very start of a minute, hour or day as often as not; ties abound.
    orders = count(1)
    parts = some.builds(
        lambda at, millis, bid, width, interest, market: quote(
            at + timedelta(milliseconds=millis),
            bid,
            min(1_000_000, bid + width),
            interest,
            feed_order=next(orders),
            market=market,
        ),
        _instants,
        some.sampled_from([0, 0, 1]),
        some.integers(0, 990_000),
        some.integers(10_000, 500_000),
        some.integers(0, 10**9),
        some.sampled_from(_MARKETS),
    )
    return draw(some.lists(parts, max_size=10))


@some.composite
def _gaps(draw: Any) -> list[StoredGap]:
    parts = some.builds(
        lambda at, length, market: StoredGap(at, at + timedelta(seconds=length), market),
        _instants,
        some.sampled_from([0, 1, 60, 4_000, 90_000]),
        some.none() | some.sampled_from(_MARKETS),
    )
    return draw(some.lists(parts, max_size=3))


@pytest.fixture(scope="module")
def transaction(postgres: EmbeddedDatabase) -> Any:
    with connect(postgres.create_database("any_order", template="migrated")) as connection:
        # Not of candles: whether a refresh or a rebuild makes their partitions is left to luck.
        days = [(DAY + timedelta(days=offset)).date() for offset in _DAYS]
        ensure_partitions(connection, days, only=[tables.trades, tables.quotes])
        connection.commit()
        yield connection
        connection.rollback()


@seed(20261005)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(trades=_trades(), quotes=_quotes(), gaps=_gaps(), dice=some.randoms(use_true_random=False))
def test_refreshes_in_any_order_equal_a_rebuild_and_the_reference(
    transaction, trades, quotes, gaps, dice
):
    transaction.rollback()
    held = _Held()
    arrivals = [*_arrivals(trades, dice), *quotes, *gaps]
    dice.shuffle(arrivals)
    for arrival in arrivals:
        day = held.take(transaction, arrival)
        if dice.random() < 0.3:
            refresh_candles(transaction)
        if dice.random() < 0.1:
            rebuild_day(transaction, day)
        # The tail is fresh at every step, refreshed or not.
        if dice.random() < 0.5:
            interval = dice.choice(list(Interval))
            assert _read(transaction, interval) == held.candles(interval)

    refresh_candles(transaction)
    for interval in Interval:
        assert candles(transaction, interval) == held.candles(interval)
    for check in (*quality_candles.CHECKS[:1], *quality.CHECKS):
        for offset in _DAYS:
            on = (DAY + timedelta(days=offset)).date()
            if check.name in _ABOUT_CANDLES:
                assert answer(transaction, check.query(on))[0], check.name
    for offset in _DAYS:
        assert rebuild_day(transaction, (DAY + timedelta(days=offset)).date()).changed == 0
    assert refresh_candles(transaction).changed == 0


_ABOUT_CANDLES = {"candles_equal_quotes", "candles_equal_trades", "volume_kept"}


class _Held:
    """What has arrived so far, by the reference."""

    def __init__(self) -> None:
        self.trades: dict[Any, StoredTrade] = {}
        self.quotes: list[StoredQuote] = []
        self.gaps: list[StoredGap] = []

    def take(self, connection: psycopg.Connection[Any], arrival: Any) -> date:
        """Let it arrive; the UTC day that it is of."""
        if isinstance(arrival, StoredTrade):
            land(connection, arrival)
            self.trades[arrival.trade_id] = arrival
            return arrival.traded_at.date()
        if isinstance(arrival, StoredQuote):
            tell(connection, arrival)
            self.quotes.append(arrival)
            return arrival.quoted_at.date()
        lose(connection, arrival.starts_at, arrival.ends_at, arrival.market_ticker)
        self.gaps.append(arrival)
        return arrival.starts_at.date()

    def candles(self, interval: Interval) -> list[Candle]:
        return expected_candles(self.trades.values(), interval, self.quotes, self.gaps)


def _arrivals(trades: list[StoredTrade], dice: random.Random) -> list[StoredTrade]:
    """The trades, some reported twice, some also with the coarser time of the feed."""
    arrivals = list(trades)
    for each in trades:
        roll = dice.random()
        if roll < 0.2:
            arrivals.append(each)
        elif roll < 0.5:
            milliseconds = each.traded_at.microsecond // 1000 * 1000 + 1000
            coarse = each.traded_at.replace(microsecond=0) + timedelta(microseconds=milliseconds)
            arrivals.append(replace(each, traded_at=coarse))
    return arrivals


def _read(connection: psycopg.Connection[Any], interval: Interval) -> list[Candle]:
    frames = [candles_frame(connection, market, interval, *_WINDOW) for market in _MARKETS]
    return [row for frame in frames for row in rows_of(frame)]
