"""Each check of candles with quotes passes on a right day and names what is wrong on another."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.quality import answer
from kalshi_platform.storage.writes.candles import refresh_candles
from kalshi_platform.transform import quality, quality_candles
from kalshi_platform.transform.candles import QUOTED
from kalshi_platform_tests.transform.reference import DAY, MARKET, land, lose, quote, tell, trade

CHECKS = (*quality_candles.CHECKS, *(each for each in quality.CHECKS if "candles" in each.name))


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Trades and quotes of two markets and their candles, in a transaction that is rolled back."""
    with connect(shared_database) as opened:
        land(opened, trade("10:00:05"), trade("12:00:05", market="B"))
        tell(opened, quote("09:59:59"), quote("10:00:00"), quote("10:00:09", 410_000, 420_000))
        tell(opened, quote("11:00:00", market="B"), quote("12:30:00", market="B"))
        refresh_candles(opened)
        yield opened
        opened.rollback()


def ask(connection: psycopg.Connection[Any], check: Any) -> tuple[bool, dict[str, int]]:
    return answer(connection, check(DAY.date()))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_right_day_and_an_empty_day_pass(connection, check):
    assert answer(connection, check.query(DAY.date()))[0] is True
    assert answer(connection, check.query(DAY.date() - timedelta(days=9)))[0] is True


@pytest.mark.parametrize("table", ["candles_1m", "candles_1h", "candles_1d"])
@pytest.mark.parametrize("column", QUOTED)
def test_a_candle_that_differs_from_its_quotes_is_found(connection, table, column):
    other = {"quote_gap": "NOT quote_gap", "quoted_at": "quoted_at + interval '1 ms'"}
    change = other.get(column, f"{column} + 1")
    update = (
        f"UPDATE {table} SET {column} = {change} WHERE market_ticker = 'B' AND volume_centis > 0"
    )
    connection.execute(update.encode())
    passed, details = ask(connection, quality_candles.candles_equal_quotes)
    assert not passed
    assert details[f"candles_that_differ_{table[-2:]}"] == 1


def test_a_candle_that_is_missing_is_found(connection):
    connection.execute("DELETE FROM candles_1m WHERE quote_count > 0 AND trade_count = 0")
    passed, details = ask(connection, quality_candles.candles_equal_quotes)
    assert not passed
    assert details["candles_that_differ_1m"] == 3


def test_what_follows_a_stale_minute_is_left_aside(connection):
    tell(connection, quote("08:00:00", 1), quote("08:00:00", 1, market="B"))
    assert ask(connection, quality_candles.candles_equal_quotes)[0] is True
    lose(connection, "07:00:00", "23:00:00")
    assert ask(connection, quality_candles.candles_equal_quotes)[0] is True


def test_a_day_whose_quotes_were_dropped_is_left_aside(connection):
    connection.execute(f"DROP TABLE quotes_{DAY:%Y%m%d}".encode())
    assert ask(connection, quality_candles.candles_equal_quotes)[0] is True


@pytest.mark.parametrize("prefix", ["", "yes_bid_", "yes_ask_"])
@pytest.mark.parametrize(
    "change", ["high_micros = {}close_micros - 1", "low_micros = {}open_micros + 1"]
)
def test_a_high_below_the_close_and_a_low_above_the_open_are_found(connection, prefix, change):
    update = f"UPDATE candles_1h SET {prefix}{change.format(prefix)} WHERE market_ticker = %s"
    connection.execute(update.encode() + b" AND trade_count > 0", [MARKET])
    passed, details = ask(connection, quality_candles.candles_in_order)
    assert not passed
    assert details["outside_high_and_low"] == 1


def test_a_bid_above_its_ask_counts_unless_quotes_were_lost(connection):
    tell(connection, quote("15:00:00", 500_000, 400_000, market="C"))
    refresh_candles(connection)
    passed, details = ask(connection, quality_candles.candles_in_order)
    assert not passed
    assert details["bid_above_ask"] == 3
    lose(connection, "15:00:01", "15:00:02", "C")
    refresh_candles(connection)
    assert ask(connection, quality_candles.candles_in_order)[0] is True
