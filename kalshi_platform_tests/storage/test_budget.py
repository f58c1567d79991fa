"""The shared bucket: one budget for all threads and processes, with or without the database."""

import subprocess
import sys
import threading
import time

import pytest
from structlog.testing import capture_logs

from kalshi_platform.storage.budget import (
    BURST_SECONDS,
    REFILL_SHARE,
    PostgresBudget,
    Priority,
)
from kalshi_platform.storage.engine import connect

RATE = 1000
CALLER = """
import sys, time
from kalshi_platform.storage.budget import PostgresBudget
budget = PostgresBudget(sys.argv[1], float(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    wait = budget.reserve(10).seconds
    print(time.time() + wait)
"""


def assert_within(calls: list[float], rate: float, callers: int) -> None:
    """No stretch of calls, 10 tokens each, took more than the burst and the refill.

    An instant is read after the database answered: each caller may be late by one call.
    """
    calls.sort()
    for first in range(0, len(calls), 7):
        for last in range(first, len(calls), 5):
            tokens = 10 * (last - first + 1 - callers)
            seconds = calls[last] - calls[first]
            assert tokens <= rate * (BURST_SECONDS + REFILL_SHARE * seconds)


def slow_budget(database: str, priority: Priority = Priority.HEALING) -> PostgresBudget:
    """Holds 1000 tokens and refills so slowly that a busy machine makes no difference."""
    return PostgresBudget(database, 0.01, priority=priority, burst_seconds=100_000)


def test_the_bucket_starts_full_and_then_makes_callers_wait(database):
    budget = slow_budget(database)
    assert [budget.reserve(10) for _ in range(50)] == [(0.0, True)] * 50
    budget.reserve(1000)
    assert 40_000 < budget.reserve(10).seconds <= 64_000


def test_idle_time_saves_no_more_than_a_burst(database):
    budget = slow_budget(database)
    budget.reserve(10)
    with connect(database) as connection:
        connection.execute("UPDATE rest_budget SET updated_at = updated_at - interval '1 hour'")
    budget.reserve(1500)
    assert 40_000 < budget.reserve(10).seconds <= 64_000


def test_a_clock_that_stepped_back_takes_nothing_away(database):
    budget = PostgresBudget(database, RATE)
    budget.reserve(10)
    with connect(database) as connection:
        connection.execute("UPDATE rest_budget SET updated_at = updated_at + interval '1 hour'")
    assert budget.reserve(10) == (0.0, True)


def test_any_second_sees_less_than_the_budget():
    assert BURST_SECONDS + REFILL_SHARE < 1


def test_a_lower_class_stands_back_while_its_share_is_not_there(database):
    census = slow_budget(database, Priority.CENSUS)
    assert [census.reserve(10).granted for _ in range(44)] == [True] * 44
    refused = census.reserve(10)
    assert not refused.granted
    assert 0 < refused.seconds <= 1_500
    enrichment = slow_budget(database, Priority.ENRICHMENT)
    assert [enrichment.reserve(10) for _ in range(28)] == [(0.0, True)] * 28
    assert not enrichment.reserve(10).granted
    healing = slow_budget(database)
    assert [healing.reserve(10) for _ in range(28)] == [(0.0, True)] * 28
    assert healing.reserve(10).granted, "who heals reserves ahead"
    # From nothing to what is left to others and a call of its own, 8 tokens in 1,000 seconds.
    assert 60_000 < census.reserve(10).seconds <= 73_000


def test_a_refusal_takes_nothing(database):
    census = slow_budget(database, Priority.CENSUS)
    census.reserve(440)
    for _ in range(50):
        assert not census.reserve(10).granted
    with connect(database) as connection:
        row = connection.execute("SELECT tokens FROM rest_budget").fetchone()
    assert row == (560.0,)


def test_who_stood_back_has_its_turn_once_the_bucket_is_full_enough(database):
    healing = PostgresBudget(database, RATE)
    census = PostgresBudget(database, RATE, priority=Priority.CENSUS)
    healing.reserve(RATE / 2)
    deadline = time.monotonic() + 20
    asked = 0
    while not (turn := census.reserve(10)).granted:
        assert time.monotonic() < deadline
        asked += 1
        time.sleep(turn.seconds)
    assert 1 <= asked <= 5


def test_threads_share_one_budget(database):
    budget = PostgresBudget(database, RATE)
    calls: list[float] = []

    def call() -> None:
        for _ in range(25):
            wait = budget.reserve(10).seconds
            calls.append(time.time() + wait)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 200
    # 2000 tokens at 800 a second, of which a burst of 180 is free.
    assert max(calls) - min(calls) > 2.0
    assert_within(calls, RATE, callers=8)


def test_processes_share_one_budget(database):
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, database, str(RATE), "60"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    calls = [float(line) for caller in callers for line in caller.communicate()[0].split()]
    assert [caller.returncode for caller in callers] == [0, 0, 0]
    assert len(calls) == 180
    assert_within(calls, RATE, callers=3)


def test_without_a_database_it_paces_itself_at_half_the_rate_and_says_so():
    now = [50.0]
    budget = PostgresBudget("postgresql://nobody@127.0.0.1:1/none", 200, clock=lambda: now[0])
    with capture_logs() as logs:
        waits = [budget.reserve(10).seconds for _ in range(4)]
    assert waits == pytest.approx([0.0, 0.125, 0.25, 0.375])
    assert [entry["event"] for entry in logs] == ["rest_budget_without_database"]


def test_it_returns_to_the_database_when_that_is_back(postgres, database):
    now = [50.0]
    budget = PostgresBudget(database, RATE, clock=lambda: now[0])
    with connect(postgres.url("postgres"), autocommit=True) as admin:
        name = database.rsplit("/", 1)[1].split("?", 1)[0]
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        budget.reserve(10)
        assert budget.reserve(10).seconds == pytest.approx(0.025)
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    now[0] += 6
    budget.reserve(10)
    with connect(database) as connection:
        assert connection.execute("SELECT tokens FROM rest_budget").fetchone() == (
            RATE * BURST_SECONDS - 10,
        )
