"""The drill: `make drill`, or `python -m kalshi_platform_tests.drill [--seconds 240] [--seed 7]`.

Part one: 1,000 trades/s for some minutes, while recorder, loader and Postgres are killed -9 at
random and the exchange commits every fault it can. Then the day is swept once over REST, and the
trades are held against the exchange's ledger.

Part two: 2,000 messages/s while Postgres is stopped for a minute. Then every channel's rows are
counted against what the exchange sent.

Part three: an hour of markets, events and outcomes at 20 × speed; see `reference`.

Part four: a day of quotes and books at 120 × speed; see `quotes`.

Part five: every kind of alert, once; see `alerts`.

Part six: customers of servers that are killed, and what they are charged; see `credits`.

Ends with exit code 1 unless nothing is missing, nothing is extra, and no gap is open.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.drill.alerts import alerts_told
from kalshi_platform_tests.drill.credits import credits_charged
from kalshi_platform_tests.drill.ground import Ground, ground
from kalshi_platform_tests.drill.quotes import quotes_day
from kalshi_platform_tests.drill.reference import reference_hour
from kalshi_platform_tests.drill.verdict import trades_against_ledger

# Every fault once; the drill goes round until its time is over.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("drop", {"channel": "trade", "count": 5}),
    ("lose", {"channel": "trade", "count": 7}),
    ("repeat", {"channel": "trade", "count": 5}),
    ("reorder", {"channel": "trade", "count": 5}),
    ("malformed", {"channel": "trade", "count": 3}),
    ("missing_field", {"channel": "trade", "count": 3}),
    ("bad_price", {"channel": "trade", "count": 3}),
    ("old_shape", {"channel": "trade", "count": 3}),
    ("unknown_type", {"channel": "trade", "count": 3}),
    ("unknown_field", {"channel": "trade", "count": 3}),
    ("drop", {"channel": "ticker", "count": 5}),
    ("malformed", {"channel": "ticker", "count": 3}),
    ("code25", {"channel": "trade"}),
    ("code10", {"channel": "ticker"}),
    ("close", {}),
    ("drop_connection", {}),
    ("stall", {"seconds": 8}),
    ("ws_401", {"count": 2}),
    ("drop_connection", {}),
    ("refuse_connections", {"seconds": 3}),
    ("drop_connection", {}),
    ("out_of_order_replies", {"seconds": 10}),
    ("drop_connection", {}),
    ("rest_429", {"seconds": 3}),
    ("rest_503", {"seconds": 3}),
    ("rest_500", {"seconds": 2}),
    ("rest_401", {"count": 2}),
    ("rest_lag", {"seconds": 8}),
    ("slow_rest", {"seconds": 5, "ms": 800}),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="drill", description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="length of part one")
    parser.add_argument("--trades-per-second", type=float, default=1000)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--outage-seconds", type=float, default=60)
    parser.add_argument(
        "--reference-seconds", type=float, default=3600, help="length of part three, simulated"
    )
    parser.add_argument(
        "--quotes-seconds", type=float, default=86_400, help="length of part four, simulated"
    )
    parser.add_argument("--instants", type=int, default=1000, help="clean books part four asks for")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--parts",
        type=int,
        nargs="+",
        choices=(1, 2, 3, 4, 5, 6),
        default=[1, 2, 3, 4, 5, 6],
        help="default: all",
    )
    options = parser.parse_args()
    started = time.monotonic()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # seen as it happens
    parts: dict[int, Callable[[argparse.Namespace], object]] = {
        1: faults_and_kills,
        2: outage,
        3: reference_hour,
        4: quotes_day,
        5: alerts_told,
        6: credits_charged,
    }
    # All of them, whatever one finds.
    found = [part(options) for number, part in parts.items() if number in options.parts]
    right = all(found)
    print(f"{'PASSED' if right else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return 0 if right else 1


def faults_and_kills(options: argparse.Namespace) -> bool:
    rng = Random(options.seed)
    print(
        f"== {options.trades_per_second:g} trades/s for {options.seconds:g} s, "
        f"{options.kills} kills, {len(FAULTS)} faults, seed {options.seed}"
    )
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-drill-") as folder,
        ground(
            Path(folder), trades_per_second=options.trades_per_second, seed=options.seed
        ) as standing,
    ):
        _wait_for_first_trade(standing)
        # Whole seconds: the stream cuts times to milliseconds, which may not move a trade over an
        # edge of what is compared.
        began = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        deadline = time.monotonic() + options.seconds
        faults = threading.Thread(target=_commit_faults, args=(standing, deadline, rng.random()))
        faults.start()
        kills = _kill(standing, deadline, options.kills, rng)
        faults.join()
        standing.simulator.clear_faults()
        print(f"kills: {kills}; starts: {standing.starts}")
        print(f"faults done: {standing.simulator.faults()['done']}")
        ended = datetime.now(UTC).replace(microsecond=0)
        standing.wait_until_complete(ended, 240)
        before = trades_against_ledger(standing.url, standing.simulator, began, ended)
        print(f"healed, before the sweep: {before}")
        # REST is asked for the whole day up to 30 s ago; what is younger is left out here too.
        time.sleep(max(0.0, 32 - (datetime.now(UTC) - ended).total_seconds()))
        _sweep(standing, {began.date(), ended.date()})
        after = trades_against_ledger(standing.url, standing.simulator, began, ended)
        print(f"swept: {after}")
        _describe(standing)
        enough = sum(kills.values()) >= options.kills
        with connect(standing.url) as connection:
            row = connection.execute("SELECT count(*) FROM gaps WHERE status = 'open'").fetchone()
        return after.right and enough and row == (0,)


def outage(options: argparse.Namespace) -> bool:
    print(f"== Postgres stopped for {options.outage_seconds:g} s at 2,000 messages/s")
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-drill-") as folder,
        ground(
            Path(folder),
            silence_seconds=60,
            messages_per_second=2000,
            trades_per_second=500,
            seed=options.seed,
        ) as standing,
    ):
        _wait_for_first_trade(standing)
        time.sleep(5)
        standing.database.stop()
        time.sleep(options.outage_seconds)
        standing.start_postgres()
        back = time.monotonic()
        standing.wait_until_complete(datetime.now(UTC), 120)
        print(f"caught up {time.monotonic() - back:.1f} s after it was back")
        time.sleep(1)
        standing.stop_recording()
        [feed] = standing.simulator.stats()["connections"] or [None]
        sent = (feed or standing.simulator.stats())["sent"]
        with connect(standing.url) as connection:
            rows = {
                "trade": "SELECT count(*) FROM raw_trades WHERE source = 'ws'",
                "ticker": "SELECT count(*) FROM quotes",
                "market_lifecycle_v2": "SELECT count(*) FROM lifecycle_events"
                " WHERE message_type = 'market_lifecycle_v2'",
                "multivariate_market_lifecycle": "SELECT count(*) FROM lifecycle_events"
                " WHERE message_type = 'multivariate_market_lifecycle'",
            }
            right = True
            for channel, query in rows.items():
                row = connection.execute(query.encode()).fetchone()
                assert row is not None
                told = sent.get(channel, 0)
                print(f"{channel}: {told:,} sent, {row[0]:,} in the table")
                right &= row[0] == told
        return right


def _wait_for_first_trade(standing: Ground) -> None:
    deadline = time.monotonic() + 60
    with connect(standing.url, autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM trades").fetchone() == (0,):
            if time.monotonic() > deadline:
                raise TimeoutError("no trade within a minute; see recorder.log and loader.log")
            time.sleep(0.2)


def _commit_faults(standing: Ground, deadline: float, seed: float) -> None:
    rng = Random(seed)
    pause = min(4.0, (deadline - time.monotonic()) / (len(FAULTS) + 2))
    while True:
        for kind, details in rng.sample(FAULTS, len(FAULTS)):
            if time.monotonic() > deadline:
                return
            standing.simulator.fault(kind, **details)
            time.sleep(pause)


def _kill(standing: Ground, deadline: float, wanted: int, rng: Random) -> dict[str, int]:
    done = {"recorder": 0, "loader": 0, "postgres": 0}
    pause = (deadline - time.monotonic()) / (wanted + 1)
    for _ in range(wanted):
        time.sleep(pause * rng.uniform(0.5, 1.2))
        victim = rng.choice(["recorder", "recorder", "loader", "loader", "postgres"])
        if victim == "postgres":
            standing.kill_postgres(rng.uniform(0, 4))
        else:
            standing.kill(victim)
        done[victim] += 1
    time.sleep(max(0.0, deadline - time.monotonic()))
    return done


def _sweep(standing: Ground, days: set[Any]) -> None:
    command = [sys.executable, "-m", "kalshi_platform.cli", "backfill"]
    window = ["--from", str(min(days)), "--to", str(max(days))]
    subprocess.run([*command, *window], env=standing.environment, check=True)


def _describe(standing: Ground) -> None:
    with connect(standing.url) as connection:
        for query in (
            "SELECT channel, status, count(*), sum(trades_missing) FROM gaps"
            " GROUP BY 1, 2 ORDER BY 1",
            "SELECT source, count(*), min(reason) FROM rejected_messages GROUP BY 1",
            "SELECT traded_on, status, trades_held, trades_swept, trades_added, trades_unconfirmed"
            " FROM coverage ORDER BY 1",
        ):
            for row in connection.execute(query.encode()):
                print("  ", *row)


if __name__ == "__main__":
    sys.exit(main())
