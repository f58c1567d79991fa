"""Bytes on disk per row, multiplied out to a day of the exchange: `python -m benchmarks.sizing`.

Rows are made up in the order in which they arrive, with tickers of real length and Zipf(1) over
20,000 markets, so that indexes grow as they do in use. Figures are of heap and indexes together.
"""

import argparse
from datetime import date

import psycopg

from benchmarks.machine import scratch_database
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions

# Rows a day: the measured evening means of October 2026 held for 24 hours; see docs/operations.md.
A_DAY = {
    "trades": 20_000_000,
    "raw_trades": 20_000_000,
    "quotes": 65_000_000,
    "book_deltas": 155_000_000,
    "book_snapshots": 90_000,
    "candles_1m": 12_000_000,
}
_MARKET = "'KXBTC15M-26NOV21' || lpad(floor(exp(random() * ln(20000)))::int::text, 8, '0')"
_AT = "'2026-11-20Z'::timestamptz + number * (interval '1 day' / {rows})"
_LOAD = {
    "trades": f"""
INSERT INTO trades (traded_at, feed_order, count_centis, yes_price_micros, traded_on, trade_id,
                    exact_time, is_block_trade, taker_side, market_ticker)
SELECT at, number, 100, 360000, '2026-11-20', gen_random_uuid(), false, false, 'yes', {_MARKET}
FROM made""",
    "raw_trades": f"""
INSERT INTO raw_trades (landed_at, received_at, traded_at, connection, seq, tape_segment,
                        tape_offset, count_centis, yes_price_micros, trade_id, is_block_trade,
                        source, taker_side, market_ticker)
SELECT at, at, at, 1790000000, number, 1790000000000, number, 100, 360000, gen_random_uuid(),
       false, 'ws', 'yes', {_MARKET}
FROM made""",
    "quotes": f"""
INSERT INTO quotes (quoted_at, received_at, feed_order, yes_bid_size_centis, yes_ask_size_centis,
                    last_trade_size_centis, volume_centis, open_interest_centis, dollar_volume,
                    dollar_open_interest, price_micros, yes_bid_micros, yes_ask_micros,
                    market_ticker)
SELECT at, at, number, 100, 100, 100, number, number, number, number, 360000, 350000, 370000,
       {_MARKET}
FROM made""",
    "book_deltas": """
INSERT INTO book_deltas (at, received_at, feed_order, seq, delta_centis, price_micros, sid, side,
                         market_ticker)
SELECT at, at, number, number, -100, 360000, 2, 'yes',
       'KXBTC15M-26NOV21' || lpad(floor(random() * 50)::int::text, 8, '0')
FROM made""",
    "book_snapshots": """
INSERT INTO book_snapshots (at, received_at, feed_order, seq, sid, source, market_ticker,
                            yes_micros, yes_centis, no_micros, no_centis)
SELECT at, at, number, number, 2, 'own',
       'KXBTC15M-26NOV21' || lpad(floor(random() * 50)::int::text, 8, '0'), p, c, p, c
FROM made, (SELECT array_agg(level * 1000) AS p, array_agg(level::bigint * 731) AS c
            FROM generate_series(1, 80) AS level) AS levels
WHERE number % 100 = 0""",
    "candles_1m": f"""
INSERT INTO candles_1m
SELECT starts_at, 100, 100, 360000, 360000, 360000, 360000, 1, market_ticker, 100, starts_at,
       350000, 350000, 350000, 350000, 370000, 370000, 370000, 370000, 3, false
FROM (SELECT DISTINCT date_trunc('minute', at) AS starts_at, {_MARKET} AS market_ticker
      FROM made) AS minutes ORDER BY starts_at""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of each table")
    options = parser.parse_args()
    total = 0.0
    with scratch_database() as url, connect(url, autocommit=True) as connection:
        for name, daily in A_DAY.items():
            rows, size = measure(connection, name, options.rows)
            gigabytes = size / rows * daily / 1e9
            total += gigabytes
            print(
                f"{name}: {size / rows:.0f} bytes a row; {daily / 1e6:g} million a day are"
                f" {gigabytes:.1f} GB",
                flush=True,
            )
    print(f"all of them: {total:.0f} GB a day")


def measure(connection: psycopg.Connection, name: str, rows: int) -> tuple[int, int]:
    """Rows of the filled table, and its bytes with all indexes."""
    ensure_partitions(connection, [date(2026, 11, 20)], [tables.metadata.tables[name]])
    at = _AT.format(rows=rows)
    made = f"WITH made AS (SELECT number, {at} AS at FROM generate_series(0, {rows - 1}) AS number)"
    connection.execute(f"{made} {_LOAD[name]}".encode())
    row = connection.execute(
        f"SELECT count(*), (SELECT sum(pg_total_relation_size(relid))::bigint"
        f" FROM pg_partition_tree('{name}')) FROM {name}".encode()
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return row[0], row[1]


if __name__ == "__main__":
    main()
