"""When things run: candles each minute, certification each night, partitions ahead and away.

Candles follow the clock, not an automation condition: one run a minute at a known second, skipped
with a reason when nothing changed; and a trade healed into last week is in its candle a minute
later, which a condition on today's partition would not see. All times are UTC.
"""

from datetime import timedelta

import dagster as dg
import psycopg

from kalshi_platform.orchestration.assets.archive import ASSETS as ARCHIVE_ASSETS
from kalshi_platform.orchestration.assets.books import TABLES as BOOK_TABLES
from kalshi_platform.orchestration.assets.candles import TABLES, CandleRun
from kalshi_platform.orchestration.assets.reference import TABLES as REFERENCE_TABLES
from kalshi_platform.orchestration.partitions import has_partition
from kalshi_platform.orchestration.resources import Database, Home, first_line
from kalshi_platform.orchestration.runs import days_ago, purge_runs
from kalshi_platform.orchestration.stream import MAX_RUNTIME_TAG, ROLE_TAG
from kalshi_platform.orchestration.sync import refresh_reference
from kalshi_platform.settings import Settings

_RUNNING = dg.DefaultScheduleStatus.RUNNING
_CANDLES = dg.AssetSelection.assets(*TABLES)
# An archive that was away for long catches up over some nights.
_MOST_ARCHIVED_A_NIGHT = 14

refresh_candles_job = dg.define_asset_job(
    "refresh_candles",
    selection=_CANDLES.without_checks(),
    description="Recompute the minutes whose trades changed, of any day, and what they roll up to.",
    tags={ROLE_TAG: "candles", "dagster/priority": "50", MAX_RUNTIME_TAG: "1800"},
)
certify_trades_job = dg.define_asset_job(
    "certify_trades",
    selection=dg.AssetSelection.assets("trades"),
    description="Compare a day of trades with the exchange, heal it, check it.",
    tags={ROLE_TAG: "certify", MAX_RUNTIME_TAG: "21600"},
)
certify_candles_job = dg.define_asset_job(
    "certify_candles",
    selection=_CANDLES,
    description="Rebuild a day's candles from its trades and check them.",
    tags={ROLE_TAG: "certify", MAX_RUNTIME_TAG: "7200"},
)
certify_reference_job = dg.define_asset_job(
    "certify_reference",
    selection=dg.AssetSelection.assets(*REFERENCE_TABLES),
    description="Ask the exchange for a day's markets, events and outcomes and check them.",
    tags={ROLE_TAG: "certify", MAX_RUNTIME_TAG: "21600"},
)
check_today_job = dg.define_asset_job(
    "check_today",
    selection=dg.AssetSelection.checks_for_assets(
        *TABLES, *REFERENCE_TABLES, *BOOK_TABLES, "quotes", "trades"
    ),
    description="Run all checks on today's rows; of quotes and books also on yesterday's.",
    tags={ROLE_TAG: "checks", MAX_RUNTIME_TAG: "3600"},
)
archive_job = dg.define_asset_job(
    "archive_days",
    selection=dg.AssetSelection.assets(*ARCHIVE_ASSETS),
    description="Write a closed day of trades, quotes, books and lifecycle messages as Parquet, "
    "read it back, and look at older files again.",
    tags={ROLE_TAG: "archive", "dagster/priority": "-5", MAX_RUNTIME_TAG: "21600"},
)


@dg.op(description="Make the partitions of the coming days in the database.")
def make_partitions(context: dg.OpExecutionContext, database: Database) -> None:
    """Midnight must find its partitions made; the loader makes only what it is surprised by."""
    from datetime import UTC, datetime

    from kalshi_platform.storage.partitions import days_ahead, ensure_partitions

    with database.connect() as connection:
        made = ensure_partitions(connection, days_ahead(datetime.now(UTC)))
    context.log.info("made %d partitions: %s", len(made), ", ".join(made) or "all were there")


class History(dg.Config):
    """For how many days ended runs stay in Dagster's books."""

    keep_days: int = 7


# 3,000 runs a day whose days later runs report again: what certifies a day is kept.
_FLEETING = (
    refresh_candles_job.name,
    refresh_reference.name,
    check_today_job.name,
    "partitions_ahead_job",
    "stream_job",
)


@dg.op(description="Drop the days that are older than they are kept and safe in the archive.")
def drop_old_partitions(context: dg.OpExecutionContext, database: Database) -> None:
    """Whole days go (KALSHI_QUOTES_DAYS, KALSHI_BOOKS_DAYS, KALSHI_TRADES_DAYS), once archived.

    Days that are needed in the database again come back. A dropped day stays materialized in
    Dagster, which knows no other word for it: an observation of the day says where its rows are.
    """
    from kalshi_platform.archive.dropping import days_kept, drop_old_days
    from kalshi_platform.archive.store import Store

    settings = Settings()
    kept = days_kept(settings.quotes_days, settings.books_days, settings.trades_days)
    outcome = drop_old_days(database.url, Store(settings.archive), kept)
    for restored in outcome.restored:
        context.log.info("brought %s of %s back: %s", *restored)
    for table, day, size in outcome.dropped:
        context.log.info("dropped %s of %s: %.1f MB", table, day, size / 1e6)
        if has_partition(day):
            context.log_event(
                dg.AssetObservation(
                    table,
                    partition=str(day),
                    description="The day is older than it is kept: its rows are in the archive.",
                    metadata={"dagster/partition_row_count": 0, "bytes_freed": size},
                )
            )
    for left in outcome.left:
        context.log.warning("%s of %s stays: %s", *left)
    if not outcome.dropped:
        context.log.info("nothing to drop; days kept: %s", kept)


@dg.op(
    description="Remove the tape's files that are loaded, archived and older than they are kept."
)
def remove_old_tape(context: dg.OpExecutionContext, database: Database, home: Home) -> None:
    """Files of the tape go after KALSHI_TAPE_DAYS, once all that they hold is in the archive."""
    from kalshi_platform.ingest.tape_retention import remove_old_segments

    with database.connect() as connection:
        outcome = remove_old_segments(connection, home.tape_folder, Settings().tape_days)
    context.log.info(
        "removed %d files of the tape: %.1f MB", outcome.removed, outcome.bytes_freed / 1e6
    )
    if outcome.reason is not None:
        context.log.warning("%d older files stay: %s", outcome.left, outcome.reason)


@dg.op(description="Take old runs of the jobs that run all day out of Dagster's books.")
def purge_old_runs(context: dg.OpExecutionContext, config: History) -> None:
    """Their events and logs would fill the disk; a backlog goes in turns, one an hour."""
    purged = purge_runs(context.instance, _FLEETING, ended_before=days_ago(config.keep_days))
    context.log.info("purged %d runs that ended over %d days ago", len(purged), config.keep_days)


@dg.job(
    description="Make the database's partitions ahead of the clock, drop those past their time, "
    "and keep Dagster's books short.",
    executor_def=dg.in_process_executor,
    tags={ROLE_TAG: "housekeeping", MAX_RUNTIME_TAG: "1800"},
)
def partitions_ahead_job() -> None:
    make_partitions()
    drop_old_partitions()
    remove_old_tape()
    purge_old_runs()


@dg.schedule(
    cron_schedule="* * * * *",
    job=refresh_candles_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Each minute, when trades have changed since the last refresh.",
)
def candles_each_minute(
    context: dg.ScheduleEvaluationContext, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """One run for whatever is stale; none while the one before still works."""
    try:
        with database.connect() as connection:
            stale = connection.execute("SELECT EXISTS (SELECT FROM stale_candles)").fetchone()
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")
    if stale != (True,):
        return dg.SkipReason("No trade has changed since the last refresh.")
    if _in_progress(context.instance):
        return dg.SkipReason("The refresh before is still under way.")
    at = context.scheduled_execution_time
    return dg.RunRequest(
        run_key=f"{at:%Y-%m-%dT%H:%M}",
        partition_key=f"{at:%Y-%m-%d}",
        run_config=dg.RunConfig(ops={"candles": CandleRun(only_stale=True)}),
    )


@dg.schedule(
    # Twice: late trades come after midnight, and the exchange moves old ones to its archive.
    cron_schedule=["20 0 * * *", "20 3 * * *"],
    job=certify_trades_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Yesterday's trades, soon after midnight and once more in the quiet of the night.",
)
def certify_yesterdays_trades(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return _yesterday(context)


@dg.schedule(
    cron_schedule=["50 0 * * *", "50 3 * * *"],
    job=certify_candles_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Yesterday's candles, half an hour after its trades.",
)
def certify_yesterdays_candles(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return _yesterday(context)


@dg.schedule(
    # After the trades, whose sweep names markets that the stream did not; and once more when all
    # that closed late in the evening is settled.
    cron_schedule=["10 1 * * *", "10 4 * * *"],
    job=certify_reference_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Yesterday's markets, events and outcomes, after its trades.",
)
def certify_yesterdays_reference(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return _yesterday(context)


check_each_hour = dg.ScheduleDefinition(
    name="check_each_hour",
    cron_schedule="35 * * * *",
    job=check_today_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Each hour, whether today's rows are right; of quotes and books yesterday's, too.",
)
partitions_each_hour = dg.ScheduleDefinition(
    name="partitions_each_hour",
    cron_schedule="5 * * * *",
    job=partitions_ahead_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Each hour: partitions of the coming days, days past their time, ended runs.",
)


@dg.schedule(
    # After the certification of yesterday; what is archived is the day before, and what was missed.
    cron_schedule="15 5 * * *",
    job=archive_job,
    execution_timezone="UTC",
    default_status=_RUNNING,
    description="Days that are over by two and have no file in the archive yet, oldest first.",
)
def archive_closed_days(
    context: dg.ScheduleEvaluationContext, database: Database
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run for each day; a day that failed is asked for again the next night."""
    from kalshi_platform.archive.days import days_to_archive

    try:
        with database.connect() as connection:
            waiting = days_to_archive(connection, context.scheduled_execution_time)
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")
    days = [day for day in waiting if has_partition(day)][:_MOST_ARCHIVED_A_NIGHT]
    if not days:
        return dg.SkipReason("Every closed day is archived.")
    at = context.scheduled_execution_time
    return [dg.RunRequest(run_key=f"{at:%Y-%m-%d} {day}", partition_key=str(day)) for day in days]


def _yesterday(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    at = context.scheduled_execution_time
    return dg.RunRequest(
        run_key=f"{at:%Y-%m-%dT%H:%M}", partition_key=f"{at - timedelta(days=1):%Y-%m-%d}"
    )


def _in_progress(instance: dg.DagsterInstance) -> bool:
    live = dg.RunsFilter(
        job_name=refresh_candles_job.name,
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
        ],
    )
    return bool(instance.get_run_records(live, limit=1))
