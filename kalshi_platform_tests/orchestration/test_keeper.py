"""The keeper: one recorder, never two, and back soon after any death."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import keeper
from kalshi_platform.orchestration.keeper import StreamRun, judge, stream_keeper
from kalshi_platform.orchestration.processes import PROCESS_TAG, process_name
from kalshi_platform.orchestration.resources import Database
from kalshi_platform.orchestration.stream import HANDOVER_TAG, PAUSE_TAG, stream_job
from kalshi_platform.storage.leases import RECORDER, Lease

S = dg.DagsterRunStatus


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same rules on a shorter clock."""
    monkeypatch.setattr(keeper, "WATCH_SECONDS", 0.6)
    monkeypatch.setattr(keeper, "GLANCE_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "FREE_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "START_SECONDS", 0.3)


def tick(instance: dg.DagsterInstance, database: str) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(
        instance=instance, definitions=defs, resources={"database": Database(url=database)}
    ) as context:
        result = stream_keeper(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def run(status: dg.DagsterRunStatus, seconds: float = 60) -> StreamRun:
    return StreamRun("0123456789", status, seconds)


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def test_a_recorder_starts_where_none_runs(instance, database):
    assert isinstance(tick(instance, database), dg.RunRequest)


def test_nothing_starts_while_a_recorder_holds_the_lease_outside_of_dagster(instance, database):
    lease = Lease(database, RECORDER)
    assert lease.acquire()
    result = tick(instance, database)
    lease.release()
    assert isinstance(result, dg.SkipReason)
    assert "outside of Dagster" in (result.skip_message or "")


def test_a_run_that_died_with_its_code_server_is_closed_and_replaced(instance, database):
    zombie = instance.create_run_for_job(stream_job, status=S.STARTED)
    time.sleep(0.35)
    assert isinstance(tick(instance, database), dg.RunRequest)
    assert status_of(instance, zombie.run_id) == S.FAILURE


def test_a_run_that_has_just_started_is_given_time_to_take_the_lease(
    instance, database, monkeypatch
):
    monkeypatch.setattr(keeper, "START_SECONDS", 30)
    young = instance.create_run_for_job(stream_job, status=S.STARTED)
    assert isinstance(tick(instance, database), dg.SkipReason)
    assert status_of(instance, young.run_id) == S.STARTED


def test_a_queued_run_is_waited_for_however_long():
    verdict = judge([run(S.QUEUED, 3600)], is_held=False, free_seconds=60)
    assert not verdict.launch
    assert not verdict.zombies


def test_the_lease_is_noticed_within_one_tick_when_its_holder_is_killed(instance, database):
    code = (
        "import sys, time\n"
        "from kalshi_platform.storage.leases import RECORDER, Lease\n"
        "lease = Lease(sys.argv[1], RECORDER)\n"
        "assert lease.acquire()\n"
        "print('held', flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, database], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert isinstance(tick(instance, database), dg.SkipReason)
    holder.kill()
    holder.wait()
    assert isinstance(tick(instance, database), dg.RunRequest)


def test_a_run_whose_window_is_over_is_followed_while_it_records(instance, database):
    old = instance.create_run_for_job(
        stream_job, status=S.STARTED, tags={HANDOVER_TAG: "true", PROCESS_TAG: process_name()}
    )
    lease = Lease(database, RECORDER)
    assert lease.acquire()
    assert isinstance(tick(instance, database), dg.RunRequest)
    instance.create_run_for_job(stream_job, status=S.STARTED)
    assert isinstance(tick(instance, database), dg.SkipReason), "one successor is enough"
    lease.release()
    assert status_of(instance, old.run_id) == S.STARTED


def test_where_a_service_records_dagster_only_reports(instance, database, monkeypatch):
    monkeypatch.setenv("KALSHI_STREAM_IN_DAGSTER", "0")
    result = tick(instance, database)
    assert isinstance(result, dg.SkipReason)
    assert "start `kalshi-platform record`" in (result.skip_message or "")


def test_a_run_that_asked_for_a_pause_is_not_followed_at_once(instance, database):
    instance.create_run_for_job(
        stream_job, status=S.FAILURE, tags={PAUSE_TAG: str(int(time.time()) + 40)}
    )
    result = tick(instance, database)
    assert isinstance(result, dg.SkipReason)
    assert "the next one starts in" in (result.skip_message or "")


def test_a_pause_ends(instance, database):
    instance.create_run_for_job(
        stream_job, status=S.FAILURE, tags={PAUSE_TAG: str(int(time.time()) - 1)}
    )
    assert isinstance(tick(instance, database), dg.RunRequest)


def test_a_database_that_is_away_is_a_reason_and_not_a_failure(instance):
    result = tick(instance, "postgresql://postgres@/kalshi?host=/nowhere")
    assert isinstance(result, dg.SkipReason)
    assert "cannot be reached" in (result.skip_message or "")


@pytest.mark.parametrize("status", [S.NOT_STARTED, S.STARTING, S.STARTED, S.CANCELING])
def test_whatever_step_a_run_died_at_it_is_closed(status):
    verdict = judge([run(status)], is_held=False, free_seconds=5)
    assert verdict.launch
    assert [zombie.status for zombie in verdict.zombies] == [status]


def test_a_lease_lost_for_a_moment_closes_no_run():
    verdict = judge([run(S.STARTED)], is_held=False, free_seconds=0.1)
    assert not verdict.launch
    assert not verdict.zombies


def test_no_run_is_closed_while_anybody_records():
    verdict = judge([run(S.STARTED), run(S.STARTED)], is_held=True, free_seconds=0)
    assert not verdict.launch
    assert not verdict.zombies
