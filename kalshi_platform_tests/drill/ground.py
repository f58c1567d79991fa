"""The ground of a drill: a database, an exchange, and the processes that record it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_simulator.testing import RunningSimulator, running_simulator

COMMANDS = {
    "recorder": ["record", "--tape-only"],
    "loader": ["load"],
    "reference": ["reference"],
}


class Ground:
    """Recorder, loader and reference sync as processes, started again whenever they end."""

    def __init__(
        self, home: Path, simulator: RunningSimulator, *, silence_seconds: int, books: str
    ) -> None:
        self.home = home
        self.simulator = simulator
        self.database = EmbeddedDatabase(home / "postgres")
        self.database.start()
        self.url = self.database.create_database("kalshi")
        migrate(self.url)
        self.environment = os.environ | {
            "DATABASE_URL": self.url,
            "KALSHI_HOME": str(home),
            "KALSHI_REST_URL": simulator.rest_url,
            "KALSHI_WS_URL": simulator.ws_url,
            "KALSHI_API_KEY_ID": simulator.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
            "KALSHI_SILENCE_SECONDS": str(silence_seconds),
            "KALSHI_BOOKS": books,
        }
        self.starts = dict.fromkeys(COMMANDS, 0)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._keeper.start()

    def kill(self, name: str) -> None:
        """kill -9, without a word."""
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            process.kill()

    def kill_postgres(self, away_seconds: float) -> None:
        """kill -9 of the server; it is back after `away_seconds`."""
        pid = self.database.pid()
        assert pid is not None, "the server runs"
        os.kill(pid, signal.SIGKILL)
        time.sleep(away_seconds)
        self.start_postgres()

    def start_postgres(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.database.start()
            except RuntimeError:
                # The dead server's children may hold its memory for a moment.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def wait_until_complete(self, until: datetime, seconds: float = 120) -> None:
        """Return when the stream has passed `until` in the tables and no gap in trades is open."""
        deadline = time.monotonic() + seconds
        state: object = "nothing known"
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError), connect(self.url) as connection:
                state = connection.execute(
                    "SELECT (SELECT max(traded_at) > %s FROM trades WHERE feed_order IS NOT NULL),"
                    " (SELECT count(*) FROM gaps WHERE status = 'open')",
                    [until],
                ).fetchone()
                if state == (True, 0):
                    return
            time.sleep(0.5)
        raise TimeoutError(f"after {seconds} s: (stream has passed, open gaps) = {state}")

    def wait_until_loaded(self, seconds: float = 120) -> None:
        """Return when all that is on the tape now is in the tables."""
        asked_at = time.time()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError), connect(self.url) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM ingestion_metrics WHERE name = 'tape_backlog_bytes'"
                    " AND value = 0 AND updated_at > to_timestamp(%s)",
                    [asked_at],
                ).fetchone()
                if row == (1,):
                    return
            time.sleep(0.5)
        raise TimeoutError(f"the tape is not loaded after {seconds} s")

    def stop(self) -> None:
        """Stop recorder and loader gracefully, and the database."""
        self.stop_recording()
        self.database.stop()

    def stop_recording(self) -> None:
        self._over.set()
        self._keeper.join()
        for name in COMMANDS:  # the recorder first, so that the loader loads its last frames
            process = self._running.get(name)
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(30)

    def _keep_running(self) -> None:
        while not self._over.wait(0.2):
            for name, command in COMMANDS.items():
                process = self._running.get(name)
                if process is None or process.poll() is not None:
                    self.starts[name] += 1
                    with (self.home / f"{name}.log").open("ab") as log:
                        self._running[name] = subprocess.Popen(
                            [sys.executable, "-m", "kalshi_platform.cli", *command],
                            env=self.environment,
                            stdout=log,
                            stderr=log,
                        )


@contextmanager
def ground(
    home: Path, *, silence_seconds: int = 5, books: str = "none", **simulator: object
) -> Iterator[Ground]:
    """A running ground, gone afterwards."""
    with running_simulator(**simulator) as exchange:
        standing = Ground(home, exchange, silence_seconds=silence_seconds, books=books)
        try:
            yield standing
        finally:
            standing.stop()
