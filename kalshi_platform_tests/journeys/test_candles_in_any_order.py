"""Whatever arrives when, and whenever candles are refreshed, they end up the same."""

import random
from dataclasses import replace
from datetime import timedelta
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
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.transform.reference import (
    DAY,
    Candle,
    StoredTrade,
    candles,
    expected_candles,
    land,
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


@pytest.fixture(scope="module")
def transaction(postgres: EmbeddedDatabase) -> Any:
    with connect(postgres.create_database("any_order", template="migrated")) as connection:
        # Of trades alone: whether a refresh or a rebuild makes those of candles is left to luck.
        days = [(DAY + timedelta(days=offset)).date() for offset in _DAYS]
        ensure_partitions(connection, days, only=[tables.trades])
        connection.commit()
        yield connection
        connection.rollback()


@seed(20261005)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(trades=_trades(), dice=some.randoms(use_true_random=False))
def test_refreshes_in_any_order_equal_a_rebuild_and_the_reference(transaction, trades, dice):
    transaction.rollback()
    held: dict[Any, StoredTrade] = {}
    for arrival in _arrivals(trades, dice):
        land(transaction, arrival)
        held[arrival.trade_id] = arrival
        if dice.random() < 0.3:
            refresh_candles(transaction)
        if dice.random() < 0.1:
            rebuild_day(transaction, arrival.traded_at.date())
        # The tail is fresh at every step, refreshed or not.
        interval = dice.choice(list(Interval))
        assert _read(transaction, interval) == expected_candles(held.values(), interval)

    refresh_candles(transaction)
    for interval in Interval:
        assert candles(transaction, interval) == expected_candles(held.values(), interval)
    for offset in _DAYS:
        assert rebuild_day(transaction, (DAY + timedelta(days=offset)).date()).changed == 0


def _arrivals(trades: list[StoredTrade], dice: random.Random) -> list[StoredTrade]:
    """The trades shuffled, some reported twice, some first with the coarser time of the feed."""
    arrivals = list(trades)
    for each in trades:
        roll = dice.random()
        if roll < 0.2:
            arrivals.append(each)
        elif roll < 0.5:
            milliseconds = each.traded_at.microsecond // 1000 * 1000 + 1000
            coarse = each.traded_at.replace(microsecond=0) + timedelta(microseconds=milliseconds)
            arrivals.append(replace(each, traded_at=coarse))
    dice.shuffle(arrivals)
    return arrivals


def _read(connection: psycopg.Connection[Any], interval: Interval) -> list[Candle]:
    frames = [candles_frame(connection, market, interval, *_WINDOW) for market in _MARKETS]
    return [Candle(*row) for frame in frames for row in frame.itertuples(index=False)]
