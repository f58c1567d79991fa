"""Candles stay equal to their trades, whatever arrives when."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import (
    ensure_partitions,
    has_partition,
    partition_bounds,
)
from kalshi_platform.storage.writes import candles as writes
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.transform.reference import (
    DAY,
    candles,
    expected_candles,
    land,
    trade,
)

ONE_MINUTE, ONE_HOUR, ONE_DAY = Interval


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back."""
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


def test_two_trades_in_one_minute_make_one_candle(connection):
    land(connection, trade("10:00:05", 400_000, 150), trade("10:00:50", 450_000, 25))
    refresh_candles(connection)
    [candle] = candles(connection, ONE_MINUTE)
    assert candle.starts_at == DAY + timedelta(hours=10)
    assert (candle.open_micros, candle.close_micros) == (400_000, 450_000)
    assert (candle.volume_centis, candle.trade_count) == (175, 2)
    assert candle.notional_micro_centis == 150 * 400_000 + 25 * 450_000


def test_order_within_one_instant_is_feed_order_then_trade_id(connection):
    tied = [
        trade("10:00:05", 100_000, feed_order=None, number=1),
        trade("10:00:05", 200_000, feed_order=8, number=3),
        trade("10:00:05", 300_000, feed_order=7, number=9),
        trade("10:00:05", 400_000, feed_order=None, number=2),
    ]
    land(connection, *tied)
    refresh_candles(connection)
    for interval in Interval:
        [candle] = candles(connection, interval)
        assert (candle.open_micros, candle.close_micros) == (300_000, 400_000)


def test_a_candle_ends_before_the_next_minute_hour_and_day_begin(connection):
    land(
        connection,
        trade("23:59:59.999999", 400_000),
        trade(DAY + timedelta(days=1), 500_000),
    )
    counts = refresh_candles(connection)
    assert counts.days == (DAY.date(), DAY.date() + timedelta(days=1))
    for interval in Interval:
        assert [each.open_micros for each in candles(connection, interval)] == [400_000, 500_000]


def test_block_trades_count(connection):
    land(connection, trade(count=100), trade(count=500, block=True))
    refresh_candles(connection)
    assert candles(connection, ONE_DAY)[0].volume_centis == 600


def test_a_large_notional_is_exact(connection):
    land(connection, *(trade(price=999_999, count=100_000_000_001) for _ in range(3)))
    refresh_candles(connection)
    [candle] = candles(connection, ONE_DAY)
    assert candle.notional_micro_centis == 3 * 999_999 * 100_000_000_001


def test_many_stale_minutes_of_a_day_come_to_the_same_as_few(connection, monkeypatch):
    monkeypatch.setattr(writes, "_FEW_MINUTES", 2)
    trades = [trade(f"{hour}:00:05", number=hour) for hour in range(10, 20)]
    land(connection, *trades)
    refresh_candles(connection)
    trades[3:] = [replace(each, yes_price_micros=710_000) for each in trades[3:]]
    land(connection, *trades)
    assert refresh_candles(connection).written == {"1m": 7, "1h": 7, "1d": 1}
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval)


def test_the_second_refresh_and_the_second_rebuild_change_nothing(connection):
    land(connection, trade("10:00:05"), trade("10:01:05"), trade("11:00:05"))
    assert refresh_candles(connection).written == {"1m": 3, "1h": 2, "1d": 1}
    assert refresh_candles(connection).changed == 0
    assert rebuild_day(connection, DAY.date()).changed == 0


def test_a_late_trade_changes_only_its_own_buckets(connection):
    land(connection, *(trade(f"{hour}:00:00") for hour in range(10, 20)))
    refresh_candles(connection)
    land(connection, trade("12:00:30", 700_000))
    assert refresh_candles(connection).written == {"1m": 1, "1h": 1, "1d": 1}
    assert candles(connection, ONE_DAY)[0].high_micros == 700_000


def test_a_trade_that_moves_leaves_no_candle_behind(connection):
    land(connection, trade("10:59:59.999", number=5))
    refresh_candles(connection)
    moved = trade("11:00:00.000100", number=5)
    land(connection, moved)
    counts = refresh_candles(connection)
    assert counts.removed == {"1m": 1, "1h": 1, "1d": 0}
    for interval in Interval:
        assert candles(connection, interval) == expected_candles([moved], interval)


def test_a_rebuild_removes_candles_without_trades_and_corrects_wrong_ones(connection):
    trades = [trade("10:00:05", number=1), trade("11:30:05", number=2)]
    land(connection, *trades)
    refresh_candles(connection)
    connection.execute("DELETE FROM trades WHERE trade_id = %s", [trades[0].trade_id])
    connection.execute("UPDATE candles_1m SET close_micros = 1 WHERE trade_count = 1")
    counts = rebuild_day(connection, DAY.date())
    assert counts.removed == {"1m": 1, "1h": 1, "1d": 0}
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades[1:], interval)


def test_a_rebuild_answers_the_stale_minutes_of_its_day_and_of_no_other(connection):
    land(connection, trade("10:00:05"), trade(DAY + timedelta(days=1)))
    assert rebuild_day(connection, DAY.date()).stale_minutes == 1
    left = connection.execute("SELECT starts_at FROM stale_candles").fetchall()
    assert left == [(DAY + timedelta(days=1),)]


def test_the_first_rebuild_of_a_day_makes_its_partition_like_any_other(connection):
    trades = [
        trade(f"{hour:02}:{hour:02}:05", 10_000 + hour, number=hour + 1) for hour in range(24)
    ]
    land(connection, *trades, trade(DAY + timedelta(days=1), number=99))
    name, _, _ = partition_bounds(ONE_MINUTE.table, DAY.date())
    assert not has_partition(connection, ONE_MINUTE.table, DAY.date())
    assert rebuild_day(connection, DAY.date()).written == {"1m": 24, "1h": 24, "1d": 1}
    assert has_partition(connection, ONE_MINUTE.table, DAY.date())
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval)
    [tomorrow] = ensure_partitions(
        connection, [DAY.date() + timedelta(days=1)], only=[ONE_MINUTE.table]
    )
    assert _shape(connection, name) == _shape(connection, tomorrow)
    assert rebuild_day(connection, DAY.date()).changed == 0


def test_a_day_without_trades_is_rebuilt_to_none(connection):
    assert rebuild_day(connection, DAY.date()).changed == 0
    assert candles(connection, ONE_MINUTE) == []


def test_a_partition_made_while_its_candles_are_built_is_filled(connection, monkeypatch):
    trades = [trade("10:00:05", number=1), trade("11:00:05", number=2)]
    land(connection, *trades)
    ensure_partitions(connection, [DAY.date()], only=[ONE_MINUTE.table])
    monkeypatch.setattr(writes, "has_partition", lambda *_: False)
    for written in ({"1m": 2, "1h": 2, "1d": 1}, {"1m": 0, "1h": 0, "1d": 0}):
        assert rebuild_day(connection, DAY.date()).written == written
        for interval in Interval:
            assert candles(connection, interval) == expected_candles(trades, interval)


def test_a_trade_that_commits_while_a_rebuild_runs_is_in_the_next_refresh(database):
    with connect(database) as loader, connect(database) as rebuilder:
        land(loader, trade("10:00:05", number=1))
        loader.commit()
        land(loader, trade("10:00:06", 600_000, number=2))  # seen by nobody yet
        rebuild_day(rebuilder, DAY.date())
        land(loader, trade("10:00:07", 700_000, number=3))
        loader.commit()  # waits for nobody
        rebuilder.commit()
        assert candles(rebuilder, ONE_MINUTE)[0].trade_count == 1
        assert refresh_candles(rebuilder).stale_minutes == 1
        assert candles(rebuilder, ONE_MINUTE)[0].trade_count == 3


def test_a_trade_that_commits_while_a_refresh_runs_is_in_the_next_one(database):
    with connect(database) as loader, connect(database) as refresher, connect(database) as other:
        land(loader, trade("10:00:05", number=1))
        loader.commit()
        land(loader, trade("10:00:06", 600_000, number=2))  # seen by nobody yet
        refresh_candles(refresher)
        loader.commit()
        refresher.commit()
        assert candles(other, ONE_MINUTE)[0].trade_count == 1
        other.commit()
        assert refresh_candles(other).stale_minutes == 1
        assert candles(other, ONE_MINUTE)[0].trade_count == 2


def test_no_trade_is_lost_while_loader_and_refreshers_run_together(database):
    trades = [
        trade(DAY + timedelta(milliseconds=300 * number), 10_000 + number, number=number + 1)
        for number in range(400)
    ]
    done = threading.Event()

    def refresh_until_done() -> None:
        with connect(database) as own:
            while not done.is_set():
                refresh_candles(own)
                own.commit()

    refreshers = [threading.Thread(target=refresh_until_done) for _ in range(2)]
    with connect(database) as loader:
        land(loader, trades[0])
        loader.commit()
        for each in refreshers:
            each.start()
        try:
            for start in range(1, len(trades), 7):
                land(loader, *trades[start : start + 7])
                loader.commit()
        finally:
            done.set()
            for each in refreshers:
                each.join(30)
        refresh_candles(loader)
        for interval in Interval:
            assert candles(loader, interval) == expected_candles(trades, interval)
        assert rebuild_day(loader, DAY.date()).changed == 0


def test_a_transaction_that_could_lose_trades_is_refused(connection):
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(RuntimeError, match="read committed"):
        refresh_candles(connection)


def _shape(connection: psycopg.Connection[Any], name: str) -> tuple[list[Any], ...]:
    """Columns in order, and constraints and indexes, of a partition."""
    columns = connection.execute(
        "SELECT attname, atttypid::regtype::text, attcollation::regcollation::text, attnotnull"
        " FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        [name],
    ).fetchall()
    keys = connection.execute(
        "SELECT contype, pg_get_constraintdef(oid), conislocal, coninhcount FROM pg_constraint"
        " WHERE conrelid = %s::regclass ORDER BY contype, 2",
        [name],
    ).fetchall()
    indexes = connection.execute(
        "SELECT replace(indexrelid::regclass::text, %s, ''), indisprimary, indisvalid,"
        " inhparent::regclass::text FROM pg_index"
        " LEFT JOIN pg_inherits ON inhrelid = indexrelid WHERE indrelid = %s::regclass",
        [name, name],
    ).fetchall()
    return columns, keys, indexes
