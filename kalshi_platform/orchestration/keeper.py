"""The stream's keeper: exactly one recorder, wherever it runs.

A recorder holds a lease in the database (`storage.leases.RECORDER`), and that lease, not Dagster's
books, says whether anything records: a run that died together with its code server stays STARTED
in the books for ever, and a recorder may run outside of Dagster (`kalshi-platform record`).
"""

import time
from collections.abc import Sequence
from datetime import UTC
from typing import NamedTuple

import dagster as dg
import psycopg

from kalshi_platform.orchestration.processes import PROCESS_TAG, process_is_gone
from kalshi_platform.orchestration.resources import Database, first_line
from kalshi_platform.orchestration.runs import close_dead_runs, close_run
from kalshi_platform.orchestration.stream import (
    HANDOVER_TAG,
    PAUSE_TAG,
    stream_job,
)
from kalshi_platform.settings import Settings
from kalshi_platform.storage.leases import RECORDER, held

# A tick looks again and again, since the daemon asks a sensor once in 5 s at most and a killed
# recorder should be noticed sooner.
WATCH_SECONDS = 4.0
GLANCE_SECONDS = 0.5
# A recorder that lost its lease to a restart of the database takes it again within a second.
FREE_SECONDS = 2.5
# From a run's last step in Dagster's books to its lease: about 3 s on a busy machine.
START_SECONDS = 12.0

_S = dg.DagsterRunStatus
_QUEUED = frozenset({_S.QUEUED})
_LIVE = (_S.QUEUED, _S.NOT_STARTED, _S.STARTING, _S.STARTED, _S.CANCELING)


class StreamRun(NamedTuple):
    """A run of the streaming job that Dagster's books call alive."""

    run_id: str
    status: dg.DagsterRunStatus
    unchanged_seconds: float
    # Its window is over or its code server is gone; it records until its successor has started.
    hands_over: bool = False
    # Its process was on this machine and is no more.
    is_dead: bool = False


class Verdict(NamedTuple):
    """What to do now, and the sentence that says why."""

    launch: bool
    zombies: Sequence[StreamRun]
    sentence: str


def judge(
    runs: Sequence[StreamRun], *, is_held: bool, free_seconds: float, pause_seconds: float = 0
) -> Verdict:
    """Decide from the lease and the books.

    Args:
        runs: the runs that are alive in the books.
        is_held: whether some process holds the recorder's lease.
        free_seconds: how long the lease has been seen free without interruption.
        pause_seconds: how long the last run asked to wait before the next one.
    """
    if is_held and runs and all(run.hands_over for run in runs):
        return Verdict(True, (), "A run hands over; its successor takes over.")
    if is_held:
        where = f"in run {runs[0].run_id[:8]}" if runs else "outside of Dagster"
        return Verdict(False, (), f"Recording {where}.")
    zombies = [run for run in runs if _is_zombie(run, free_seconds)]
    waiting = [run for run in runs if run not in zombies]
    if waiting:
        run = waiting[0]
        return Verdict(
            False, zombies, f"Run {run.run_id[:8]} is {run.status.value} and has no lease yet."
        )
    if pause_seconds > 0:
        return Verdict(
            False, zombies, f"The last run failed; the next one starts in {pause_seconds:.0f} s."
        )
    return Verdict(True, zombies, "Nothing records.")


def _is_zombie(run: StreamRun, free_seconds: float) -> bool:
    if run.status in _QUEUED:
        return False
    late = run.unchanged_seconds >= START_SECONDS and free_seconds >= FREE_SECONDS
    return run.is_dead or late


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start a recorder where none holds the lease; close runs that died unnoticed.",
)
def stream_keeper(
    context: dg.SensorEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Watch for some seconds; request a run as soon as nothing records."""
    for run_id in close_dead_runs(context.instance):
        context.log.warning("closed run %s: its process is gone", run_id[:8])
    try:
        with database.connect(autocommit=True) as connection:
            if not Settings().stream_in_dagster:
                return dg.SkipReason(_report(connection))
            return _keep(context.instance, connection)
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")


def _report(connection: psycopg.Connection) -> str:
    if held(connection, RECORDER):
        return "A recorder holds the lease; KALSHI_STREAM_IN_DAGSTER is off."
    return "Nothing records, and KALSHI_STREAM_IN_DAGSTER is off: start `kalshi-platform record`."


def _keep(
    instance: dg.DagsterInstance, connection: psycopg.Connection
) -> dg.RunRequest | dg.SkipReason:
    begun = time.monotonic()
    free_since: float | None = None
    while True:
        # The books first: a run that takes the lease between the two looks is then seen with it.
        runs = live_runs(instance)
        is_held = held(connection, RECORDER)
        now = time.monotonic()
        free_since = None if is_held else (free_since if free_since is not None else now)
        verdict = judge(
            runs,
            is_held=is_held,
            free_seconds=0 if free_since is None else now - free_since,
            pause_seconds=0 if runs or is_held else _pause_seconds(instance),
        )
        for zombie in verdict.zombies:
            close(instance, zombie)
        if verdict.launch:
            # No run key: each launch is a new one, and the lease forbids two.
            return dg.RunRequest()
        if now - begun >= WATCH_SECONDS:
            return dg.SkipReason(verdict.sentence)
        time.sleep(GLANCE_SECONDS)


def live_runs(instance: dg.DagsterInstance) -> list[StreamRun]:
    """Runs of the streaming job that have not ended by the books, newest first."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=stream_job.name, statuses=list(_LIVE)), limit=20
    )
    now = time.time()
    return [
        StreamRun(
            record.dagster_run.run_id,
            record.dagster_run.status,
            now - record.update_timestamp.replace(tzinfo=UTC).timestamp(),
            hands_over=HANDOVER_TAG in record.dagster_run.tags,
            is_dead=process_is_gone(record.dagster_run.tags.get(PROCESS_TAG, "")),
        )
        for record in records
    ]


def close(instance: dg.DagsterInstance, zombie: StreamRun) -> None:
    """Write into the books that the run has ended; one that lives after all reads it there."""
    run = instance.get_run_by_id(zombie.run_id)
    if run is not None and not run.is_finished:
        close_run(instance, run, "The run holds no lease: its process is gone.")


def _pause_seconds(instance: dg.DagsterInstance) -> float:
    records = instance.get_run_records(dg.RunsFilter(job_name=stream_job.name), limit=1)
    if not records:
        return 0
    return float(records[0].dagster_run.tags.get(PAUSE_TAG, "0")) - time.time()
