"""What a thousand births of combos a second do to trades: `python -m benchmarks.births`.

The simulator trades at a steady rate, first alone, then with births besides; `kalshi-platform
record` lands both. Latency runs from the exchange's time of a trade until a reader of `trades`
sees it. The limit is the latency without births, in the same run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.machine import scratch_database
from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator, running_simulator


@contextmanager
def recording(url: str, simulator: RunningSimulator, home: Path) -> Iterator[None]:
    """`kalshi-platform record` as a process of its own."""
    environment = os.environ | {
        "DATABASE_URL": url,
        "KALSHI_HOME": str(home),
        "KALSHI_REST_URL": simulator.rest_url,
        "KALSHI_WS_URL": simulator.ws_url,
        "KALSHI_API_KEY_ID": simulator.key_id,
        "KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
    }
    with (home.parent / f"{home.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kalshi_platform.cli", "record"],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def measure(births: int, trades: int, seconds: float, folder: Path) -> tuple[list[float], int, int]:
    """Latencies in ms (sorted), births sent by the exchange, births in the table."""
    with (
        scratch_database() as url,
        running_simulator(
            seed=5, trades_per_second=trades, history_days=0, combo_births_per_second=births
        ) as simulator,
    ):
        with recording(url, simulator, folder), connect(url, autocommit=True) as reader:
            _wait_for_a_trade(reader)
            latencies = _latencies(reader, seconds)
        # The recorder has ended, so what the exchange sent it is loaded.
        sent = simulator.stats()["sent"].get("multivariate_market_lifecycle", 0)
        with connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM lifecycle_events"
                " WHERE message_type = 'multivariate_market_lifecycle'"
            ).fetchone()
        assert row is not None
        return latencies, sent, row[0]


def _wait_for_a_trade(reader: psycopg.Connection) -> None:
    deadline = time.monotonic() + 60
    while reader.execute("SELECT count(*) FROM trades").fetchone() == (0,):
        if time.monotonic() > deadline:
            raise TimeoutError("no trade within a minute")
        time.sleep(0.1)


def _latencies(reader: psycopg.Connection, seconds: float) -> list[float]:
    """Of each trade that becomes visible within so many seconds."""
    seen: set[object] = set()
    latencies: list[float] = []
    deadline = time.monotonic() + seconds
    first = True
    while time.monotonic() < deadline:
        rows = reader.execute(
            "SELECT trade_id, traded_at FROM trades"
            " WHERE traded_on >= current_date - 1 AND traded_at > now() - interval '10 seconds'"
        ).fetchall()
        now = time.time()
        fresh = [row for row in rows if row[0] not in seen]
        seen.update(row[0] for row in fresh)
        if not first:
            latencies += [(now - at.timestamp()) * 1000 for _, at in fresh]
        first = False
        time.sleep(0.01)
    return sorted(latencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--births", type=int, default=1_000, help="messages a second")
    parser.add_argument("--trades", type=int, default=100, help="a second")
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    late = []
    with tempfile.TemporaryDirectory() as scratch:
        for births in (0, options.births):
            latencies, sent, held = measure(
                births, options.trades, options.seconds, Path(scratch) / f"births-{births}"
            )
            late.append(latencies[int(len(latencies) * 0.99)])
            print(
                f"{births:,} births/s: {len(latencies):,} trades, p50"
                f" {latencies[len(latencies) // 2]:.0f} ms, p99 {late[-1]:.0f} ms;"
                f" {held:,} of {sent:,} lifecycle messages of combos in the table"
            )
    print(f"p99 with births / without: {late[1] / late[0]:.2f} (target: p99 below 1,000 ms)")


if __name__ == "__main__":
    main()
