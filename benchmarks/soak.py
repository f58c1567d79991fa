"""A soak of recorder and loader: memory flat and under 300 MB, the loader close behind, no loss.

    python -m benchmarks.soak [--minutes 10] [--messages-per-second 3000]
    python -m benchmarks.soak --books 500 --deltas-per-second 10000 --messages-per-second 0

The simulator sends at the given rates; one `kalshi-platform record` process (recorder, loader and
healer) takes it. Every ten seconds its resident memory, the loader's backlog and the lag are read.
At the end the exchange's clock is held, and what it sent is counted against what the tables hold.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import scratch_database
from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator, running_simulator

SAMPLE_SECONDS = 10
LIMIT_MB = 300
LIMIT_LAG_SECONDS = 5
_LANDED = {
    "trade": "SELECT count(*) FROM raw_trades WHERE source = 'ws'",
    "ticker": "SELECT count(*) FROM quotes",
    "orderbook_delta": "SELECT count(*) FROM book_deltas",
    "orderbook_snapshot": "SELECT count(*) FROM book_snapshots WHERE source = 'exchange'",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--messages-per-second", type=int, default=3000)
    parser.add_argument("--books", type=int, default=0, help="order books watched")
    parser.add_argument("--deltas-per-second", type=int, default=0, help="over all of them")
    options = parser.parse_args()
    world: dict[str, Any] = {"messages_per_second": options.messages_per_second}
    if options.books:
        world |= {
            "markets": options.books * 6 // 5,
            "deltas_per_second": options.deltas_per_second,
            "trades_per_second": 100,
            "history_days": 0,
        }
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-soak-") as home,
        scratch_database() as url,
        running_simulator(**world) as simulator,
    ):
        environment = os.environ | {
            "DATABASE_URL": url,
            "KALSHI_HOME": home,
            "KALSHI_REST_URL": simulator.rest_url,
            "KALSHI_WS_URL": simulator.ws_url,
            "KALSHI_API_KEY_ID": simulator.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
            "KALSHI_BOOKS": f"busiest:{options.books}" if options.books else "none",
        }
        command = [sys.executable, "-m", "kalshi_platform.cli", "record"]
        with (Path(home) / "record.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            samples, lag = watch(url, process, options.minutes * 60)
            simulator.hold()
            _wait_until_loaded(url)
            compare(url, simulator)
        finally:
            process.terminate()
            process.wait(30)
    # The first minute fills caches; a leak shows after it.
    settled = samples[min(len(samples) - 1, 60 // SAMPLE_SECONDS) :]
    growth = settled[-1] - settled[0]
    print(
        f"memory after a minute {settled[0]:.0f} MB, at the end {settled[-1]:.0f} MB "
        f"({growth:+.0f}), highest {max(samples):.0f} MB (limit {LIMIT_MB})"
    )
    print(f"loader behind by at most {lag:.2f} s (limit {LIMIT_LAG_SECONDS})")


def watch(
    url: str, process: "subprocess.Popen[bytes]", seconds: float
) -> tuple[list[float], float]:
    """Resident memory in MB, every ten seconds; and the longest the loader was behind."""
    seen = psutil.Process(process.pid)
    samples: list[float] = []
    latest = 0.0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        time.sleep(SAMPLE_SECONDS)
        samples.append(seen.memory_info().rss / 1e6)
        with connect(url) as connection:
            figures: dict[str, float] = dict(
                connection.execute(
                    "SELECT name || labels, value FROM ingestion_metrics WHERE name IN"
                    " ('tape_backlog_bytes', 'loaded_lag_seconds', 'messages_total')"
                ).fetchall()
            )
            row = connection.execute(
                "SELECT count(*) FROM book_watches WHERE ends_at IS NULL"
            ).fetchone()
        messages = sum(value for name, value in figures.items() if name.startswith("messages"))
        lag = max((v for n, v in figures.items() if n.startswith("loaded_lag")), default=0.0)
        latest = max(latest, lag)
        print(
            f"{time.monotonic() - started:5.0f} s  {samples[-1]:6.0f} MB  "
            f"{messages:12,.0f} messages  lag {lag:.2f} s  "
            f"backlog {figures.get('tape_backlog_bytes', 0):,.0f} bytes"
            + (f"  {row[0]} books" if row and row[0] else ""),
            flush=True,
        )
    return samples, latest


def compare(url: str, simulator: RunningSimulator) -> None:
    """What the exchange sent, and what the tables hold of it."""
    sent = simulator.stats()["sent"]
    with connect(url) as connection:
        for kind, query in _LANDED.items():
            row = connection.execute(query.encode()).fetchone()
            assert row is not None, "count(*) returns a row"
            if sent.get(kind):
                print(f"{kind}: {sent[kind]:,} sent, {row[0]:,} in the table")
        row = connection.execute(
            "SELECT count(*), coalesce(string_agg(DISTINCT channel || ' ' || cause, '; '), '')"
            " FROM gaps"
        ).fetchone()
        assert row is not None, "count(*) returns a row"
        print(f"gaps: {row[0]} {row[1]}".rstrip())


def _wait_until_loaded(url: str) -> None:
    asked_at = time.time()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(1)
        with connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM ingestion_metrics WHERE name = 'tape_backlog_bytes'"
                " AND value = 0 AND updated_at > to_timestamp(%s)",
                [asked_at],
            ).fetchone()
        if row == (1,):
            return
    print("the tape is not loaded a minute later")


if __name__ == "__main__":
    main()
