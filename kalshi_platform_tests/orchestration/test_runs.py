"""Dagster's books: what died in them is closed, what is old is taken out."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import runs
from kalshi_platform.orchestration.automation import (
    candles_each_minute,
    certify_candles_job,
    partitions_ahead_job,
    refresh_candles_job,
)
from kalshi_platform.orchestration.processes import PROCESS_TAG, process_is_gone, process_name
from kalshi_platform.orchestration.resources import ENVIRONMENT, Database
from kalshi_platform.orchestration.runs import close_all_runs, close_dead_runs, purge_runs
from kalshi_platform.storage.engine import connect

S = dg.DagsterRunStatus
DEAD = f"{socket.gethostname()}/1/0"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as temporary:
        yield temporary


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Dagster looks for these before it makes a run of a job."""
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, "unused")


def begin(
    instance: dg.DagsterInstance, process: str | None, status: dg.DagsterRunStatus = S.STARTED
) -> str:
    """A refresh of candles as the books have it."""
    tags = {} if process is None else {PROCESS_TAG: process}
    job = defs.resolve_job_def(refresh_candles_job.name)
    return instance.create_run_for_job(job, status=status, tags=tags).run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def minute(instance: dg.DagsterInstance, database: str) -> dg.RunRequest | dg.SkipReason:
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.now(UTC),
        resources={"database": Database(url=database)},
    )
    result = candles_each_minute(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_candles_go_on_after_a_refresh_died_with_all_of_dagster(instance, database, monkeypatch):
    monkeypatch.setattr(runs, "_TAG_SECONDS", 0)
    with connect(database) as connection:
        connection.execute("INSERT INTO stale_candles VALUES (now(), 'KXTEST-A')")
    zombie = begin(instance, DEAD)
    assert isinstance(minute(instance, database), dg.SkipReason)
    assert close_dead_runs(instance) == [zombie]
    assert status_of(instance, zombie) == S.FAILURE
    assert isinstance(minute(instance, database), dg.RunRequest)


@pytest.mark.parametrize(
    "process", [process_name(), "elsewhere/1/0", None], ids=["ours", "another machine's", "unknown"]
)
def test_a_run_whose_process_may_live_is_left_alone(instance, monkeypatch, process):
    monkeypatch.setattr(runs, "_TAG_SECONDS", 0)
    run_id = begin(instance, process)
    assert close_dead_runs(instance) == []
    assert status_of(instance, run_id) == S.STARTED


def test_a_run_that_never_told_its_process_is_dead_after_a_while(instance, monkeypatch):
    monkeypatch.setattr(runs, "_UNTAGGED_SECONDS", 0)
    run_id = begin(instance, None)
    assert close_dead_runs(instance) == [run_id]


def test_a_tag_inherited_from_a_run_before_is_not_believed_at_once(instance):
    begin(instance, DEAD)
    assert close_dead_runs(instance) == []


def test_up_closes_whatever_had_begun_and_leaves_what_waits(instance):
    begun = {begin(instance, process_name()), begin(instance, None, S.STARTING)}
    waiting = begin(instance, None, S.NOT_STARTED)
    assert set(close_all_runs(instance)) == begun
    assert status_of(instance, waiting) == S.NOT_STARTED


def test_every_run_tells_its_process(instance, database, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database)
    result = defs.resolve_job_def(partitions_ahead_job.name).execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[PROCESS_TAG] == process_name()
    assert not process_is_gone(run.tags[PROCESS_TAG])


def test_every_job_ends_some_time():
    for job in defs.resolve_all_job_defs():
        if not job.name.startswith("__"):
            assert int(job.tags["dagster/max_runtime"]) <= 43_200, job.name


def test_old_runs_are_purged_with_their_logs_and_the_certified_days_kept(instance, tmp_path: Path):
    old = begin(instance, None, S.SUCCESS)
    living = begin(instance, process_name())
    kept = instance.create_run_for_job(
        defs.resolve_job_def(certify_candles_job.name), status=S.SUCCESS
    ).run_id
    folder = tmp_path / "dagster" / "storage" / old / "compute_logs"
    folder.mkdir(parents=True)
    (folder / "step.err").write_text("log")
    jobs = [refresh_candles_job.name]
    past = datetime.now(UTC) - timedelta(hours=1)
    assert purge_runs(instance, jobs, ended_before=past) == []
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert purge_runs(instance, jobs, ended_before=soon) == [old]
    assert not folder.parent.exists()
    assert {run.run_id for run in instance.get_runs()} == {living, kept}
