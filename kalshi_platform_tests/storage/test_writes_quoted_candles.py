"""Bid, ask and open interest of candles: what stood, what came late, what was lost or dropped."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.candles import candles_frame
from kalshi_platform.storage.writes import candles as writes
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.storage.writes.stale import mark_gap, mark_quoted
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.transform.reference import (
    DAY,
    MARKET,
    candles,
    expected_candles,
    land,
    lose,
    quote,
    rows_of,
    tell,
    trade,
)

ONE_MINUTE, ONE_HOUR, ONE_DAY = Interval
TOMORROW = DAY + timedelta(days=1)


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back."""
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


def only(connection: psycopg.Connection[Any], interval: Interval = ONE_MINUTE) -> Any:
    return candles(connection, interval)[-1]


def flags(connection: psycopg.Connection[Any], interval: Interval = ONE_MINUTE) -> list[bool]:
    return [each.quote_gap for each in candles(connection, interval)]


def test_a_minute_that_was_only_quoted_has_no_prices_and_no_volume(connection):
    tell(connection, quote("10:00:05", 400_000, 450_000, 700))
    refresh_candles(connection)
    for interval in Interval:
        candle = only(connection, interval)
        assert (candle.open_micros, candle.close_micros) == (None, None)
        assert (candle.volume_centis, candle.trade_count) == (0, 0)
        assert (candle.yes_bid_open_micros, candle.yes_ask_close_micros) == (400_000, 450_000)
        assert (candle.open_interest_centis, candle.quote_count) == (700, 1)
        assert candle.quoted_at == DAY + timedelta(hours=10, seconds=5)


def test_what_stood_at_the_start_is_the_open_and_within_high_and_low(connection):
    tell(
        connection,
        quote("10:00:59.999", 300_000, 800_000, 1),
        quote("10:01:30", 400_000, 450_000, 2, feed_order=2),
        quote("10:01:40", 410_000, 440_000, 3, feed_order=3),
    )
    refresh_candles(connection)
    candle = only(connection)
    assert candle[9:13] == (300_000, 410_000, 300_000, 410_000)
    assert candle[13:17] == (800_000, 800_000, 440_000, 440_000)
    assert (candle.open_interest_centis, candle.quote_count) == (3, 2)


def test_a_quote_at_the_very_start_replaces_what_stood_but_not_in_the_hour(connection):
    tell(
        connection,
        quote("09:30:00", 300_000, 800_000),
        quote("10:05:00", 400_000, 450_000, feed_order=2),
    )
    refresh_candles(connection)
    assert only(connection).yes_bid_open_micros == 400_000
    assert only(connection).yes_ask_high_micros == 450_000
    assert only(connection, ONE_HOUR).yes_bid_open_micros == 300_000
    assert only(connection, ONE_HOUR).yes_ask_high_micros == 800_000


def test_of_quotes_of_one_millisecond_the_feed_says_which_was_last(connection):
    tell(
        connection,
        quote("10:00:00", 300_000, 500_000, 9, feed_order=9),
        quote("10:00:00", 200_000, 600_000, 8, feed_order=8),
    )
    refresh_candles(connection)
    candle = only(connection)
    assert (candle.yes_bid_open_micros, candle.yes_bid_close_micros) == (300_000, 300_000)
    assert (candle.yes_bid_low_micros, candle.open_interest_centis) == (200_000, 9)


def test_a_trade_carries_what_stood_since_days(connection):
    tell(connection, quote(DAY - timedelta(days=3), 300_000, 500_000, 77))
    land(connection, trade("10:00:05"))
    refresh_candles(connection)
    for interval in Interval:
        candle = only(connection, interval)
        assert (candle.yes_bid_low_micros, candle.yes_ask_high_micros) == (300_000, 500_000)
        assert (candle.open_interest_centis, candle.quote_count) == (77, 0)
        assert candle.quoted_at == DAY - timedelta(days=3)


def test_a_late_quote_changes_what_follows_up_to_the_next_quote(connection):
    trades = [trade(f"{hour}:00:30", number=hour) for hour in (10, 11, 13, 15)]
    quotes = [quote("09:00:00", 100_000), quote("14:00:01", 300_000, feed_order=9)]
    land(connection, *trades)
    tell(connection, *quotes)
    refresh_candles(connection)
    quotes.append(quote("10:30:00", 200_000, feed_order=5))
    tell(connection, quotes[-1])
    # Its own minute, those of 11, 13 and 14 o'clock; the hours that hold them; the day's low stays.
    assert refresh_candles(connection).written == {"1m": 4, "1h": 4, "1d": 1}
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval, quotes)


@pytest.mark.parametrize("whole_day", [False, True])
def test_a_late_quote_reaches_over_midnight(connection, whole_day):
    trades = [trade("10:00:30", number=1), trade(TOMORROW + timedelta(hours=9), number=2)]
    land(connection, *trades)
    refresh_candles(connection)
    late = quote("23:00:00")
    tell(connection, late)
    if whole_day:
        rebuild_day(connection, DAY.date())
    assert TOMORROW.date() in refresh_candles(connection).days
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval, [late])


def test_many_stale_minutes_of_a_day_come_to_the_same_as_few(connection, monkeypatch):
    monkeypatch.setattr(writes, "_FEW_MINUTES", 2)
    trades = [trade(f"{hour}:00:05", number=hour) for hour in range(10, 20)]
    quotes = [quote(f"{hour}:30:00", hour * 10_000, feed_order=hour) for hour in range(10, 18)]
    land(connection, *trades)
    tell(connection, *quotes)
    refresh_candles(connection)
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval, quotes)
    assert rebuild_day(connection, DAY.date()).changed == 0


@pytest.mark.parametrize("market", [None, MARKET])
def test_a_gap_flags_every_candle_until_the_next_quote_after_it(connection, market):
    trades = [trade(f"10:{minute}:30") for minute in (10, 20, 30, 50)]
    quotes = [quote("10:05:00"), quote("10:40:01", feed_order=2)]
    land(connection, *trades)
    tell(connection, *quotes)
    refresh_candles(connection)
    gap = lose(connection, "10:15:10", "10:25:00", market)
    refresh_candles(connection)
    # 10:40 began without knowing; at 10:50 the quote of 10:40 stood.
    assert flags(connection) == [False, False, True, True, True, False]
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval, quotes, [gap])
    assert rebuild_day(connection, DAY.date()).changed == 0


def test_a_gap_of_another_market_or_before_the_first_quote_flags_nothing(connection):
    tell(connection, quote("10:05:00"))
    lose(connection, "10:05:10", "10:05:20", "ANOTHER")
    lose(connection, "09:00:00", "10:04:00")
    refresh_candles(connection)
    assert flags(connection) == [False]


def test_a_gap_after_the_last_candle_of_an_hour_flags_the_hour(connection):
    tell(connection, quote("10:05:00"))
    refresh_candles(connection)
    lose(connection, "10:50:00", "10:51:00", MARKET)
    refresh_candles(connection)
    assert [flags(connection, interval) for interval in Interval] == [[False], [True], [True]]


def test_a_gap_that_commits_while_a_refresh_runs_flags_what_it_wrote(database):
    with connect(database) as loader, connect(database) as refresher:
        tell(loader, quote("10:00:05"))
        loader.commit()
        refresh_candles(refresher)
        lose(loader, "10:00:10", "10:00:20")
        loader.commit()  # waits for nobody, and sees none of the rows
        refresher.commit()
        assert flags(refresher) == [False]
        refresh_candles(refresher)
        assert flags(refresher) == [True]


def drop_quotes(connection: psycopg.Connection[Any]) -> None:
    """As the retention does with a day that is over."""
    connection.execute(f"DROP TABLE quotes_{DAY:%Y%m%d}".encode())


@pytest.mark.parametrize("whole_day", [False, True])
def test_a_day_whose_quotes_were_dropped_keeps_what_its_candles_know(connection, whole_day):
    trades = [trade("10:00:30", number=1), trade("11:00:30", number=2)]
    quotes = [quote("10:00:05", 300_000), quote("12:00:05", 310_000, feed_order=2)]
    land(connection, *trades)
    tell(connection, *quotes)
    refresh_candles(connection)
    drop_quotes(connection)
    trades.append(trade("12:00:40", 900_000, number=3))
    land(connection, trades[-1])
    if whole_day:
        rebuild_day(connection, DAY.date())
    else:
        refresh_candles(connection)
    for interval in Interval:
        assert candles(connection, interval) == expected_candles(trades, interval, quotes)


def test_a_quoted_minute_of_a_dropped_day_outlives_the_trade_beside_it(connection):
    land(connection, trade("10:00:30", number=1))
    tell(connection, told := quote("10:00:05"))
    refresh_candles(connection)
    drop_quotes(connection)
    land(connection, moved := trade("10:02:30", number=1))
    refresh_candles(connection)
    for interval in Interval:
        assert candles(connection, interval)[0] == expected_candles([moved], interval, [told])[0]


def test_what_stood_when_quotes_were_dropped_still_stands_the_day_after(connection):
    told = [quote("20:00:00", 300_000), quote(TOMORROW + timedelta(hours=9), feed_order=2)]
    tell(connection, *told)
    refresh_candles(connection)
    drop_quotes(connection)
    trades = [trade(TOMORROW + timedelta(hours=hour), number=hour) for hour in (3, 9)]
    land(connection, *trades)
    refresh_candles(connection)
    for interval in Interval:
        after = [each for each in candles(connection, interval) if each.starts_at >= TOMORROW]
        expected = expected_candles(trades, interval, told)
        assert after == [each for each in expected if each.starts_at >= TOMORROW]
    assert rebuild_day(connection, TOMORROW.date()).changed == 0


def test_a_late_quote_and_a_gap_are_read_before_any_refresh(connection):
    trades = [trade("10:10:30", number=1), trade("10:20:30", number=2)]
    land(connection, *trades)
    tell(connection, first := quote("10:05:00", 100_000))
    refresh_candles(connection)
    tell(connection, late := quote("10:06:00", 200_000, feed_order=2))
    gap = lose(connection, "10:15:00", "10:16:00")
    for interval in Interval:
        frame = candles_frame(connection, MARKET, interval, DAY, TOMORROW)
        assert rows_of(frame) == expected_candles(trades, interval, [first, late], [gap])


def test_marks_name_the_minute_and_a_gap_of_all_markets_names_none(connection):
    mark_quoted(connection, {("A", 29_344_801), ("B", 29_344_800)})
    mark_quoted(connection, [])
    mark_gap(connection, DAY + timedelta(seconds=59.9), DAY + timedelta(hours=2), None)
    mark_gap(connection, DAY + timedelta(seconds=61), DAY + timedelta(seconds=61), "A")
    listed = connection.execute("SELECT market_ticker, starts_at FROM stale_candles").fetchall()
    minute = timedelta(minutes=1)
    origin = DAY.replace(year=1970, month=1, day=1)
    assert sorted(listed) == sorted(
        [
            ("A", origin + 29_344_801 * minute),
            ("B", origin + 29_344_800 * minute),
            ("*", DAY),
            ("A", DAY + minute),
        ]
    )
