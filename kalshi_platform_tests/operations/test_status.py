"""`kalshi-platform status`: what is wrong comes first, and can be seen at a glance."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from kalshi_platform.operations.status import status_lines
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.status import Status, read_status, unreachable
from kalshi_platform_tests.api.health_rows import feed, received, started, told

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def read(url: str) -> Status:
    with connect(url) as connection:
        return read_status(connection, simulated=False)


def test_a_late_table_and_a_late_channel_are_marked_in_their_lines(database: str) -> None:
    started(database, age=5_000)
    feed(database, "trade", age=1)
    received(database, "raw_trades", age=1)
    received(database, "quotes", age=700)
    lines = status_lines(read(database))
    assert lines[0] == "status      stale"
    assert "            ticker: no message yet" in lines
    [quotes] = [line for line in lines if line.startswith("quotes ")]
    assert quotes.split()[1:] == ["12", "min", "60", "s", "LATE"]
    [trades] = [line for line in lines if line.startswith("raw_trades ")]
    assert "LATE" not in trades


def test_what_starts_says_so(database: str) -> None:
    started(database, age=5)
    lines = status_lines(read(database))
    [trade] = [line for line in lines if line.startswith("trade ")]
    assert trade.endswith("starting")
    assert not any("LATE" in line for line in lines)


def test_open_gaps_are_told_by_channel(database: str) -> None:
    with connect(database) as connection:
        for channel in ("trade", "trade", "ticker"):
            connection.execute(
                "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
                " VALUES (%s, 'disconnect', 'open', now(), now())",
                [channel],
            )
    lines = status_lines(read(database))
    [gaps] = [line for line in lines if line.startswith("gaps")]
    assert gaps.startswith("gaps        3 open (ticker 1, trade 2), the oldest for ")


def test_a_budget_that_calls_wait_for_is_told(database: str) -> None:
    told(database, "rest_budget_tokens_per_second", "", 0.001)
    told(database, "rest_budget_capacity_tokens", "", 36)
    with connect(database) as connection:
        connection.execute("INSERT INTO rest_budget (budget_id, tokens) VALUES (1, -50)")
    assert "REST        -50 tokens left of its budget, calls wait for theirs" in status_lines(
        read(database)
    )


def test_a_database_that_is_away_is_all_that_is_told() -> None:
    assert status_lines(unreachable(simulated=False)) == [
        "status      down",
        "            the database does not answer",
        "database    unreachable",
    ]


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_for_terminals_that_want_them(database: str, no_color: bool) -> None:
    started(database, age=5_000)
    environment = {**os.environ, "DATABASE_URL": database, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    command = [sys.executable, "-m", "kalshi_platform.cli", "status"]
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "status      stale" in plain.stdout
    assert _COLOUR.search(plain.stdout) is None
    seen = on_terminal(command, environment)
    shown = _COLOUR.sub("", seen).replace("\r", "")
    assert "status      stale" in shown
    assert "\x1b[1;31mstale" in seen or no_color
    assert "31m" not in seen or not no_color


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdout=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    parts: list[bytes] = []

    def listen() -> None:
        try:
            while data := os.read(ours, 65_536):
                parts.append(data)
        except OSError:
            pass  # so a terminal ends on Linux

    listener = threading.Thread(target=listen)
    listener.start()
    assert process.wait(60) == 0
    listener.join(10)
    os.close(ours)
    return b"".join(parts).decode()
