"""`kalshi-platform up`, end to end: from nothing to a candle, stopped, started again, healed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from kalshi_platform.operations.environment import variable_of
from kalshi_platform.operations.ground import running_up, taken
from kalshi_platform.operations.processes import end_processes, marked_processes
from kalshi_platform.settings import Settings
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ports import free_ports
from kalshi_platform_tests.waiting import until

READY_SECONDS = 150
PORTS = (
    *("DAGSTER_PORT", "DAGSTER_CODE_PORT", "API_PORT"),
    *("KALSHI_SIMULATOR_REST_PORT", "KALSHI_SIMULATOR_WS_PORT"),
)


class Up:
    """A running `up` whose output is kept in a file."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment
        self.output = home.parent / f"{home.name}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kalshi_platform.cli", "up"],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> str:
        until(self._said_all, READY_SECONDS, every=0.2)
        return self.output.read_text()

    def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        assert self.process.wait(40) == 0, self.output.read_text()

    def _said_all(self) -> bool:
        text = self.output.read_text()
        assert self.process.poll() is None, text
        return "Ctrl-C stops everything." in text


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    if (left := running_up(home)) is not None:  # the test failed: nothing may outlive it
        os.kill(left, signal.SIGKILL)
    end_processes(home, code_seconds=0, other_seconds=0)
    EmbeddedDatabase(home / "postgres").stop()


@pytest.mark.timeout(420)
def test_up_serves_the_current_minute_stops_clean_and_continues_where_it_stopped(
    home: Path,
) -> None:
    own = {variable_of(field) for field in Settings.model_fields}
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in own},
        **ports,
        "KALSHI_HOME": str(home),
    }
    first = Up(home, environment)
    began_at = datetime.now(UTC)
    said = first.wait_until_ready()
    assert "SIMULATED DATA" in said
    [line] = re.findall(r"^curl .*$", said, re.MULTILINE)
    assert newest_candle(line) >= this_minute() - timedelta(minutes=1)

    health = httpx.get(f"http://127.0.0.1:{ports['API_PORT']}/health", timeout=10).json()
    assert health["simulated"] is True
    second = subprocess.run(
        [sys.executable, "-m", "kalshi_platform.cli", "up"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert f"process {first.process.pid}" in second.stderr

    first.stop(signal.SIGINT)
    stopped_at = datetime.now(UTC)
    assert_nothing_is_left(home, ports)

    again = Up(home, environment)
    key = re.search(r"kk_\S+", again.wait_until_ready())
    assert key is not None
    assert key.group() in said, "the demo key is made once"
    back_at = datetime.now(UTC)
    truth = ledger(ports["KALSHI_SIMULATOR_REST_PORT"], began_at, back_at)
    paused = {trade for trade, at in truth.items() if stopped_at < at < back_at}
    assert paused, "trades happened while nothing recorded"
    since_recording = until(lambda: recorded_from(home), 30)
    # The stream's times are cut to milliseconds: stay clear of both ends.
    start, end = since_recording + timedelta(seconds=1), back_at - timedelta(seconds=1)
    expected = {trade for trade, at in truth.items() if start < at < end}
    until(lambda: expected <= recorded(home, began_at, back_at), 90, every=0.5)
    assert recorded(home, start, end) <= set(truth)
    again.stop(signal.SIGTERM)
    assert_nothing_is_left(home, ports)


def newest_candle(curl: str) -> datetime:
    """Do what the printed line does; the start of the last candle of the answer."""
    arguments = shlex.split(curl)
    name, value = arguments[arguments.index("-H") + 1].split(": ")
    answer = httpx.get(arguments[-1], headers={name: value}, timeout=10)
    assert answer.status_code == 200, answer.text
    return datetime.fromisoformat(answer.json()["data"][-1]["bucket"])


def this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def assert_nothing_is_left(home: Path, ports: dict[str, str]) -> None:
    assert marked_processes(home) == []
    assert EmbeddedDatabase(home / "postgres").pid() is None
    assert [name for name, port in ports.items() if taken(int(port))] == []


def ledger(rest_port: str, start: datetime, end: datetime) -> dict[str, datetime]:
    """Every trade the simulated exchange made, by id."""
    query = f"start={start:%Y-%m-%dT%H:%M:%S.%fZ}&end={end:%Y-%m-%dT%H:%M:%S.%fZ}"
    url = f"http://127.0.0.1:{rest_port}/control/ledger/trades?{query}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        trades = [json.loads(line) for line in answer]
    return {trade["trade_id"]: datetime.fromisoformat(trade["created_time"]) for trade in trades}


def recorded_from(home: Path) -> datetime | None:
    """When the first trade of the stream was made: nothing promises those before it."""
    with connect(EmbeddedDatabase(home / "postgres").url()) as connection:
        row = connection.execute(
            "SELECT max(traded_at) FROM (SELECT traded_at FROM trades WHERE feed_order IS NOT NULL"
            " ORDER BY feed_order LIMIT 1) AS first"
        ).fetchone()
    return row[0] if row else None


def recorded(home: Path, start: datetime, end: datetime) -> set[str]:
    """Ids of the trades in the table that were made in (start, end)."""
    with connect(EmbeddedDatabase(home / "postgres").url()) as connection:
        rows = connection.execute(
            "SELECT trade_id::text FROM trades WHERE traded_at > %s AND traded_at < %s",
            [start, end],
        ).fetchall()
    return {trade for (trade,) in rows}
