"""Part four of the drill: a day of quotes and books at high speed, with gaps and faults.

The day is compared with the exchange's candlesticks, bucket by bucket and column by column, and
rebuilt books with the exchange's at random instants.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.drill.ground import Ground, ground
from kalshi_platform_tests.drill.quotes_verdict import (
    books_against_exchange,
    candles_against_exchange,
)
from kalshi_platform_tests.drill.serving import serving

SPEED = 120
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("drop", {"channel": "orderbook_delta", "count": 5}),
    ("repeat", {"channel": "orderbook_delta", "count": 5}),
    ("reorder", {"channel": "orderbook_delta", "count": 5}),
    ("malformed", {"channel": "orderbook_delta", "count": 3}),
    ("missing_field", {"channel": "orderbook_delta", "count": 3, "field": "price_dollars"}),
    ("malformed", {"channel": "ticker", "count": 3}),
    ("repeat", {"channel": "ticker", "count": 5}),
    ("unknown_field", {"channel": "ticker", "count": 3}),
    ("drop", {"channel": "trade", "count": 5}),
    ("code25", {"channel": "orderbook_delta"}),
    ("code25", {"channel": "ticker"}),
    ("code10", {"channel": "ticker"}),
    ("drop_connection", {}),
    ("close", {}),
    ("stall", {"seconds": 8}),
    ("refuse_connections", {"seconds": 2}),
    ("drop_connection", {}),
]


def quotes_day(options: argparse.Namespace) -> bool:
    """Live through the day; whether candles and books are the exchange's."""
    rng = Random(options.seed)
    seconds = options.quotes_seconds / SPEED
    print(
        f"== quotes and books: {options.quotes_seconds:g} s at {SPEED} × speed, "
        f"{len(FAULTS)} faults, seed {options.seed}"
    )
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-drill-") as folder,
        ground(
            Path(folder),
            books="busiest:30",
            speed=SPEED,
            # The day ends before now: REST is asked for it as for any past day.
            begin_hours_ago=options.quotes_seconds / 3600 + 1,
            trades_per_second=0.5,
            history_days=0,
            read_tokens_per_second=100_000,
            seed=options.seed,
        ) as standing,
    ):
        _wait_until_watched(standing)
        began = datetime.fromisoformat(standing.simulator.stats()["now"])
        deadline = time.monotonic() + seconds
        faults = threading.Thread(target=_commit_faults, args=(standing, deadline, rng.random()))
        faults.start()
        kills = _kill(standing, deadline, rng)
        faults.join()
        standing.simulator.clear_faults()
        time.sleep(5)
        ended = datetime.fromisoformat(standing.simulator.hold())
        print(f"kills: {kills}; starts: {standing.starts}")
        print(f"faults done: {standing.simulator.faults()['done']}")
        time.sleep(3)
        standing.wait_until_loaded()
        _sweep(standing, began, ended)
        # Of an exchange that is held nothing comes: a recorder would connect anew every few
        # seconds, and change what is being judged.
        standing.stop_recording()
        return _judge(standing, began, ended, rng, options)


def _judge(
    standing: Ground, began: datetime, ended: datetime, rng: Random, options: argparse.Namespace
) -> bool:
    started = time.monotonic()
    with connect(standing.url) as connection:
        refresh_candles(connection)
        connection.commit()
        refreshed = _all_candles(connection)
        for day in sorted({began.date(), ended.date()}):
            rebuild_day(connection, day)
            connection.commit()
        same = _all_candles(connection) == refreshed
        rows = sum(len(each) for each in refreshed.values())
    print(f"{rows:,} candles; a rebuild changes {'none' if same else 'some: WRONG'}")
    candles = candles_against_exchange(standing.url, standing.simulator, began, ended)
    for verdict in candles:
        print(verdict)
    with serving(standing.environment) as api:

        def ask(ticker: str, at: datetime) -> dict[str, Any] | None:
            answer = api.post(
                "/orderbook", json={"market_ticker": ticker, "timestamp": at.isoformat()}
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
            return dict(answer.json()["data"])

        books = books_against_exchange(
            ask,
            standing.url,
            standing.simulator,
            began,
            ended,
            instants=options.instants,
            rng=rng,
        )
    print(books)
    _describe(standing)
    print(f"judged in {time.monotonic() - started:.0f} s")
    return same and not books.wrong and not any(verdict.wrong for verdict in candles)


def _all_candles(connection: Any) -> dict[str, list[Any]]:
    return {
        interval.label: connection.execute(
            f"SELECT * FROM {interval.table.name} ORDER BY market_ticker, starts_at".encode()
        ).fetchall()
        for interval in Interval
    }


def _wait_until_watched(standing: Ground) -> None:
    deadline = time.monotonic() + 120
    with connect(standing.url, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*) FROM book_watches WHERE ends_at IS NULL"
            ).fetchone()
            if row is not None and row[0] >= 10:
                return
            if time.monotonic() > deadline:
                raise TimeoutError("no book is watched; see recorder.log and loader.log")
            time.sleep(0.2)


def _commit_faults(standing: Ground, deadline: float, seed: float) -> None:
    rng = Random(seed)
    pause = max(4.0, (deadline - time.monotonic()) / (len(FAULTS) + 2))
    for kind, details in rng.sample(FAULTS, len(FAULTS)):
        if time.monotonic() + pause > deadline:
            return
        standing.simulator.fault(kind, **details)
        time.sleep(pause)


def _kill(standing: Ground, deadline: float, rng: Random) -> dict[str, int]:
    victims = ["recorder", "loader", "postgres", "recorder", "loader"]
    done = dict.fromkeys(victims, 0)
    pause = (deadline - time.monotonic()) / (len(victims) + 1)
    for victim in victims:
        time.sleep(pause * rng.uniform(0.6, 1.1))
        if victim == "postgres":
            standing.kill_postgres(rng.uniform(0, 4))
        else:
            standing.kill(victim)
        done[victim] += 1
    time.sleep(max(0.0, deadline - time.monotonic()))
    return done


def _sweep(standing: Ground, began: datetime, ended: datetime) -> None:
    command = [sys.executable, "-m", "kalshi_platform.cli", "backfill", "--only", "trades"]
    window = ["--from", str(began.date()), "--to", str(ended.date())]
    subprocess.run([*command, *window], env=standing.environment, check=True)


def _describe(standing: Ground) -> None:
    with connect(standing.url) as connection:
        for query in (
            "SELECT channel, status, market_ticker IS NULL AS of_all, count(*),"
            " max(ends_at - starts_at) FROM gaps GROUP BY 1, 2, 3 ORDER BY 1, 3",
            "SELECT 'watches ended by', split_part(ended_by, ':', 1), count(*) FROM book_watches"
            " GROUP BY 2 ORDER BY 3 DESC",
            "SELECT 'rows', (SELECT count(*) FROM quotes), (SELECT count(*) FROM book_deltas),"
            " (SELECT count(*) FROM book_snapshots WHERE source = 'exchange'),"
            " (SELECT count(*) FROM book_snapshots WHERE source = 'own')",
            "SELECT 'from the end of a gap to the next book of that market, ours: ' ||"
            f" max(again)/{SPEED} FROM (SELECT min(w.starts_at) - g.ends_at AS again FROM gaps g"
            " JOIN book_watches w ON w.starts_at >= g.ends_at"
            " AND w.market_ticker = coalesce(g.market_ticker, w.market_ticker)"
            " WHERE g.channel = 'orderbook_delta' GROUP BY g.gap_id, g.ends_at) AS recoveries",
        ):
            for row in connection.execute(query.encode()):
                print("  ", *row)
