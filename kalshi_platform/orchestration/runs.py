"""Dagster's books: runs that died unnoticed are closed in them, old ones are taken out.

Dagster does not notice when a run's process dies together with its code server: the run stays
STARTED, keeps its places in queue and pool, and everything that waits for it waits for ever.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from kalshi_platform.orchestration.processes import PROCESS_TAG, process_is_gone

# On a run that was found dead, not seen to fail: what it did is done by the next one.
CLOSED_TAG = "kalshi/closed"

_S = dg.DagsterRunStatus
_BEGUN = (_S.STARTING, _S.STARTED, _S.CANCELING)
_ENDED = (_S.SUCCESS, _S.FAILURE, _S.CANCELED)

# A run that was started again from the UI carries its predecessor's tag until it writes its own.
_TAG_SECONDS = 10.0
# A run writes the tag within a second of its start; one that never did has died before.
_UNTAGGED_SECONDS = 30.0
_RUNS_A_TURN = 500


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Close every run in the books whose process is known to be dead; returns their ids."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[_S.STARTED, _S.CANCELING]), limit=_RUNS_A_TURN
    )
    now = time.time()
    dead = [record.dagster_run for record in records if _is_dead(record, now)]
    for run in dead:
        close_run(instance, run, "The run's process is gone.")
    return [run.run_id for run in dead]


def _is_dead(record: dg.RunRecord, now: float) -> bool:
    unchanged_seconds = now - record.update_timestamp.replace(tzinfo=UTC).timestamp()
    process = record.dagster_run.tags.get(PROCESS_TAG)
    if process is None:
        return unchanged_seconds > _UNTAGGED_SECONDS
    return unchanged_seconds > _TAG_SECONDS and process_is_gone(process)


def close_all_runs(instance: dg.DagsterInstance) -> list[str]:
    """Close every run that has begun by the books: their processes are known to be gone."""
    records = instance.get_run_records(dg.RunsFilter(statuses=list(_BEGUN)))
    for record in records:
        close_run(instance, record.dagster_run, "The platform was stopped meanwhile.")
    return [record.dagster_run.run_id for record in records]


def close_run(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """Write into the books that the run has ended, and that it was not its own doing."""
    instance.add_run_tags(run.run_id, {CLOSED_TAG: why})
    instance.report_run_failed(run, why)


def purge_runs(
    instance: dg.DagsterInstance, jobs: Sequence[str], *, ended_before: datetime
) -> list[str]:
    """Take ended runs of `jobs` out of the books, with their events and logs; returns their ids.

    Args:
        jobs: only jobs whose runs say nothing of a day that a later run does not say as well:
            which days are filled is read from the events.
        ended_before: UTC.
    """
    purged = []
    for job in jobs:
        records = instance.get_run_records(
            dg.RunsFilter(job_name=job, statuses=list(_ENDED), updated_before=ended_before),
            limit=_RUNS_A_TURN,
            ascending=True,
        )
        for record in records:
            run_id = record.dagster_run.run_id
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.delete_run(run_id)
            purged.append(run_id)
    return purged


def days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
