"""Pages of 1,000 trades of an archived day: `python -m benchmarks.archived_pages`.

A scratch database holds two days of made-up trades (20,000 tickers, Zipf(1), seeded); the first is
archived and dropped. One API process answers pages of the busiest markets, from any minute of a
morning on, of either day in turns, over CLIENTS connections. Before that, each market's first page
is asked for when nothing of the archive has been read yet.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
import uvloop

from benchmarks.api import running_api
from benchmarks.machine import scratch_database
from kalshi_platform.archive.layout import partition_name
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.keys import create_key

CLIENTS = 8
MARKETS = 20
GOAL_MS = 300
DAY = timedelta(days=1)
ARCHIVED = datetime(2026, 11, 1, tzinfo=UTC)
HELD = ARCHIVED + DAY
TICKER = "KXBENCH-26NOV-T"
_LOAD = f"""\
INSERT INTO trades
SELECT traded_at, CASE WHEN random() < 0.95 THEN number END, 1 + floor(random() * 100000)::bigint,
       (1 + floor(random() * 99))::int * 10000 + CASE WHEN random() < 0.1 THEN 2500 ELSE 0 END,
       (traded_at AT TIME ZONE 'UTC')::date, gen_random_uuid(), true, random() < 0.01,
       CASE WHEN random() < 0.5 THEN 'yes' ELSE 'no' END, '{TICKER}' || market
FROM (SELECT number, %(start)s + random() * interval '2 days' AS traded_at,
             floor(exp(random() * ln(20000)))::int AS market
      FROM generate_series(1, %(trades)s) AS number) AS dice
ORDER BY traded_at"""


class Run(NamedTuple):
    """What one stretch of load saw; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=10_000_000, help="of both days together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    with scratch_database() as url, tempfile.TemporaryDirectory() as folder:
        with connect(url) as connection:
            key = fill(connection, options.trades)
        with connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE trades")
        archive_first_day(url, Path(folder))
        os.environ["KALSHI_ARCHIVE_URL"] = folder
        with running_api(url) as port:
            report(port, key, options.rounds, options.seconds)


def fill(connection: psycopg.Connection, trades: int) -> str:
    """Two days of trades, their markets and a key, which is returned."""
    ensure_partitions(connection, [ARCHIVED.date(), HELD.date()])
    connection.execute("SELECT setseed(0.5)")
    connection.execute(_LOAD, {"start": ARCHIVED, "trades": trades})
    connection.execute(
        "INSERT INTO markets (market_ticker) SELECT DISTINCT market_ticker FROM trades"
    )
    return create_key(connection, "bench")


def archive_first_day(url: str, folder: Path) -> None:
    began = time.perf_counter()
    archive = archive_day(url, Store(str(folder)), "trades", ARCHIVED.date()).archive
    assert archive is not None, "the day has trades"
    with connect(url) as connection:
        partition = partition_name("trades", ARCHIVED.date())
        connection.execute(f"DROP TABLE {partition}".encode())
        connection.execute("UPDATE archives SET dropped_at = now()")
    print(
        f"{archive.row_count:,} trades, {archive.size / 2**20:.0f} MiB,"
        f" archived in {time.perf_counter() - began:.0f} s",
        flush=True,
    )


def report(port: int, key: str, rounds: int, seconds: float) -> None:
    cold = [requests_of(key, ARCHIVED, market, seed=market) for market in range(1, MARKETS + 1)]
    took = [uvloop.run(ask(port, requests, 0, clients=1)).p50 for requests in cold]
    print(
        f"nothing read yet: first page {took[0]:.0f} ms,"
        f" other markets' {statistics.median(took[1:]):.0f} ms (median)"
    )
    runs: dict[str, list[Run]] = {"in the database": [], "archived": []}
    for number in range(rounds):
        for name, day in (("in the database", HELD), ("archived", ARCHIVED)):
            requests = requests_of(key, day, None, seed=number)
            runs[name].append(uvloop.run(ask(port, requests, seconds)))
    for name, of_kind in runs.items():
        per_second, p50, p99 = (statistics.median(values) for values in zip(*of_kind, strict=True))
        goal = f" (goal: {GOAL_MS})" if name == "archived" else ""
        print(f"{name:16} {per_second:6.0f}/s   p50 {p50:4.0f} ms   p99 {p99:4.0f} ms{goal}")
    ratio = statistics.median(
        archived.per_second / held.per_second
        for held, archived in zip(runs["in the database"], runs["archived"], strict=True)
    )
    print(f"archived pages a second, of those in the database: ratio {ratio:.2f}")


def requests_of(key: str, day: datetime, market: int | None, seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    while True:
        body = {
            "market_ticker": f"{TICKER}{market or dice.randint(1, MARKETS)}",
            "start_time": (day + timedelta(minutes=dice.randrange(600))).isoformat(),
            "end_time": (day + DAY).isoformat(),
            "limit": 1000,
        }
        content = json.dumps(body).encode()
        yield (
            f"POST /trades HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content


async def ask(port: int, requests: Iterator[bytes], seconds: float, clients: int = CLIENTS) -> Run:
    """Ask over kept-open connections until the time is over, each at least once."""
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while True:
            started = time.perf_counter()
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            body = await reader.readexactly(int(length))
            if not head.startswith(b"HTTP/1.1 200") or body.count(b"trade_id") != 1000:
                raise RuntimeError(f"no page of 1,000 trades: {head!r} {body[:200]!r}")
            latencies.append(time.perf_counter() - started)
            if time.perf_counter() >= ends:
                break
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(clients)])
    took = time.perf_counter() - started
    ordered = sorted(latencies)
    return Run(
        len(ordered) / took,
        statistics.median(ordered) * 1000,
        ordered[int(len(ordered) * 0.99)] * 1000,
    )


if __name__ == "__main__":
    main()
