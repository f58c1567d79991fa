"""Failed runs and failed checks, as conditions that alerts are made of.

A run that failed is made good by a later success of the same job, for the same partition where a
run is about one. What runs over and over is only told of when nothing follows in time, or what
follows fails as well: a recorder that was killed is none of anybody's business.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.orchestration.runs import CLOSED_TAG
from kalshi_platform.orchestration.stream import ROLE_TAG, STREAM

# By role: within this, the next run of what runs over and over has begun.
_REPEATED = {
    STREAM: 30.0,
    "candles": 90.0,
    "reference": 90.0,
    "census": 90.0,
    "checks": 0.0,
    "housekeeping": 0.0,
}
# A recorder that has worked for as long has made good what failed before it.
_STREAM_STANDS_SECONDS = 30.0
# A failure that nobody has made good by then is no news.
_FORGOTTEN = timedelta(hours=24)
_LOOKED_AT = 20
_ALL_LOOKED_AT = 100
# More partitions of one job than this are one alert.
_NAMED_APART = 3
_LONGEST_CAUSE = 300
_PARTITION_TAGS = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)
_S = dg.DagsterRunStatus
_LIVE = frozenset({_S.QUEUED, _S.NOT_STARTED, _S.STARTING, _S.STARTED})


def failed_runs(
    instance: dg.DagsterInstance,
    jobs: Iterable[str],
    links: Links,
    *,
    started_at: datetime | None = None,
) -> list[Condition]:
    """Runs of the last day whose failure nothing has made good.

    Args:
        started_at: when the code server was; what runs over and over was cut off by the end of the
            one before, and begins anew.
    """
    since = datetime.now(UTC) - _FORGOTTEN
    found: list[Condition] = []
    for job, failed in _failures(instance, jobs, since).items():
        role = failed[0].dagster_run.tags.get(ROLE_TAG, "")
        if role in _REPEATED:
            found += _repeated(instance, job, role, max(since, started_at or since), links)
        else:
            found += _by_partition(instance, failed, links)
    return found


def _failures(
    instance: dg.DagsterInstance, jobs: Iterable[str], since: datetime
) -> dict[str, list[dg.RunRecord]]:
    """The newest failures of each job that has any: one question, unless there are very many."""
    by_job: dict[str, list[dg.RunRecord]] = {}
    all_failed = dg.RunsFilter(statuses=[_S.FAILURE], updated_after=since)
    records = instance.get_run_records(all_failed, limit=_ALL_LOOKED_AT)
    if len(records) < _ALL_LOOKED_AT:
        known = set(jobs)
        for record in records:
            if record.dagster_run.job_name in known:
                by_job.setdefault(record.dagster_run.job_name, []).append(record)
        return by_job
    for job in jobs:  # one that fails all the time must not hide the others
        of_job = dg.RunsFilter(job_name=job, statuses=[_S.FAILURE], updated_after=since)
        if found := instance.get_run_records(of_job, limit=_LOOKED_AT):
            by_job[job] = list(found)
    return by_job


def _repeated(
    instance: dg.DagsterInstance, job: str, role: str, since: datetime, links: Links
) -> list[Condition]:
    """Of a job that runs over and over, its last runs: how many failed one after the other."""
    failed: list[dg.RunRecord] = []
    follows = False
    for record in instance.get_run_records(
        dg.RunsFilter(job_name=job, updated_after=since), limit=_LOOKED_AT
    ):
        run = record.dagster_run
        if run.status in _LIVE:
            follows = True
            if role == STREAM and time.time() - (record.start_time or time.time()) > (
                _STREAM_STANDS_SECONDS
            ):
                break
        elif run.status is _S.FAILURE:
            if CLOSED_TAG not in run.tags:
                failed.append(record)
        else:
            break
    if not failed:
        return []
    again = len(failed) > 1
    times = f", as {len(failed) - 1} before it did" if again else ""
    return [
        Condition(
            f"run {job}",
            kinds.RUN,
            "error",
            f"The last run of {job} failed{times}{_cause(instance, failed[0])}.",
            "Open the run's log by the link, and put right what it names; the next run comes by "
            "itself.",
            links.run(failed[0].dagster_run.run_id),
            tells=again or not follows,
            holds_seconds=0 if again else _REPEATED[role],
        )
    ]


def _by_partition(
    instance: dg.DagsterInstance, failed: Sequence[dg.RunRecord], links: Links
) -> list[Condition]:
    """Of a job that is about days: the days whose last run failed."""
    newest: dict[str, dg.RunRecord] = {}
    for record in failed:
        newest.setdefault(_about(record.dagster_run), record)
    open_ones = {
        about: (record, follows)
        for about, record in newest.items()
        if (follows := _follower(instance, record)) is not _S.SUCCESS
    }
    several = len(open_ones) > _NAMED_APART
    conditions = [
        Condition(
            f"run {about}",
            kinds.RUN,
            "error",
            f"The run of {about} failed{_cause(instance, record)}.",
            "Open the run's log by the link, put right what it names, and choose Re-execute there.",
            links.run(record.dagster_run.run_id),
            # One that follows may make it good.
            tells=follows is None and not several,
        )
        for about, (record, follows) in open_ones.items()
    ]
    if several:
        record, _ = next(iter(open_ones.values()))
        conditions.append(
            Condition(
                f"runs of {_subject(record.dagster_run)}",
                kinds.RUN,
                "error",
                f"{len(open_ones)} runs of {_subject(record.dagster_run)} failed, the last"
                f"{_cause(instance, record)}.",
                "Open the run's log by the link, put right what it names, and re-execute the "
                "failed ones (Runs, or the backfill's page).",
                links.run(record.dagster_run.run_id),
            )
        )
    return conditions


def _follower(instance: dg.DagsterInstance, failed: dg.RunRecord) -> dg.DagsterRunStatus | None:
    """SUCCESS if a later run for the same succeeded, else the status of one under way, or None."""
    run = failed.dagster_run
    tags = {tag: run.tags[tag] for tag in _PARTITION_TAGS if tag in run.tags}
    under_way = None
    for record in instance.get_run_records(
        dg.RunsFilter(job_name=run.job_name, tags=tags), limit=_LOOKED_AT
    ):
        later = record.dagster_run
        if record.storage_id <= failed.storage_id:
            break
        if _about(later) != _about(run):
            continue
        if later.status is _S.SUCCESS:
            return _S.SUCCESS
        if later.status in _LIVE:
            under_way = later.status
    return under_way


def _about(run: dg.DagsterRun) -> str:
    """What a run is about, in words that a later one for the same shares."""
    days = [run.tags[tag] for tag in _PARTITION_TAGS if tag in run.tags]
    return " ".join([_subject(run), " to ".join(days)]).strip()


def _subject(run: dg.DagsterRun) -> str:
    """The job; of runs that were started for some assets, these."""
    if run.asset_selection:
        return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))
    return run.job_name


def _cause(instance: dg.DagsterInstance, record: dg.RunRecord) -> str:
    """The first line of what went wrong, led by a colon; nothing where no step said it."""
    events = instance.get_records_for_run(
        record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1
    ).records
    event = events[0].event_log_entry.dagster_event if events else None
    if event is None:
        return ""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        text = data.user_failure_data.description
    elif data.error is not None:
        cause = data.error.cause or data.error
        text = cause.message
    else:
        return ""
    lines = text.strip().splitlines()
    return f": {lines[0][:_LONGEST_CAUSE].rstrip('.')}" if lines else ""


# Of ties there is nothing to do, and an open gap is an alert of its own kind.
_NEVER_TOLD = {"ties_decided", "no_open_gap"}


def failed_checks(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey], links: Links
) -> list[Condition]:
    """Checks whose last answer was no; an ERROR is an error, a WARN a warning."""
    keys = [key for key in keys if key.name not in _NEVER_TOLD]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    conditions = []
    for key in keys:
        record = _answered(instance, key, latest.get(key))
        if record is None or record.status is not AssetCheckExecutionRecordStatus.FAILED:
            continue
        asset, evaluation = key.asset_key.to_user_string(), record.evaluation
        is_warning = evaluation is not None and evaluation.severity is dg.AssetCheckSeverity.WARN
        conditions.append(
            Condition(
                f"check {asset}.{key.name}",
                kinds.CHECK,
                "warning" if is_warning else "error",
                f"The check {key.name} of {asset} failed"
                f"{_days(evaluation)}: {_figures(evaluation)}.",
                f"docs/operations.md, Checks, says what {key.name} means and what to do; ask it "
                "again from its page (Execute).",
                links.check(asset, key.name),
            )
        )
    return conditions


def _answered(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, latest: AssetCheckExecutionRecord | None
) -> AssetCheckExecutionRecord | None:
    """The last answer: one that is asked for just now, or died unanswered, says nothing."""
    if latest is None or latest.status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES:
        return latest
    before = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    )
    return before[0] if before else None


def _days(evaluation: dg.AssetCheckEvaluation | None) -> str:
    metadata = {} if evaluation is None else evaluation.metadata
    days = metadata.get("failed_days") or metadata.get("days")
    return "" if days is None else f" on {days.value}"


def _figures(evaluation: dg.AssetCheckEvaluation | None) -> str:
    """Its figures in a few words; tables are on its page."""
    metadata = {} if evaluation is None else evaluation.metadata
    shown = [
        f"{name} {entry.value}"
        for name, entry in metadata.items()
        if name not in ("days", "failed_days")
        and isinstance(entry, dg.IntMetadataValue | dg.FloatMetadataValue | dg.TextMetadataValue)
    ]
    return ", ".join(shown)[:_LONGEST_CAUSE] or "see its page"
