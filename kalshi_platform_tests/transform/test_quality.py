"""Each check passes on a right day and names what is wrong on another."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.quality import answer
from kalshi_platform.storage.writes.candles import refresh_candles
from kalshi_platform.transform import quality
from kalshi_platform_tests.transform.reference import DAY, MARKET, land, trade


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Three trades of DAY and their candles, in a transaction that is rolled back."""
    with connect(shared_database) as opened:
        land(opened, trade("10:00:05"), trade("10:00:09", 500_000), trade("12:00:05", market="B"))
        refresh_candles(opened)
        yield opened
        opened.rollback()


def ask(connection: psycopg.Connection[Any], check: Any) -> tuple[bool, dict[str, int]]:
    return answer(connection, check(DAY.date()))


@pytest.mark.parametrize("check", quality.CHECKS, ids=lambda check: check.name)
def test_a_right_day_and_an_empty_day_pass(connection, check):
    assert answer(connection, check.query(DAY.date()))[0] is True
    assert answer(connection, check.query(DAY.date() - timedelta(days=9)))[0] is True


def test_a_trade_held_on_both_sides_of_midnight_is_found(connection):
    twin = trade(DAY + timedelta(milliseconds=5), number=77)
    land(connection, twin)
    land(connection, trade(DAY - timedelta(microseconds=3), number=78))
    assert ask(connection, quality.trade_ids_unique)[0] is True
    connection.execute(
        "UPDATE trades SET trade_id = %s WHERE traded_on < %s", [twin.trade_id, DAY.date()]
    )
    assert ask(connection, quality.trade_ids_unique) == (False, {"duplicates": 1})


def test_prices_counts_and_days_that_cannot_be_are_counted(connection):
    land(connection, trade(price=0), trade(price=1_000_001), trade(price=1_000_000), trade(count=0))
    land(connection, moved := trade("13:00:00"))
    connection.execute(
        "UPDATE trades SET traded_at = traded_at + interval '1 day' WHERE trade_id = %s",
        [moved.trade_id],
    )
    passed, details = ask(connection, quality.prices_in_range)
    assert not passed
    assert details == {
        "prices_out_of_range": 2,
        "counts_not_positive": 1,
        "outside_the_day": 1,
        "trades": 8,
    }


@pytest.mark.parametrize("table", ["candles_1m", "candles_1h", "candles_1d"])
def test_volume_that_differs_between_intervals_is_found(connection, table):
    update = f"UPDATE {table} SET volume_centis = volume_centis + 1 WHERE market_ticker = 'B'"
    connection.execute(update.encode())
    passed, details = ask(connection, quality.volume_kept)
    assert not passed
    assert details[f"volume_centis_{table[-2:]}"] == 301


@pytest.mark.parametrize("measure", quality.TRADED)
def test_a_candle_that_differs_in_any_measure_is_found(connection, measure):
    update = f"UPDATE candles_1m SET {measure} = {measure} + 1 WHERE market_ticker = %s"
    connection.execute(update.encode(), [MARKET])
    passed, details = ask(connection, quality.candles_equal_trades)
    assert not passed
    assert details["candles_that_differ"] == 1


def test_a_candle_that_is_missing_or_superfluous_is_found(connection):
    connection.execute("UPDATE candles_1m SET market_ticker = 'C' WHERE market_ticker = 'B'")
    passed, details = ask(connection, quality.candles_equal_trades)
    assert not passed
    assert (details["candles_that_differ"], details["markets_with_other_totals"]) == (2, 2)


def test_a_stale_minute_is_no_difference(connection):
    land(connection, trade("10:00:30", 900_000), trade("15:00:00"))
    passed, details = ask(connection, quality.candles_equal_trades)
    assert passed
    assert details["stale_minutes"] == 2


def test_only_an_open_trade_gap_within_the_day_counts(connection):
    def gap(channel: str, status: str, start: timedelta, length: timedelta) -> None:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES (%s, 'disconnect', %s, %s, %s)",
            [channel, status, DAY + start, DAY + start + length],
        )

    hour = timedelta(hours=1)
    gap("ticker", "open", hour, hour)
    gap("trade", "healed", hour, hour)
    gap("trade", "open", -hour, hour)
    gap("trade", "open", 24 * hour, hour)
    assert ask(connection, quality.no_open_gap)[0] is True
    gap("trade", "open", -hour, 2 * hour)
    assert ask(connection, quality.no_open_gap) == (False, {"open_gaps": 1, "open_seconds": 3600})


def test_a_tie_counts_only_where_no_feed_order_settles_an_open_or_close(connection):
    def tie(at: str, first: int | None, second: int | None, market: str, price: int = 600_000):
        land(
            connection,
            trade(at, 500_000, feed_order=first, market=market),
            trade(at, price, feed_order=second, market=market),
        )

    tie("10:00:05", 1, 2, "SETTLED-BY-THE-FEED")
    tie("10:00:05", None, None, "SAME-PRICE", price=500_000)
    for at in ("10:00:01", "10:00:09"):
        land(connection, trade(at, market="INSIDE-THE-MINUTE"))
    tie("10:00:05", None, None, "INSIDE-THE-MINUTE")
    assert ask(connection, quality.ties_decided)[0] is True

    land(connection, trade("10:00:09", market="OPENS"), trade("10:00:01", market="CLOSES"))
    tie("10:00:05", None, 7, "OPENS")
    tie("10:00:05", None, None, "CLOSES")
    assert ask(connection, quality.ties_decided) == (
        False,
        {"opens_undecided": 1, "closes_undecided": 1},
    )
