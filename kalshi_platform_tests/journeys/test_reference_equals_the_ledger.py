"""An hour of the exchange with every fault of its REST API: what is known equals its ledger."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from kalshi_platform.ingest.census import census
from kalshi_platform.ingest.reference import refresh
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.drill.reference_verdict import reference_against_ledger
from kalshi_platform_tests.ingest.truth import client
from kalshi_platform_tests.journeys.recording import recording
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator

SPEED = 20
SIMULATED_SECONDS = 3_600
# Ages are of simulated time, lengths of ours.
FAULTS = (
    {"kind": "reference_lag", "seconds": 120},
    {"kind": "not_found_after_created", "seconds": 90},
    {"kind": "empty_result_after_determined", "seconds": 60},
    {"kind": "rest_503", "seconds": 4},
    {"kind": "rest_429", "seconds": 3},
    {"kind": "slow_rest", "seconds": 3, "ms": 400},
)


@contextmanager
def refreshing(database: str, simulator: RunningSimulator) -> Iterator[None]:
    """Reference data kept fresh in a thread, as a run of Dagster does it."""
    stop = threading.Event()
    rest = client(simulator, tokens_per_second=190)
    failure: list[Exception] = []

    def work() -> None:
        try:
            while not stop.is_set():
                refresh(database, rest, stop, seconds=50)
        except Exception as error:  # noqa: BLE001  # raised again below, in the test's thread
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    if failure:
        raise failure[0]


@pytest.mark.timeout(420)
def test_an_hour_of_markets_events_series_and_outcomes_equals_the_ledger(database, tmp_path):
    with running_simulator(
        seed=11,
        speed=SPEED,
        trades_per_second=2,
        history_days=1,
        history_trades_per_second=0.02,
        live_days=1,
    ) as simulator:
        with recording(database, tmp_path / "tape", simulator) as alive:
            until(lambda: held(database, "trades") > 0, 30)
            since = datetime.fromisoformat(simulator.stats()["now"])
            begun = time.monotonic()
            census(database, client(simulator, tokens_per_second=190), threading.Event())
            with refreshing(database, simulator):
                pause = (SIMULATED_SECONDS / SPEED - 10) / (len(FAULTS) + 1)
                for number, fault in enumerate(FAULTS, 1):
                    until(lambda: time.monotonic() - begun > number * pause, pause + 30)  # noqa: B023
                    simulator.clear_faults()
                    simulator.fault(**fault)
                until(lambda: time.monotonic() - begun > SIMULATED_SECONDS / SPEED - 2, pause + 30)
                # Markets go to the historical tier while their outcomes are being confirmed.
                simulator.fault("move_cutoff", to=simulator.stats()["now"])
                simulator.clear_faults()
                simulator.hold()
                until(
                    lambda: (
                        reference_against_ledger(database, simulator, since).right
                        or time.monotonic() - begun > SIMULATED_SECONDS / SPEED + 90
                    ),
                    120,
                    every=2,
                )
            assert alive()
        verdict = reference_against_ledger(database, simulator, since)
        assert verdict.right, str(verdict)
        assert verdict.compared["settlement_history"] > 100, str(verdict)


def held(database: str, table: str) -> int:
    with connect(database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])
