"""Candles with bid, ask and open interest: a minute's refresh and a day's rebuild, in seconds.

`python -m benchmarks.quoted_candles [--quotes 10000000]`; makes and removes a database of its own.
Quotes come from 20,000 markets by Zipf(1), beside trades, a fifth as many.
"""

import argparse
import statistics
import tempfile
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles

DAY = date(2026, 11, 1)
MIDNIGHT = datetime.combine(DAY, time(), UTC)
_MINUTE = timedelta(minutes=1)
_QUOTES = """\
INSERT INTO quotes (quoted_at, received_at, feed_order, yes_bid_size_centis, yes_ask_size_centis,
    last_trade_size_centis, volume_centis, open_interest_centis, dollar_volume,
    dollar_open_interest, price_micros, yes_bid_micros, yes_ask_micros, market_ticker)
SELECT date_trunc('milliseconds', at), at, number + %(first)s, 100, 100, 100, number, number, 1, 1,
       500000, bid, bid + 10000, 'KXBENCH-26NOV01-T' || market
FROM (SELECT number, %(start)s + number * (%(span)s::interval / %(count)s) AS at,
             (10000 + floor(random() * 980000))::int AS bid,
             floor(exp(random() * ln(20000)))::int AS market
      FROM generate_series(1, %(count)s) AS number) AS dice"""
_TRADES = """\
INSERT INTO trades
SELECT at, number + %(first)s, 100, 500000, at::date, gen_random_uuid(), true, false, 'yes',
       'KXBENCH-26NOV01-T' || market
FROM (SELECT number, %(start)s + number * (%(span)s::interval / %(count)s) AS at,
             floor(exp(random() * ln(20000)))::int AS market
      FROM generate_series(1, %(count)s) AS number) AS dice"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quotes", type=int, default=10_000_000, help="quotes of the day")
    parser.add_argument("--a-minute", type=int, default=60_000, help="quotes of the last minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kalshi-bench-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            url = server.create_database("bench")
            migrate(url)
            _measure(url, options.quotes, options.a_minute)
        finally:
            server.stop()


def _measure(url: str, quotes: int, a_minute: int) -> None:
    with connect(url, autocommit=True) as connection:
        connection.execute("SELECT setseed(0.7)")
        with connection.transaction():
            ensure_partitions(connection, [DAY, DAY - timedelta(days=1)])
        # A day before, thin, for what stands at midnight.
        _add(connection, MIDNIGHT - timedelta(hours=1), timedelta(hours=1), max(quotes // 50, 1), 0)
        _add(connection, MIDNIGHT, timedelta(hours=23, minutes=30), quotes, 1 << 32)
        connection.execute("VACUUM ANALYZE quotes, trades")
    print(f"rebuild of a day of {quotes:,} quotes: {_rebuild(url):.1f} s")
    print(f"the same again, nothing changes: {_rebuild(url):.1f} s")
    minutes = [MIDNIGHT + timedelta(hours=23, minutes=30 + number) for number in range(5)]
    seconds = [_refresh(url, minute, a_minute, n) for n, minute in enumerate(minutes)]
    listed = ", ".join(f"{each:.2f}" for each in seconds)
    print(f"refresh after a minute of {a_minute:,} quotes: {statistics.median(seconds):.2f} s")
    print(f"  (at most 5; each: {listed})")


def _add(
    connection: psycopg.Connection[Any], start: datetime, span: timedelta, count: int, first: int
) -> None:
    values = {"start": start, "span": span, "count": count, "first": first}
    connection.execute(_QUOTES, values)
    connection.execute(_TRADES, {**values, "count": max(count // 5, 1)})


def _rebuild(url: str) -> float:
    with connect(url) as connection:
        begun = perf_counter()
        rebuild_day(connection, DAY)
        connection.commit()
        return perf_counter() - begun


def _refresh(url: str, minute: datetime, count: int, number: int) -> float:
    """Seconds to refresh, committed, after a minute of new quotes and trades."""
    with connect(url) as connection:
        _add(connection, minute, _MINUTE, count, (2 + number) << 32)
        for table, instant in (("quotes", "quoted_at"), ("trades", "traded_at")):
            connection.execute(
                f"INSERT INTO stale_candles (market_ticker, starts_at)"
                f" SELECT market_ticker, date_trunc('minute', {instant}) FROM {table}"
                f" WHERE {instant} > %s AND {instant} < %s".encode(),
                [minute, minute + _MINUTE],
            )
        connection.commit()
        begun = perf_counter()
        counts = refresh_candles(connection)
        connection.commit()
        seconds = perf_counter() - begun
        print(f"  {counts.stale_minutes:,} market-minutes, {counts.changed:,} rows changed")
    return seconds


if __name__ == "__main__":
    main()
