"""Stopping and starting: the same world goes on, and what was missed has happened."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kalshi_platform_tests.simulator.talking import Talk
from kalshi_simulator.testing import running_simulator


async def heard_for(simulator, count: int) -> list[dict[str, object]]:
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        return [frame["msg"] for frame in await talk.collect("trade", count)]


async def test_trades_of_a_pause_happened(tmp_path: Path):
    options = {"state": tmp_path / "state", "credentials": tmp_path / "key", "markets": 10,
               "history_days": 1, "trades_per_second": 40}  # fmt: skip
    with running_simulator(**options) as first:
        begun = datetime.now(UTC)
        early = await heard_for(first, 40)
        truth = first.ledger_trades(begun.isoformat(), datetime.now(UTC).isoformat())
        key = first.key_id
    stopped = datetime.now(UTC)
    await asyncio.sleep(1.0)
    with running_simulator(**options) as second:
        started = datetime.now(UTC)
        late = await heard_for(second, 20)
        everything = second.ledger_trades(begun.isoformat(), datetime.now(UTC).isoformat())
        paused = second.ledger_trades(stopped.isoformat(), started.isoformat())
        assert second.key_id == key
        assert second.started_at == first.started_at
    assert everything[: len(truth)] == truth
    known = {row["trade_id"] for row in everything}
    assert {trade["trade_id"] for trade in early + late} <= known
    assert len(paused) > 10
    assert not {row["trade_id"] for row in paused} & {trade["trade_id"] for trade in early}


def test_another_seed_in_the_same_state_is_refused(tmp_path: Path):
    with running_simulator(state=tmp_path, markets=3, history_days=0):
        pass
    code, text = run("serve", "--state", str(tmp_path), "--seed", "99", "--rest-port", "0",
                     "--ws-port", "0", "--credentials", str(tmp_path))  # fmt: skip
    assert code == 2
    assert "seed 7, not 99" in text


def test_a_taken_port_is_one_sentence(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, text = run("serve", "--rest-port", port, "--ws-port", "0", "--credentials",
                         str(tmp_path))  # fmt: skip
    assert code == 2
    assert len(text.strip().splitlines()) == 1
    assert port in text
    assert "--rest-port" in text


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_simulator.cli", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_keys_are_made_once_and_kept_private(tmp_path: Path):
    assert run("keygen", str(tmp_path / "rsa"), "--type", "rsa")[0] == 0
    pem = tmp_path / "rsa" / "private_key.pem"
    before = pem.read_bytes()
    assert run("keygen", str(tmp_path / "rsa"), "--type", "rsa")[0] == 0
    assert pem.read_bytes() == before
    assert pem.stat().st_mode & 0o777 == 0o600
    assert run("keygen", str(tmp_path), "--type", "dsa")[0] == 2


def test_it_stops_cleanly_when_asked(tmp_path: Path):
    with running_simulator(markets=3, history_days=0, state=tmp_path) as simulator:
        begun = time.monotonic()
        assert simulator.stop() == 0
        assert time.monotonic() - begun < 10
    assert json.loads((tmp_path / "simulator.json").read_bytes())["seed"] == 7


def test_a_world_can_begin_in_the_past_and_catch_up():
    with running_simulator(seed=3, begin_hours_ago=5, speed=50, history_days=0) as simulator:
        begun = datetime.fromisoformat(simulator.started_at)
        behind = datetime.now(UTC) - datetime.fromisoformat(simulator.stats()["now"])
        assert timedelta(hours=4) < datetime.now(UTC) - begun < timedelta(hours=6)
        assert timedelta(0) < behind < timedelta(hours=5)
