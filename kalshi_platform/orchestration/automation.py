"""When things run: candles each minute, certification each night, partitions ahead and away.

Candles follow the clock, not an automation condition: one run a minute at a known second, skipped
with a reason when nothing changed; and a trade healed into last week is in its candle a minute
later, which a condition on today's partition would not see. All times are UTC.
"""

from datetime import timedelta

import dagster as dg
import psycopg

from kalshi_platform.orchestration.assets.books import TABLES as BOOK_TABLES
from kalshi_platform.orchestration.assets.candles import TABLES, CandleRun
from kalshi_platform.orchestration.assets.reference import TABLES as REFERENCE_TABLES
from kalshi_platform.orchestration.partitions import has_partition
from kalshi_platform.orchestration.resources import Database, first_line
from kalshi_platform.orchestration.runs import days_ago, purge_runs
from kalshi_platform.orchestration.stream import MAX_RUNTIME_TAG, ROLE_TAG
from kalshi_platform.orchestration.sync import refresh_reference
from kalshi_platform.settings import Settings

_RUNNING = dg.DefaultScheduleStatus.RUNNING
_CANDLES = dg.AssetSelection.assets(*TABLES)

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


@dg.op(description="Drop the days of quotes and order books that are older than they are kept.")
def drop_old_partitions(context: dg.OpExecutionContext, database: Database) -> None:
    """Whole days go (KALSHI_QUOTES_DAYS, KALSHI_BOOKS_DAYS); what was made of them stays.

    A dropped day stays materialized in Dagster, which knows no other word for it: an observation
    of the day says that its rows are gone.
    """
    from kalshi_platform.storage.retention import drop_old_days

    settings = Settings()
    with database.connect(autocommit=True) as connection:
        outcome = drop_old_days(
            connection, quotes_days=settings.quotes_days, books_days=settings.books_days
        )
    for table, day, size in outcome.dropped:
        context.log.info("dropped %s of %s: %.1f MB", table, day, size / 1e6)
        if has_partition(day):
            context.log_event(
                dg.AssetObservation(
                    table,
                    partition=str(day),
                    description="The day is older than it is kept: its rows have been dropped.",
                    metadata={"dagster/partition_row_count": 0, "bytes_freed": size},
                )
            )
    for name in outcome.in_use:
        context.log.warning("%s is in use; it will be dropped at the next try", name)
    if not outcome.dropped:
        context.log.info(
            "nothing to drop: %d days of quotes and %d days of books are kept",
            settings.quotes_days,
            settings.books_days,
        )


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
