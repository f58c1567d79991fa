"""The streaming run: it records, ends when it should, and hands over when it is orphaned."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import stream
from kalshi_platform.orchestration.assets.trades import trades
from kalshi_platform.orchestration.processes import (
    PROCESS_TAG,
    Parent,
    process_is_gone,
    process_name,
)
from kalshi_platform.orchestration.resources import Database, Exchange, Home
from kalshi_platform.orchestration.stream import (
    HANDOVER_TAG,
    PAUSE_TAG,
    Handover,
    Recording,
    stream_job,
)
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import RECORDER, Lease, held
from kalshi_platform.storage.recorded_exchange import claim_database
from kalshi_platform_tests.orchestration import family
from kalshi_simulator.testing import RunningSimulator, running_simulator

S = dg.DagsterRunStatus


@pytest.fixture(autouse=True)
def no_successor_for_long(monkeypatch):
    """No keeper starts one here."""
    monkeypatch.setattr(stream, "_SUCCESSOR_SECONDS", 0.5)


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(
        trades_per_second=20, history_days=2, history_trades_per_second=0.02
    ) as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def exchange_at(simulator: RunningSimulator, key_id: str | None = None) -> Exchange:
    return Exchange(
        rest_url=simulator.rest_url,
        ws_url=simulator.ws_url,
        key_id=key_id or simulator.key_id,
        private_key_path=str(simulator.private_key_path),
    )


def record(
    database: str,
    folder: Path,
    exchange: Exchange,
    instance: dg.DagsterInstance,
    window_seconds: int = 3,
) -> dg.ExecuteInProcessResult:
    return (
        dg.Definitions(
            jobs=[stream_job],
            resources={
                "database": Database(url=database),
                "exchange": exchange,
                "home": Home(folder=str(folder)),
            },
        )
        .resolve_job_def(stream_job.name)
        .execute_in_process(
            run_config={"ops": {"record_exchange": {"config": {"window_seconds": window_seconds}}}},
            instance=instance,
            raise_on_error=False,
        )
    )


def lines_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id)]


def tags_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return dict(run.tags)


def test_a_run_records_until_its_window_is_over(
    database, tmp_path, simulator, instance, monkeypatch
):
    monkeypatch.setattr(stream, "_REPORT_SECONDS", 1)
    result = record(database, tmp_path, exchange_at(simulator), instance)
    assert result.success
    with connect(database) as connection:
        assert not held(connection, RECORDER)
        landed = connection.execute("SELECT count(*) FROM trades").fetchone()
    assert landed is not None
    assert landed[0] > 0
    assert list((tmp_path / "tape").glob("*.zst"))
    lines = lines_of(instance, result.run_id)
    assert any(line.startswith("connected connection=") for line in lines)
    assert any(line.startswith("landed raw_trades=+") for line in lines)
    assert "stopping: the window is over, and no other run has come instead" in lines
    assert not process_is_gone(tags_of(instance, result.run_id)[PROCESS_TAG])


def test_a_refused_key_fails_the_run_with_its_remedy_and_a_pause(
    database, tmp_path, simulator, instance
):
    began = time.time()
    result = record(database, tmp_path, exchange_at(simulator, key_id="wrong"), instance)
    assert not result.success
    assert float(tags_of(instance, result.run_id)[PAUSE_TAG]) > began + 50
    failure = result.failure_data_for_node("record_exchange")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "KALSHI_API_KEY_ID" in (failure.user_failure_data.description or "")


def test_a_run_leaves_the_feed_to_a_recorder_that_is_there(
    database, tmp_path, simulator, instance, monkeypatch
):
    monkeypatch.setattr(stream, "_HANDOVER_SECONDS", 0.2)
    lease = Lease(database, RECORDER)
    assert lease.acquire()
    result = record(database, tmp_path, exchange_at(simulator), instance)
    assert lease.still_held()
    lease.release()
    assert result.success
    assert "Another recorder holds the lease; this run leaves it to that one." in lines_of(
        instance, result.run_id
    )


def test_a_run_that_dagster_has_closed_ends(database, tmp_path, simulator, instance, monkeypatch):
    monkeypatch.setattr(stream, "_REPORT_SECONDS", 0.5)
    monkeypatch.setattr(stream, "_closed", lambda context: True)
    result = record(database, tmp_path, exchange_at(simulator), instance, window_seconds=60)
    assert "stopping: Dagster has closed this run" in lines_of(instance, result.run_id)


def test_a_second_interrupt_does_not_cut_the_flush_short():
    interrupts = 3
    flushed = threading.Event()

    def work(stop: threading.Event) -> None:
        stop.wait()
        for _ in range(interrupts):
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        flushed.set()

    def interrupt(*_: object) -> None:
        raise dg.DagsterExecutionInterruptedError

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        recording = Recording(work)
        recording.start()
        assert recording.finish(5)
        assert flushed.is_set()
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_recorder_that_hangs_is_given_up():
    forever = threading.Event()
    recording = Recording(lambda stop: forever.wait() and None)
    recording.start()
    assert not recording.finish(0.2)
    forever.set()


def test_an_error_of_the_recorder_is_carried_to_the_run():
    def work(stop: threading.Event) -> None:
        raise OSError("disk gone")

    recording = Recording(work)
    recording.start()
    assert not recording.wait(5)
    assert str(recording.error) == "disk gone"


@pytest.mark.parametrize("reason", ["the window is over", "the code server is gone"])
def test_a_run_records_on_until_its_successor_has_started(instance, monkeypatch, reason):
    monkeypatch.setattr(stream, "_SUCCESSOR_SECONDS", 60)
    run = instance.create_run_for_job(stream_job, status=S.STARTED)
    context: Any = SimpleNamespace(instance=instance, run_id=run.run_id)
    handover = Handover()
    handover.begin(reason)
    assert handover.end(context) is None
    assert tags_of(instance, run.run_id)[HANDOVER_TAG] == "true"
    instance.create_run_for_job(stream_job, status=S.STARTED)
    assert handover.end(context) == f"{reason}; handing over to the run that has started"


def test_a_run_without_a_successor_ends(instance, monkeypatch):
    monkeypatch.setattr(stream, "_SUCCESSOR_SECONDS", 0)
    run = instance.create_run_for_job(stream_job, status=S.STARTED)
    context: Any = SimpleNamespace(instance=instance, run_id=run.run_id)
    handover = Handover()
    handover.begin("the window is over")
    assert "no other run has come" in (handover.end(context) or "")


def test_a_run_of_another_exchange_than_the_databases_is_refused(
    database, tmp_path, simulator, instance
):
    with connect(database) as connection:
        claim_database(connection, "kalshi.com")
    result = record(database, tmp_path, exchange_at(simulator), instance)
    assert not result.success
    assert PAUSE_TAG in tags_of(instance, result.run_id)
    failure = result.failure_data_for_node("record_exchange")
    assert failure is not None and failure.user_failure_data is not None
    assert "holds data of kalshi.com" in (failure.user_failure_data.description or "")
    assert not (tmp_path / "tape").exists()


def test_a_process_started_by_hand_is_no_orphan():
    assert not Parent().is_gone()


def test_a_process_notices_that_its_parent_was_killed():
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=family.code_server, args=(there,))
    server.start()
    assert here.poll(60)
    assert here.recv() == "with parent"
    server.kill()
    server.join()
    assert here.poll(20)
    assert here.recv() == "orphan"


def test_a_dead_process_is_known_by_its_name_on_its_own_host_only():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host = socket.gethostname()
    me = process_name()
    assert process_is_gone(f"{host}/{child.pid}/1")
    assert not process_is_gone(f"elsewhere/{child.pid}/1")
    assert not process_is_gone(me)
    assert process_is_gone(f"{me}0"), "another process that had the same id"
    assert not process_is_gone("")


def sweep(database: str, simulator: RunningSimulator, day: str) -> dict[str, Any]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [trades],
            partition_key=day,
            resources={"database": Database(url=database), "exchange": exchange_at(simulator)},
            instance=instance,
        )
    [event] = result.asset_materializations_for_node("trades")
    assert event.partition == day
    return {name: value.value for name, value in event.metadata.items()}


def test_a_day_before_recording_is_loaded_and_healed_by_the_same_run(database, simulator):
    from kalshi_platform.orchestration.partitions import today

    day = str(today().fromordinal(today().toordinal() - 1))
    loaded = sweep(database, simulator, day)
    held_rows = loaded["dagster/partition_row_count"]
    assert loaded["added"] == loaded["swept"] == held_rows > 0
    with connect(database) as connection:
        connection.execute(
            "DELETE FROM trades WHERE trade_id IN (SELECT trade_id FROM trades LIMIT 3)"
        )
    assert sweep(database, simulator, day)["added"] == 3
    again = sweep(database, simulator, day)
    assert (again["added"], again["changed"]) == (0, 0)
    assert again["dagster/partition_row_count"] == held_rows


def test_every_definition_of_the_stream_is_loaded():
    assert defs.resolve_job_def("stream_job").name == stream_job.name
