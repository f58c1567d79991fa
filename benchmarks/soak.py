"""Memory of recorder and loader over a soak: flat, and under 300 MB.

    python -m benchmarks.soak [--minutes 10] [--messages-per-second 3000]

The simulator sends at the given rate; one `kalshi-platform record` process (recorder, loader and
healer) takes it. Every ten seconds its resident memory, the loader's backlog and the lag are read.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machine import scratch_database
from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import running_simulator

SAMPLE_SECONDS = 10
LIMIT_MB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--messages-per-second", type=float, default=3000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-soak-") as home,
        scratch_database() as url,
        running_simulator(messages_per_second=options.messages_per_second) as simulator,
    ):
        environment = os.environ | {
            "DATABASE_URL": url,
            "KALSHI_HOME": home,
            "KALSHI_REST_URL": simulator.rest_url,
            "KALSHI_WS_URL": simulator.ws_url,
            "KALSHI_API_KEY_ID": simulator.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
        }
        command = [sys.executable, "-m", "kalshi_platform.cli", "record"]
        with (Path(home) / "record.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            samples = watch(url, process, options.minutes * 60)
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


def watch(url: str, process: "subprocess.Popen[bytes]", seconds: float) -> list[float]:
    """Resident memory in MB, every ten seconds."""
    seen = psutil.Process(process.pid)
    samples: list[float] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        time.sleep(SAMPLE_SECONDS)
        samples.append(seen.memory_info().rss / 1e6)
        with connect(url) as connection:
            figures = dict(
                connection.execute(
                    "SELECT name || labels, value FROM ingestion_metrics WHERE name IN"
                    " ('tape_backlog_bytes', 'loaded_lag_seconds', 'messages_total')"
                ).fetchall()
            )
        messages = sum(value for name, value in figures.items() if name.startswith("messages"))
        lag = max((v for n, v in figures.items() if n.startswith("loaded_lag")), default=0.0)
        print(
            f"{time.monotonic() - started:5.0f} s  {samples[-1]:6.0f} MB  "
            f"{messages:12,.0f} messages  lag {lag:.2f} s  "
            f"backlog {figures.get('tape_backlog_bytes', 0):,.0f} bytes",
            flush=True,
        )
    return samples


if __name__ == "__main__":
    main()
