"""What Dagster loads, by hand: a table of contents. Importing it opens nothing."""

import dagster as dg

from kalshi_platform.orchestration.agreement import agrees_with_the_exchange
from kalshi_platform.orchestration.alerts import alerts
from kalshi_platform.orchestration.assets.archive import archive, archive_checks
from kalshi_platform.orchestration.assets.books import book_deltas, book_snapshots
from kalshi_platform.orchestration.assets.candles import candles
from kalshi_platform.orchestration.assets.feed import (
    feed_tape,
    lifecycle_events,
    quotes,
    raw_trades,
)
from kalshi_platform.orchestration.assets.reference import reference
from kalshi_platform.orchestration.assets.trades import trades
from kalshi_platform.orchestration.automation import (
    archive_closed_days,
    archive_job,
    candles_each_minute,
    certify_candles_job,
    certify_reference_job,
    certify_trades_job,
    certify_yesterdays_candles,
    certify_yesterdays_reference,
    certify_yesterdays_trades,
    check_each_hour,
    check_today_job,
    partitions_ahead_job,
    partitions_each_hour,
    refresh_candles_job,
)
from kalshi_platform.orchestration.checks import (
    candles_checks,
    feed_checks,
    reference_checks,
    trades_checks,
)
from kalshi_platform.orchestration.keeper import stream_keeper
from kalshi_platform.orchestration.reference_keeper import reference_keeper
from kalshi_platform.orchestration.report import feed_report
from kalshi_platform.orchestration.resources import resources
from kalshi_platform.orchestration.stream import stream_job
from kalshi_platform.orchestration.sync import census_job, refresh_reference

defs = dg.Definitions(
    assets=[
        # filled by the stream, reported by feed_report
        feed_tape,
        raw_trades,
        quotes,
        book_snapshots,
        book_deltas,
        lifecycle_events,
        # made by runs, by UTC day
        trades,
        candles,
        # settlements, markets, events, series: written by the stream, synced with REST each minute
        reference,
        # closed days as files
        archive,
    ],
    asset_checks=[
        feed_checks,
        trades_checks,
        candles_checks,
        agrees_with_the_exchange,
        reference_checks,
        archive_checks,
    ],
    jobs=[
        stream_job,
        refresh_candles_job,
        certify_trades_job,
        certify_candles_job,
        refresh_reference,
        census_job,
        certify_reference_job,
        check_today_job,
        archive_job,
        partitions_ahead_job,
    ],
    sensors=[stream_keeper, feed_report, reference_keeper, alerts],
    schedules=[
        candles_each_minute,
        certify_yesterdays_trades,
        certify_yesterdays_candles,
        certify_yesterdays_reference,
        check_each_hour,
        archive_closed_days,
        partitions_each_hour,
    ],
    resources=resources(),
    # A process per step costs two seconds of start and buys nothing: the work is in the database.
    executor=dg.in_process_executor,
)
