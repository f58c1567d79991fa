"""Part three of the drill: an hour of markets and outcomes at 20 × speed, everything going wrong.

Recorder, loader, reference sync and Postgres are killed -9 at random while the exchange loses
lifecycle messages, lags, hides results, refuses, and moves markets to its historical tier. Then its
clock is held, and every table of reference data is compared with its ledger.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.drill.ground import Ground, ground
from kalshi_platform_tests.drill.reference_verdict import (
    ReferenceVerdict,
    reference_against_ledger,
)

SPEED = 20
# Ages are of simulated seconds, lengths of ours.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("reference_lag", {"seconds": 120}),
    ("not_found_after_created", {"seconds": 90}),
    ("empty_result_after_determined", {"seconds": 60}),
    ("drop", {"channel": "market_lifecycle_v2", "count": 5}),
    ("repeat", {"channel": "market_lifecycle_v2", "count": 5}),
    ("reorder", {"channel": "market_lifecycle_v2", "count": 5}),
    ("malformed", {"channel": "market_lifecycle_v2", "count": 3}),
    ("drop", {"channel": "multivariate_market_lifecycle", "count": 5}),
    ("code25", {"channel": "market_lifecycle_v2"}),
    ("drop_connection", {}),
    ("close", {}),
    ("rest_503", {"seconds": 4}),
    ("rest_429", {"seconds": 3}),
    ("rest_500", {"seconds": 2}),
    ("slow_rest", {"seconds": 4, "ms": 600}),
    ("move_cutoff", {}),
]


def reference_hour(options: argparse.Namespace) -> bool:
    """Live through the hour; whether all is as the ledger says."""
    rng = Random(options.seed)
    seconds = options.reference_seconds / SPEED
    print(
        f"== markets and outcomes: {options.reference_seconds:g} s at {SPEED} × speed, "
        f"{len(FAULTS)} faults, seed {options.seed}"
    )
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-drill-") as folder,
        ground(
            Path(folder),
            speed=SPEED,
            trades_per_second=2,
            history_days=1,
            history_trades_per_second=0.02,
            live_days=1,
            seed=options.seed,
        ) as standing,
    ):
        _wait_until_recorded(standing)
        since = datetime.fromisoformat(standing.simulator.stats()["now"])
        _census(standing)
        deadline = time.monotonic() + seconds
        faults = threading.Thread(target=_commit_faults, args=(standing, deadline, rng.random()))
        faults.start()
        kills = _kill(standing, deadline, rng)
        faults.join()
        standing.simulator.clear_faults()
        standing.simulator.hold()
        held_at = time.monotonic()
        verdict = _wait_for_verdict(standing, since)
        print(f"kills: {kills}; starts: {standing.starts}")
        print(f"faults done: {standing.simulator.faults()['done']}")
        print(f"{verdict}\nas the ledger {time.monotonic() - held_at:.0f} s after the last message")
        stats = standing.simulator.stats()
        print(
            f"REST: {stats['rest_requests']:,} calls, at most"
            f" {stats['rest_tokens_most_a_second']:,} tokens within a second"
        )
        return verdict.right


def _wait_until_recorded(standing: Ground) -> None:
    deadline = time.monotonic() + 60
    with connect(standing.url, autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM trades").fetchone() == (0,):
            if time.monotonic() > deadline:
                raise TimeoutError("no trade within a minute; see recorder.log and loader.log")
            time.sleep(0.2)


def _census(standing: Ground) -> None:
    command = [sys.executable, "-m", "kalshi_platform.cli", "census"]
    subprocess.run(command, env=standing.environment, check=True)


def _commit_faults(standing: Ground, deadline: float, seed: float) -> None:
    rng = Random(seed)
    pause = (deadline - time.monotonic()) / (len(FAULTS) + 2)
    for kind, details in rng.sample(FAULTS, len(FAULTS)):
        if kind == "move_cutoff":
            details = {"to": standing.simulator.stats()["now"]}
        # One at a time: an age that is never lifted would hide the newest for good.
        standing.simulator.clear_faults()
        standing.simulator.fault(kind, **details)
        time.sleep(pause)


def _kill(standing: Ground, deadline: float, rng: Random) -> dict[str, int]:
    victims = ["reference", "recorder", "loader", "postgres", "reference", "loader", "reference"]
    done = dict.fromkeys(victims, 0)
    pause = (deadline - time.monotonic()) / (len(victims) + 1)
    for victim in victims:
        time.sleep(pause * rng.uniform(0.6, 1.1))
        if victim == "postgres":
            standing.kill_postgres(rng.uniform(0, 4))
        else:
            standing.kill(victim)
        done[victim] += 1
    time.sleep(max(0.0, deadline - time.monotonic()))
    return done


def _wait_for_verdict(standing: Ground, since: datetime) -> ReferenceVerdict:
    """The verdict as soon as it is right, or after two minutes."""
    deadline = time.monotonic() + 120
    while True:
        try:
            verdict = reference_against_ledger(
                standing.url, standing.simulator, since, with_gaps=True
            )
        except psycopg.OperationalError:
            verdict = None
        if time.monotonic() > deadline or (verdict is not None and verdict.right):
            if verdict is None:
                raise TimeoutError("Postgres does not answer")
            return verdict
        time.sleep(2)
