"""Order books rebuilt at random instants: `python -m benchmarks.books`.

A scratch database holds yesterday's changes of 500 books (20 million, Zipf(1), seeded), snapshots
as the platform keeps them (at most 2,000 changes or a quarter of an hour apart), and an API process
answers `POST /orderbook` over one connection: median and p99 are of single questions. The last
lines ask for a market in a storm: a minute with thousands of changes a second since its snapshot.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from benchmarks.api import running_api
from benchmarks.machine import scratch_database
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.keys import create_key

BOOKS = 500
LEVELS = 100  # of each side; what a busy book has
DAY = timedelta(days=1)
TICKER = "KXBENCH-BOOK-T"
CONNECTION = 1_790_000_000
QUESTIONS = 300
STORM = f"{TICKER}0"
STORM_CHANGES = 120_000
STORM_SECONDS = 60
GOAL_MS = 300
SNAPSHOT_DELTAS = 2_000
SNAPSHOT_SECONDS = 900

# What is added is taken away by the next message of the same market, so that the book is the same
# behind each pair.
_DELTAS = f"""\
INSERT INTO book_deltas (at, received_at, feed_order, seq, delta_centis, price_micros, sid, side,
                         market_ticker)
SELECT at, at, %(first)s + 2 * pair + half + 1, 2 * pair + half + 1,
       CASE half WHEN 0 THEN 500 ELSE -500 END, 10000 * level, 1,
       CASE level %% 2 WHEN 0 THEN 'yes' ELSE 'no' END, '{TICKER}' || market
FROM (SELECT pair, %(start)s + pair * %(step)s::interval AS at,
             floor(exp(random() * ln({BOOKS})))::int AS market,
             1 + floor(random() * 40)::int AS level
      FROM generate_series(0, %(pairs)s - 1) AS pair) AS dice
CROSS JOIN generate_series(0, 1) AS half"""
_SIDE = f"""\
ARRAY(SELECT {{0}} FROM generate_series(1, {LEVELS}) AS n)"""
_SNAPSHOTS = f"""\
INSERT INTO book_snapshots (at, received_at, feed_order, sid, source, market_ticker,
                            yes_micros, yes_centis, no_micros, no_centis)
SELECT at, at, feed_order, 1, CASE number WHEN 0 THEN 'exchange' ELSE 'own' END,
       '{TICKER}' || market,
       {_SIDE.format("4500 * n")}, {_SIDE.format("100 * n::bigint")},
       {_SIDE.format("4500 * n")}, {_SIDE.format("100 * n::bigint")}
FROM generate_series(1, {BOOKS} - 1) AS market
CROSS JOIN LATERAL (
    SELECT least({SNAPSHOT_SECONDS}, {SNAPSHOT_DELTAS} * 86400
                 / (2 * %(pairs)s * ln((market + 1.0) / market) / ln({BOOKS}))) AS seconds
) AS apart
CROSS JOIN LATERAL generate_series(0, floor(86399 / apart.seconds)::int) AS number
CROSS JOIN LATERAL (
    SELECT floor(number * apart.seconds / extract(epoch FROM %(step)s::interval))::bigint AS pair
) AS moment
CROSS JOIN LATERAL (
    SELECT %(start)s + pair * %(step)s::interval AS at,
           %(first)s + 2 * pair AS feed_order
) AS place"""
_STORM = f"""\
INSERT INTO book_deltas (at, received_at, feed_order, seq, delta_centis, price_micros, sid, side,
                         market_ticker)
SELECT at, at, %(first)s + n, n, CASE n %% 2 WHEN 1 THEN 500 ELSE -500 END,
       10000 * (1 + (n - 1) / 2 %% 40), 1, 'yes', '{STORM}'
FROM (SELECT n, %(start)s + n * %(step)s::interval AS at
      FROM generate_series(1, {STORM_CHANGES}) AS n) AS storm"""
_WATCHES = """\
INSERT INTO book_watches (market_ticker, starts_at, start_order, connection, sid, use_yes_price)
SELECT market_ticker, min(at), min(feed_order), %s, 1, false
FROM book_snapshots GROUP BY market_ticker"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deltas", type=int, default=20_000_000)
    options = parser.parse_args()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with scratch_database() as url:
        began = time.perf_counter()
        with connect(url) as connection:
            fill(connection, today - DAY, options.deltas)
            key = create_key(connection, "bench")
        with connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE book_deltas, book_snapshots, book_watches")
            held = connection.execute(
                "SELECT (SELECT count(*) FROM book_snapshots), sum(pg_total_relation_size(oid))"
                " FROM pg_class WHERE relname LIKE 'book_%' AND relkind = 'r'"
            ).fetchone()
        assert held is not None
        snapshots, size = held
        print(
            f"{options.deltas:,} changes of {BOOKS - 1} books and {snapshots:,} snapshots:"
            f" {size / 2**30:.1f} GiB, filled in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        with (
            running_api(url) as port,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=30
            ) as client,
        ):
            report(client, today - DAY)


def fill(connection: psycopg.Connection, start: datetime, deltas: int) -> None:
    """A day of changes, snapshots and watches, and the storm at its end; the caller commits."""
    ensure_partitions(connection, [start.date()])
    connection.execute("SELECT setseed(0.5)")
    connection.execute("SET max_parallel_maintenance_workers = 1")
    connection.execute("SET maintenance_work_mem = '512MB'")
    [index] = tables.book_deltas.indexes
    connection.execute(f"DROP INDEX {index.name}".encode())
    pairs = deltas // 2
    values = {
        "start": start,
        "step": DAY / pairs,
        "pairs": pairs,
        "first": CONNECTION << 32,
    }
    connection.execute(_DELTAS, values)
    connection.execute(_SNAPSHOTS, values)
    storm = {
        "start": start + DAY - timedelta(seconds=STORM_SECONDS + 1),
        "step": timedelta(seconds=STORM_SECONDS) / STORM_CHANGES,
        "first": CONNECTION << 32,
    }
    connection.execute(_STORM, storm)
    side = [[4_500 * n for n in range(1, LEVELS + 1)], [100 * n for n in range(1, LEVELS + 1)]]
    connection.execute(
        "INSERT INTO book_snapshots VALUES (%s, %s, %s, NULL, 1, 'exchange', %s, %s, %s, %s, %s)",
        [storm["start"], storm["start"], CONNECTION << 32, STORM, *side, *side],
    )
    create = CreateIndex(index).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    connection.execute(str(create).encode())
    connection.execute(_WATCHES, [CONNECTION])
    connection.execute(
        "INSERT INTO markets (market_ticker) SELECT market_ticker FROM book_watches"
        " ON CONFLICT DO NOTHING"
    )
    connection.execute(
        "INSERT INTO ingestion_metrics VALUES ('last_received_at_seconds', '',"
        " extract(epoch FROM now()))"
    )


def report(client: httpx.Client, start: datetime) -> None:
    """Ask each kind of question so often, and print how long the answers took."""
    dice = random.Random(7)

    def moment() -> str:
        return (start + dice.random() * DAY).isoformat()

    def busy() -> int:
        return int(BOOKS ** dice.random())

    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "a book, as often as it changes": lambda: {
            "market_ticker": f"{TICKER}{busy()}",
            "timestamp": moment(),
        },
        "any book, 10 levels": lambda: {
            "market_ticker": f"{TICKER}{dice.randint(1, BOOKS - 1)}",
            "timestamp": moment(),
            "depth": 10,
        },
        "the busiest": lambda: {"market_ticker": f"{TICKER}1", "timestamp": moment()},
        f"in a storm of {STORM_CHANGES // STORM_SECONDS:,}/s": lambda: {
            "market_ticker": STORM,
            "timestamp": (
                start + DAY - timedelta(seconds=1 + dice.random() * STORM_SECONDS)
            ).isoformat(),
        },
    }
    for name, question in kinds.items():
        took = sorted(_timings(client, "/orderbook", question))
        print(
            f"{name:32} median {statistics.median(took):6.1f} ms"
            f"   p99 {took[int(len(took) * 0.99)]:6.1f} ms   worst {took[-1]:6.1f} ms"
            f"   (goal: p99 < {GOAL_MS} ms)"
        )
    took = sorted(
        _timings(
            client,
            "/deltas",
            lambda: {
                "market_ticker": f"{TICKER}{busy()}",
                "start_time": moment(),
                "limit": 1000,
            },
        )
    )
    print(
        f"{'1,000 changes':32} median {statistics.median(took):6.1f} ms"
        f"   p99 {took[int(len(took) * 0.99)]:6.1f} ms   worst {took[-1]:6.1f} ms"
    )


def _timings(
    client: httpx.Client, path: str, question: Callable[[], dict[str, Any]]
) -> Iterator[float]:
    """Milliseconds of each answer."""
    for _ in range(QUESTIONS):
        body = question()
        began = time.perf_counter()
        response = client.post(path, json=body)
        yield (time.perf_counter() - began) * 1000
        if response.status_code != 200:
            raise RuntimeError(f"{body}: {response.text}")
        if path == "/orderbook":
            book = response.json()["data"]
            if book["gap"] or book["yes_levels"] < LEVELS:
                raise RuntimeError(f"{body}: not the book that was written")


if __name__ == "__main__":
    main()
