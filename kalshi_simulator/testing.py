"""A simulator for tests: the real command as a process of its own, on free ports."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass
class RunningSimulator:
    """Where a running simulator is, and its levers."""

    process: subprocess.Popen[str]
    rest_url: str
    ws_url: str
    key_id: str
    private_key_path: Path
    started_at: str
    # Plain HTTP: a client of our own spares the reading of all certificates at every call.
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, timeout=60))  # noqa: S501

    @property
    def control_url(self) -> str:
        return self.rest_url.removesuffix("/trade-api/v2") + "/control"

    def fault(self, kind: str, **details: Any) -> dict[str, Any]:
        """Put a fault in force; see docs/simulator.md for kinds and details."""
        return self._json("POST", "/faults", {"kind": kind, **details})

    def faults(self) -> dict[str, Any]:
        """Faults in force, and how often each kind has struck."""
        return self._json("GET", "/faults")

    def clear_faults(self) -> dict[str, Any]:
        return self._json("DELETE", "/faults")

    def trade(self, ticker: str, **details: Any) -> dict[str, Any]:
        """Add one exact trade: yes_price_dollars, count_fp, taker_outcome_side, created_time."""
        return self._json("POST", "/trades", {"ticker": ticker, **details})

    def stats(self) -> dict[str, Any]:
        return self._json("GET", "/stats")

    def replay(self) -> dict[str, Any]:
        """Progress of a replay."""
        return self._json("GET", "/replay")

    def ledger_trades(
        self, start: str, end: str, ticker: str | None = None
    ) -> list[dict[str, Any]]:
        """The truth in [start, end), in order of execution; ISO 8601 instants."""
        path = f"/ledger/trades?start={quote(start)}&end={quote(end)}"
        if ticker is not None:
            path += f"&ticker={quote(ticker)}"
        return [json.loads(line) for line in self._read("GET", path).splitlines()]

    def ledger(self, what: str, ticker: str | None = None) -> list[dict[str, Any]]:
        """The truth at the simulated now: markets, events, series or settlements, as REST spells.

        Markets say whether they have `traded`; settlements have `versions`. See docs/simulator.md.
        """
        path = f"/ledger/{what}" + (f"?ticker={quote(ticker)}" if ticker else "")
        return [json.loads(line) for line in self._read("GET", path).splitlines()]

    def ledger_book(self, ticker: str, at: str) -> dict[str, list[list[str]]]:
        """The book of a market at an instant of the past (ISO 8601): `yes` and `no`, bids both.

        Levels are [price, count] as on the wire, best last; no-side prices in no terms.
        """
        path = f"/ledger/book?ticker={quote(ticker)}&at={quote(at)}"
        book = self._json("GET", path)
        return {"yes": book["yes"], "no": book["no"]}

    def hold(self) -> str:
        """Let simulated time stand still, all that happened told; the instant (ISO 8601)."""
        return str(self._json("POST", "/clock", {"speed": 0})["now"])

    def go_on(self, speed: float = 1.0) -> str:
        """Let simulated time run again, from where it stands; the instant (ISO 8601)."""
        return str(self._json("POST", "/clock", {"speed": speed})["now"])

    def touch(self, count: int) -> int:
        """Change so many dormant markets now; how many it were."""
        return int(self._json("POST", "/touch", {"count": count})["touched"])

    def stop(self) -> int:
        """Ask the process to end; its exit code."""
        self._client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            raise

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._read(method, path, body))
        return answer

    def _read(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        response = self._client.request(method, self.control_url + path, json=body)
        response.raise_for_status()
        return response.content


def start_simulator(*arguments: str) -> RunningSimulator:
    """Start `kalshi-simulator` with arguments and wait for it to be ready."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "kalshi_simulator.cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        ready = json.loads(_first_line(process))
    except BaseException:
        process.kill()
        process.wait()
        raise
    return RunningSimulator(
        process,
        ready["rest_url"],
        ready["ws_url"],
        ready["key_id"],
        Path(ready["private_key_path"]),
        ready["started_at"],
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(timeout=0.5):
                line = process.stdout.readline()
                if line:
                    return line
            if process.poll() is not None:
                raise RuntimeError(f"the simulator ended at once with {process.returncode}")
    raise TimeoutError(f"the simulator was not ready within {START_SECONDS:.0f} s")


@contextmanager
def running_simulator(**options: Any) -> Iterator[RunningSimulator]:
    """`kalshi-simulator serve` on free ports with the options given, stopped at the end.

    Options are those of the command with underscores: seed=7, trades_per_second=50, state=folder.
    Without `credentials` a temporary folder holds the key.
    """
    with _running("serve", [], options) as simulator:
        yield simulator


@contextmanager
def running_replay(recording: Path, **options: Any) -> Iterator[RunningSimulator]:
    """`kalshi-simulator replay` of a recording; options as for running_simulator."""
    with _running("replay", [str(recording)], options) as simulator:
        yield simulator


@contextmanager
def _running(
    command: str, arguments: list[str], options: dict[str, Any]
) -> Iterator[RunningSimulator]:
    with tempfile.TemporaryDirectory(prefix="kalshi-simulator-") as folder:
        merged = {"rest_port": 0, "ws_port": 0, "credentials": folder, **options}
        flags = [
            text
            for name, value in merged.items()
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        simulator = start_simulator(command, *arguments, *flags)
        try:
            yield simulator
        finally:
            simulator.stop()
            if simulator.process.stdout is not None:
                simulator.process.stdout.close()
