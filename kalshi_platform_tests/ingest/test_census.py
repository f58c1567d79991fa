"""The census: equal to the ledger, whatever interrupts it, and again without a change."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from kalshi_platform.exchange.errors import Unavailable
from kalshi_platform.ingest.census import LISTS, census
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import CENSUS, Lease
from kalshi_platform_tests.ingest.reference_truth import (
    facts_alone,
    held_events,
    held_markets,
    held_series,
    ledger_events,
    ledger_markets,
    ledger_series,
    position,
)
from kalshi_platform_tests.ingest.truth import client
from kalshi_simulator.testing import RunningSimulator, running_simulator

DORMANT = 2_100
CENSUS_TAKER = """
import sys, threading
from pathlib import Path
from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.census import census
url, rest_url, key_id, key_path = sys.argv[1:]
rest = RestClient(rest_url, Signer.from_pem(key_id, Path(key_path)), LocalBudget(300))
census(url, rest, threading.Event(), lambda done: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=5,
        trades_per_second=1,
        history_trades_per_second=0.01,
        markets=12,
        history_days=1,
        dormant_markets=DORMANT,
        read_tokens_per_second=50_000,
    ) as simulator:
        simulator.hold()
        yield simulator


@pytest.fixture
def simulator(exchange: RunningSimulator) -> Iterator[RunningSimulator]:
    yield exchange
    exchange.clear_faults()


def assert_complete(database: str, simulator: RunningSimulator) -> None:
    unsettled = {
        row["ticker"]
        for row in simulator.ledger("markets")
        if row["status"] != "finalized" and not row["ticker"].startswith("KXMVE")
    }
    assert len(unsettled) > DORMANT
    truth = ledger_markets(simulator)
    assert held_markets(database) == {name: truth[name] for name in unsettled}
    assert held_events(database) == ledger_events(simulator)
    assert held_series(database) == ledger_series(simulator)


def test_a_census_equals_the_ledger_and_a_second_one_changes_no_row(database, simulator):
    fractions: list[float] = []
    report = census(database, client(simulator), threading.Event(), fractions.append)
    assert report.complete
    assert report.tally.rejected == 0
    assert_complete(database, simulator)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > len(LISTS)
    before = facts_alone(database)
    again = census(database, client(simulator), threading.Event())
    assert again.complete
    assert again.tally.changed == 0
    assert sum(again.tally.markets) == sum(report.tally.markets)
    assert facts_alone(database) == before


def test_killed_hard_it_goes_on_where_it_was(database, simulator):
    arguments = [simulator.rest_url, simulator.key_id, str(simulator.private_key_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", CENSUS_TAKER, database, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        # In the middle of the open markets.
        if float(line) > 3 / len(LISTS):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    saved = position(database, "census")
    assert saved is not None
    assert saved["completed_at"] is None
    before = simulator.stats()["rest_requests"]
    report = census(database, client(simulator), threading.Event())
    asked = simulator.stats()["rest_requests"] - before
    assert (report.complete, report.is_continued) == (True, True)
    assert asked < 14, "series and events are not asked for again"
    assert_complete(database, simulator)


def test_stopped_it_says_so_and_goes_on(database, simulator):
    stop = threading.Event()

    def stop_at(fraction: float) -> None:
        if fraction > 0.25:
            stop.set()

    stopped = census(database, client(simulator, stop=stop), stop, stop_at)
    assert not stopped.complete
    assert stopped.tally.changed > 0
    report = census(database, client(simulator), threading.Event())
    assert (report.complete, report.is_continued) == (True, True)
    assert_complete(database, simulator)


def test_a_cursor_that_has_died_begins_its_list_again(database, simulator):
    census(database, client(simulator), threading.Event())
    with connect(database) as connection:
        connection.execute("DELETE FROM markets")
        connection.execute(
            "UPDATE ingestion_checkpoints SET position = position"
            " || jsonb_build_object('list_number', %s::int, 'cursor', 'long gone', 'pages', 3)"
            " WHERE scope = 'census'",
            [LISTS.index("unopened")],
        )
    report = census(database, client(simulator), threading.Event())
    assert report.complete
    assert_complete(database, simulator)


def test_an_outage_keeps_the_position(database, simulator):
    fractions: list[float] = []

    def fail_at(fraction: float) -> None:
        fractions.append(fraction)
        if fraction > 0.25:
            simulator.fault("rest_503", count=1000)

    with pytest.raises(Unavailable):
        census(database, client(simulator, retry_seconds=0.3), threading.Event(), fail_at)
    simulator.clear_faults()
    report = census(database, client(simulator), threading.Event())
    assert (report.complete, report.is_continued) == (True, True)
    assert_complete(database, simulator)


def test_only_one_is_taken_at_a_time(database, simulator):
    other = Lease(database, CENSUS)
    assert other.acquire()
    try:
        report = census(database, client(simulator), threading.Event())
    finally:
        other.release()
    assert (report.is_elsewhere, report.complete) == (True, False)
    assert held_markets(database) == {}


def test_what_changes_meanwhile_is_the_syncs_to_see(database, simulator):
    census(database, client(simulator), threading.Event())
    for kind in ("markets", "events", "series"):
        assert position(database, f"watermark:{kind}") is not None
