"""The keeper of markets and outcomes: a sync whenever something is due, one census to begin with.

What is due stands in the database (`next_read_at` of each row), so that nothing is forgotten by a
crash; a look at it costs a tick next to nothing, and no run is started while nothing is due.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg
import psycopg

from kalshi_platform.orchestration.resources import Database, first_line
from kalshi_platform.orchestration.sync import (
    census_job,
    refresh_reference,
    reports,
)
from kalshi_platform.storage.leases import CENSUS as CENSUS_LEASE
from kalshi_platform.storage.leases import REFERENCE, held
from kalshi_platform.storage.reads.reference import (
    CENSUS,
    SOURCE,
    completed_at,
    seconds_to_next_due,
)
from kalshi_platform.storage.reads.sweeps import checkpoint

TICK_SECONDS = 15
# Something may have changed that nobody told of: REST is asked at least this often.
ROUND_SECONDS = 60.0
# A run fails where waiting does not help (a refused key); another at once would fail as well.
_PAUSE_AFTER_FAILURE_SECONDS = 30.0
# Reports of what is synced outside of Dagster.
_REPORT_SECONDS = 60.0

_JOBS = (refresh_reference.name, census_job.name)
_S = dg.DagsterRunStatus
_LIVE = (_S.QUEUED, _S.NOT_STARTED, _S.STARTING, _S.STARTED, _S.CANCELING)


class Need(NamedTuple):
    """What the database says about work to be done."""

    census: bool
    """None has been completed, and nobody takes one."""
    completed_at: datetime | None
    """When a sync last asked for everything."""
    due_seconds: float | None
    """How long something has been due; negative until it is, None if nothing ever is."""
    is_held: bool
    """A sync works, in Dagster or outside."""


def why_sync(need: Need, now: datetime) -> str | None:
    """The reason for a sync, None where there is none."""
    if need.completed_at is None:
        return "Nothing has been synced yet."
    if now - need.completed_at > timedelta(seconds=ROUND_SECONDS):
        age = (now - need.completed_at).total_seconds()
        return f"The last complete round was {age:.0f} s ago."
    if need.due_seconds is not None and need.due_seconds >= 0:
        return f"Something has been due for {need.due_seconds:.0f} s."
    return None


@dg.sensor(
    jobs=[refresh_reference, census_job],
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start a sync where something is due and none is under way, and a census where "
    "none has been completed.",
)
def reference_keeper(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.SensorResult | dg.SkipReason:
    """Request what is needed; report what a process outside of Dagster has synced."""
    live = [name for name in _JOBS if _is_live(context.instance, name)]
    try:
        with database.connect() as connection:
            need = read_need(connection)
            outside = need.is_held and refresh_reference.name not in live
            if outside and _report_is_due(need, context.cursor):
                assert need.completed_at is not None, "a report is due after a round"
                return dg.SensorResult(
                    asset_events=reports(connection), cursor=need.completed_at.isoformat()
                )
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")
    reasons = {
        census_job.name: "No census has been completed." if need.census else None,
        refresh_reference.name: None if outside else why_sync(need, datetime.now(UTC)),
    }
    requests, sentences = [], ["A process outside of these jobs syncs."] if outside else []
    for name, reason in reasons.items():
        if name in live:
            sentences.append(f"{name} is under way.")
        elif reason and (pause := _pause_seconds(context.instance, name)) > 0:
            sentences.append(f"{name} failed; the next one starts in {pause:.0f} s.")
        elif reason:
            # No run key: each is a new one.
            requests.append(dg.RunRequest(job_name=name))
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason(" ".join(sentences) or "Nothing is due.")


def read_need(connection: psycopg.Connection) -> Need:
    """What there is to do, from the queue and the checkpoints."""
    to_come = seconds_to_next_due(connection)
    return Need(
        census=not held(connection, CENSUS_LEASE) and not _census_is_complete(connection),
        completed_at=completed_at(connection),
        due_seconds=None if to_come is None else -to_come,
        is_held=held(connection, REFERENCE),
    )


def _census_is_complete(connection: psycopg.Connection) -> bool:
    saved = checkpoint(connection, SOURCE, CENSUS)
    return saved is not None and bool(saved[0].get("completed_at"))


def _report_is_due(need: Need, reported: str | None) -> bool:
    if need.completed_at is None:
        return False
    return (
        reported is None
        or (need.completed_at - datetime.fromisoformat(reported)).total_seconds() >= _REPORT_SECONDS
    )


def _is_live(instance: dg.DagsterInstance, job: str) -> bool:
    live = dg.RunsFilter(job_name=job, statuses=list(_LIVE))
    return bool(instance.get_run_records(live, limit=1))


def _pause_seconds(instance: dg.DagsterInstance, job: str) -> float:
    """How long to wait after the job's last run, had it failed."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if not records or records[0].dagster_run.status != _S.FAILURE:
        return 0
    return (records[0].end_time or 0) + _PAUSE_AFTER_FAILURE_SECONDS - time.time()
