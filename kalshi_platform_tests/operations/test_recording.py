"""`record` as a spare: it waits for its turn and takes it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from kalshi_platform.ingest.service import RecordingOptions
from kalshi_platform.operations.recording import record_in_turn
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import RECORDER, Lease, held
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(trades_per_second=20) as simulator:
        yield simulator


def test_a_second_recorder_stands_by_and_takes_over(
    tmp_path: Path, database: str, exchange: RunningSimulator
) -> None:
    structlog.reset_defaults()
    options = RecordingOptions(
        database_url=database,
        tape_folder=tmp_path / "tape",
        ws_url=exchange.ws_url,
        rest_url=exchange.rest_url,
        key_id=exchange.key_id,
        private_key_path=exchange.private_key_path,
    )
    first = Lease(database, RECORDER)
    assert first.acquire()
    stop = threading.Event()
    spare = threading.Thread(
        target=record_in_turn, args=(options, stop), kwargs={"load": True, "heal": True}
    )
    with capture_logs() as lines:
        spare.start()
        try:
            until(lambda: any(line["event"] == "standing_by" for line in lines))
            assert spare.is_alive()
            assert not (tmp_path / "tape").exists()
            first.release()
            until(lambda: _records(database))
        finally:
            stop.set()
            spare.join(20)
    assert not spare.is_alive()
    assert [line["event"] for line in lines].count("standing_by") == 1


def test_who_stands_by_can_be_stopped(tmp_path: Path, database: str) -> None:
    first = Lease(database, RECORDER)
    assert first.acquire()
    stop = threading.Event()
    stop.set()
    options = RecordingOptions(database, tmp_path, "ws://x", "http://x", "x", tmp_path / "none")
    record_in_turn(options, stop, load=True, heal=True)
    assert first.still_held()
    first.release()


def _records(database: str) -> bool:
    with connect(database) as connection:
        return held(connection, RECORDER)
