"""A recorded stretch with every kind of loss, healed: our candles are the exchange's candles.

An open or close that several trades of one instant could decide is counted apart: REST lists the
trades of one microsecond by id, so their order of execution is gone once the stream has lost it.
"""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.ingest.truth import client
from kalshi_platform_tests.journeys.recording import recording
from kalshi_platform_tests.waiting import until as wait_until
from kalshi_simulator.testing import running_simulator

RECORDED_SECONDS = 12


def candles(database, interval, start, end):
    with connect(database) as connection:
        rows = connection.execute(
            f"SELECT market_ticker, starts_at, open_micros, high_micros, low_micros, close_micros,"
            f" volume_centis FROM {interval.table.name} WHERE starts_at >= %s AND starts_at < %s",
            [start, end],
        )
        return {(row[0], int(row[1].timestamp())): row[2:] for row in rows}


def exchange_candles(rest, tickers, interval, start, end):
    """The exchange's own, keyed as ours; buckets without a trade left out."""
    seconds = interval.seconds
    span = min(int((end - start).total_seconds()), seconds * 4_000)
    found = {}
    for ticker in tickers:
        first = int(start.timestamp())
        while first < end.timestamp():
            last = min(first + span, int(end.timestamp()))
            for candle in rest.candlesticks_of([ticker], first + 1, last, seconds // 60)[ticker]:
                if candle.open_micros is not None:
                    found[ticker, candle.ends_at_seconds - seconds] = (
                        candle.open_micros,
                        candle.high_micros,
                        candle.low_micros,
                        candle.close_micros,
                        candle.volume_centis,
                    )
            first = last
    return found


def undecided(database, interval, start, end):
    """(market, bucket, 'open' or 'close') that a tie without a known order decides."""
    with connect(database) as connection:
        rows = connection.execute(
            "WITH placed AS (SELECT market_ticker, traded_at, yes_price_micros, feed_order,"
            f" date_bin('{interval.seconds} seconds', traded_at, '2000-01-01Z') AS bucket"
            " FROM trades WHERE traded_at >= %s AND traded_at < %s), edges AS ("
            " SELECT *, min(traded_at) OVER w AS first, max(traded_at) OVER w AS last"
            " FROM placed WINDOW w AS (PARTITION BY market_ticker, bucket))"
            " SELECT market_ticker, bucket, which FROM edges,"
            " LATERAL (VALUES ('open', first), ('close', last)) AS edge (which, at)"
            " WHERE traded_at = at GROUP BY 1, 2, 3"
            " HAVING count(DISTINCT yes_price_micros) > 1 AND count(*) > count(feed_order)",
            [start, end],
        )
        return {(ticker, int(bucket.timestamp()), which) for ticker, bucket, which in rows}


def compare(database, rest, tickers, start, end):
    """Count agreeing, tied and wrong buckets of all three intervals."""
    counts = Counter()
    for interval in Interval:
        ours = candles(database, interval, start, end)
        theirs = exchange_candles(rest, tickers, interval, start, end)
        ties = undecided(database, interval, start, end)
        assert ours.keys() == theirs.keys()
        for key, mine in ours.items():
            differing = {
                name
                for name, a, b in zip(
                    ("open", "high", "low", "close", "volume"), mine, theirs[key], strict=True
                )
                if a != b
            }
            explained = {which for which in ("open", "close") if (*key, which) in ties}
            assert differing <= explained, (interval, key, mine, theirs[key])
            counts["tied" if differing else "equal"] += 1
    return counts


def test_every_bucket_of_a_day_equals_the_exchanges_own(database, tmp_path):
    with running_simulator(
        seed=23,
        trades_per_second=150,
        history_trades_per_second=0.05,
        history_days=3,
        live_days=10,
        read_tokens_per_second=50_000,
    ) as simulator:
        with recording(database, tmp_path / "tape", simulator, silence_seconds=5) as alive:
            for fault in (
                {"kind": "drop", "channel": "trade", "count": 5},
                {"kind": "reorder", "channel": "trade", "count": 4},
                {"kind": "bad_price", "channel": "trade", "count": 3},
                {"kind": "lose", "channel": "trade", "count": 5},
                {"kind": "drop_connection"},
            ):
                time.sleep(RECORDED_SECONDS / 6)
                # Candles are refreshed in between, so that late trades come after them.
                with connect(database) as connection:
                    refresh_candles(connection)
                simulator.fault(**fault)
            time.sleep(RECORDED_SECONDS / 6)
            assert alive()
            wait_until(lambda: open_gaps(database) == 0, seconds=30)
        rest = client(simulator, tokens_per_second=40_000)
        # The last minute is still being traded, and the one before it may have ended just now: what
        # is compared ends before both.
        now = datetime.now(UTC)
        until = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
        today = sweep_day(database, rest, until.date(), now=lambda: now + timedelta(seconds=30))
        assert today.open_gaps == 0
        yesterday = until.date() - timedelta(days=1)
        assert sweep_day(database, rest, yesterday).status == "healed"
        with connect(database) as connection:
            refresh_candles(connection)
            incremental = all_rows(connection)
            for day in (yesterday, until.date()):
                rebuild_day(connection, day)
            assert all_rows(connection) == incremental
            tickers = [
                ticker
                for (ticker,) in connection.execute("SELECT DISTINCT market_ticker FROM trades")
            ]
        start = datetime.combine(yesterday, datetime.min.time(), UTC)
        counts = compare(database, rest, tickers, start, start + timedelta(days=1))
        assert counts["equal"] > 2_000
        # Without the stream, many of these are ties: one taker order fills several makers at once.
        assert counts["tied"] < counts["equal"]
        # Today: whole hours would end in the future; minutes that are over can be compared.
        minutes = compare_minutes(database, rest, tickers, until)
        assert minutes["equal"] > 10


def compare_minutes(database, rest, tickers, until):
    start = until - timedelta(minutes=30)
    ours = candles(database, Interval.ONE_MINUTE, start, until)
    theirs = exchange_candles(rest, tickers, Interval.ONE_MINUTE, start, until)
    ties = undecided(database, Interval.ONE_MINUTE, start, until)
    assert ours.keys() == theirs.keys()
    counts = Counter()
    for key, mine in ours.items():
        tied = {(*key, "open"), (*key, "close")} & ties
        assert mine[4] == theirs[key][4]
        assert mine == theirs[key] or tied
        counts["equal" if mine == theirs[key] else "tied"] += 1
    return counts


def open_gaps(database):
    with connect(database) as connection:
        [count] = connection.execute("SELECT count(*) FROM gaps WHERE status = 'open'").fetchone()
    return count


def all_rows(connection):
    return {
        interval: sorted(
            connection.execute(f"SELECT * FROM {interval.table.name}").fetchall(), key=str
        )
        for interval in Interval
    }
