"""Candles of a synthetic day: our rebuild against DuckDB on a Parquet file of the same trades.

`python -m benchmarks.candles [--trades 5000000]`; makes and removes a database of its own.
"""

import argparse
import io
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import ensure_partitions, partition_bounds
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import TRADED, Interval

TICKERS = 20_000
_DAY_MICROS = 86_400_000_000


def synthetic_trades(
    count: int, first: datetime, span_micros: int = _DAY_MICROS, seed: int = 7
) -> pa.Table:
    """`count` trades from `first` on, in order of time, as columns of the table `trades`.

    Tickers follow Zipf(1); a third of the trades fill an order that filled another in the same
    microsecond at a neighbouring price; one in fifty is known from REST alone (no feed_order).
    """
    dice = np.random.default_rng(seed)
    weights = 1 / np.arange(1, TICKERS + 1)
    order_of = np.sort(dice.integers(0, max(1, int(count * 0.65)), count))
    orders = int(order_of[-1]) + 1
    tickers = dice.choice(TICKERS, orders, p=weights / weights.sum())
    offsets = np.sort(dice.integers(0, span_micros, orders))
    prices = np.clip(30 + tickers % 40 + dice.integers(-20, 20, orders), 1, 99) * 10_000
    start = np.int64(round(first.timestamp()) * 1_000_000)
    level = np.clip(prices[order_of] + dice.integers(-1, 2, count) * 10_000, 10_000, 990_000)
    digits = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2")
    ids = digits[dice.integers(0, 256, (count, 16))].view("S32").ravel()
    names = pa.array([f"KXBENCH-26NOV{number % 30:02d}-T{number:05d}" for number in range(TICKERS)])
    traded_at = pa.array(start + offsets[order_of]).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "traded_at": traded_at,
            "feed_order": pa.array(np.arange(count) + (1 << 60), mask=dice.random(count) < 0.02),
            "count_centis": pa.array(dice.integers(1, 50_000, count)),
            "yes_price_micros": pa.array(level.astype(np.int32)),
            "traded_on": traded_at.cast(pa.timestamp("us")).cast(pa.date32(), safe=False),
            "trade_id": pa.array(ids.astype(str)),
            "exact_time": pa.array(np.ones(count, dtype=bool)),
            "is_block_trade": pa.array(np.zeros(count, dtype=bool)),
            "taker_side": pa.array(np.where(dice.random(count) < 0.5, "yes", "no")),
            "market_ticker": names.take(pa.array(tickers[order_of])),
        }
    )


DAY = date(2026, 11, 1)
_SUMS = ", ".join(f"sum({name})::bigint" for name in TRADED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=5_000_000, help="trades of the day")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kalshi-bench-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            _measure(server, Path(folder), options.trades, options.rounds)
        finally:
            server.stop()


def _measure(server: EmbeddedDatabase, folder: Path, trades: int, rounds: int) -> None:
    url = server.create_database("bench")
    migrate(url)
    parquet = folder / "day.parquet"
    midnight = datetime.combine(DAY, time(), UTC)
    day = synthetic_trades(trades, midnight)
    pq.write_table(day, parquet, compression="zstd")
    with connect(url) as connection:
        ensure_partitions(connection, [DAY])
        _load(connection, day)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE trades")
    del day

    ours, theirs = [], []
    for number in range(rounds):
        theirs.append(_timed(lambda: _duckdb_build(parquet)))
        _forget(url)
        ours.append(_timed(lambda: _rebuild(url)))
        print(f"round {number + 1}: DuckDB {theirs[-1]:.2f} s, rebuild_day {ours[-1]:.2f} s")
    if _sums(url) != _duckdb_build(parquet):
        raise SystemExit("The candles differ from DuckDB's: the figures mean nothing.")
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    print(f"1m + 1h + 1d of {trades:,} trades: {ratio:.2f} x DuckDB on Parquet (at most 5, then 3)")
    print(f"the same rebuild again, nothing changes: {_timed(lambda: _again(url)):.2f} s")
    _empty(url)
    print(f"into the day's partition, there but empty: {_timed(lambda: _rebuild(url)):.2f} s")

    seconds = [_refresh_of_one_minute(url, midnight + timedelta(minutes=720), n) for n in range(5)]
    print(f"refresh of a minute of 60,000 trades: {statistics.median(seconds):.2f} s (at most 1)")


def _timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _load(connection: psycopg.Connection[Any], trades: pa.Table) -> None:
    copy = f"COPY trades ({', '.join(trades.column_names)}) FROM STDIN (FORMAT csv)"
    with connection.cursor().copy(copy.encode()) as stream:
        for batch in trades.to_batches(max_chunksize=100_000):
            lines = io.BytesIO()
            csv.write_csv(batch, lines, csv.WriteOptions(include_header=False))
            stream.write(lines.getvalue())


def _rebuild(url: str) -> None:
    """Build the day's candles from none, committed."""
    with connect(url) as connection:
        rebuild_day(connection, DAY)


def _forget(url: str) -> None:
    """As a backfill meets a day: its minutes have no partition, its month has no rows."""
    name, _, _ = partition_bounds(Interval.ONE_MINUTE.table, DAY)
    with connect(url) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}".encode())
    _empty(url)


def _empty(url: str) -> None:
    with connect(url) as connection:
        for interval in Interval:
            connection.execute(f"TRUNCATE {interval.table.name}".encode())


def _again(url: str) -> None:
    with connect(url) as connection:
        changed = rebuild_day(connection, DAY).changed
    if changed:
        raise SystemExit(f"A second rebuild changed {changed} rows.")


def _sums(url: str) -> list[tuple[int, ...]]:
    with connect(url) as connection:
        return [
            connection.execute(
                f"SELECT count(*), {_SUMS} FROM {interval.table.name}".encode()
            ).fetchall()[0]
            for interval in Interval
        ]


def _refresh_of_one_minute(url: str, minute: datetime, number: int) -> float:
    """Seconds to refresh after 60,000 new trades within `minute`; all is rolled back."""
    with connect(url) as connection:
        _load(connection, synthetic_trades(60_000, minute, 60_000_000, seed=100 + number))
        connection.execute(
            "INSERT INTO stale_candles (market_ticker, starts_at)"
            " SELECT market_ticker, %s FROM trades WHERE traded_on = %s"
            " AND traded_at >= %s AND traded_at < %s",
            [minute, DAY, minute, minute + timedelta(minutes=1)],
        )
        seconds = _timed(lambda: refresh_candles(connection))
        connection.rollback()
    return seconds


def _duckdb_build(parquet: Path) -> list[tuple[int, ...]]:
    """The same candles in memory by DuckDB; returns count and sums of each interval."""
    with duckdb.connect() as engine:
        # What NULLS LAST is to us.
        order = "(traded_at, coalesce(feed_order, 9223372036854775807), trade_id)"
        engine.execute(
            f"""CREATE TABLE candles_1m AS SELECT market_ticker,
                time_bucket(INTERVAL 1 MINUTE, traded_at) AS starts_at,
                arg_min(yes_price_micros, {order}) AS open_micros,
                max(yes_price_micros) AS high_micros, min(yes_price_micros) AS low_micros,
                arg_max(yes_price_micros, {order}) AS close_micros,
                sum(count_centis)::bigint AS volume_centis,
                sum(count_centis * yes_price_micros)::bigint AS notional_micro_centis,
                count(*) AS trade_count
            FROM '{parquet}' GROUP BY ALL"""
        )
        for finer, coarser, width in (("1m", "1h", "1 HOUR"), ("1h", "1d", "1 DAY")):
            engine.execute(
                f"""CREATE TABLE candles_{coarser} AS SELECT market_ticker,
                    time_bucket(INTERVAL {width}, starts_at) AS starts_at,
                    arg_min(open_micros, starts_at) AS open_micros,
                    max(high_micros) AS high_micros, min(low_micros) AS low_micros,
                    arg_max(close_micros, starts_at) AS close_micros,
                    sum(volume_centis)::bigint AS volume_centis,
                    sum(notional_micro_centis)::bigint AS notional_micro_centis,
                    sum(trade_count)::bigint AS trade_count
                FROM candles_{finer} GROUP BY ALL"""
            )
        return [
            engine.execute(f"SELECT count(*), {_SUMS} FROM {interval.table.name}").fetchall()[0]
            for interval in Interval
        ]


if __name__ == "__main__":
    main()
