"""Trades by UTC day: compared with the exchange's REST API, healed, certified.

The stream fills the day as it goes; a run of this asset asks the exchange for the whole day and
lands what is missing. A day before recording began has everything missing: the same run loads it.
"""

import threading
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.orchestration.assets.feed import ANY_DAY, OWNERS, raw_trades
from kalshi_platform.orchestration.columns import same_columns, table_metadata
from kalshi_platform.orchestration.partitions import day_of, utc_days
from kalshi_platform.orchestration.progress import log_progress
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.settings import Settings
from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.days import rows_of_day

if TYPE_CHECKING:
    from kalshi_platform.ingest.sweep import DayReport

REST_POOL = "kalshi_rest"
_DAYS_PER_RUN = 3


@dg.asset(
    description=(
        "Every trade of the day once, in an order that each rebuild repeats. The stream fills the "
        "day as it goes. Materializing a day asks the exchange's REST API for all of it, lands "
        "what is missing and certifies it; a complete day stays as it is. A day before recording "
        "began is fetched whole." + ANY_DAY
    ),
    deps=[raw_trades],
    partitions_def=utc_days,
    # A chunk that fails is tried again alone.
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=_DAYS_PER_RUN),
    pool=REST_POOL,
    group_name="trades",
    kinds={"postgres", "rest"},
    owners=OWNERS,
    metadata=table_metadata(
        tables.trades,
        {
            **same_columns(tables.trades, tables.raw_trades, "raw_trades"),
            "feed_order": [("raw_trades", "connection"), ("raw_trades", "seq")],
            "traded_on": [("raw_trades", "traded_at")],
            "exact_time": [("raw_trades", "source")],
        },
    ),
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=3), fail_window=timedelta(minutes=6)
    ),
    code_version="1",
)
def trades(
    context: dg.AssetExecutionContext, database: Database, exchange: Exchange
) -> dg.MaterializeResult[Any]:
    """Every trade of the day once, in an order that each rebuild repeats.

    A run sweeps the day over REST and heals the difference, so that even frames lost before the
    exchange numbered them are found. Sweeping a complete day again changes no row. A day that is in
    the archive alone is brought back first, and goes again a day later.
    """
    from kalshi_platform.archive.restoring import restore_dropped
    from kalshi_platform.ingest.sweep import sweep_day

    days = [day_of(key) for key in context.partition_keys]
    stop = threading.Event()
    try:
        with exchange.rest(database, stop) as rest:
            for day in days:
                restore_dropped(database.url, Settings().archive, "trades", [day], context.log.info)
                progress = log_progress(context.log, f"of {day} compared")
                report = sweep_day(database.url, rest, day, on_progress=progress, stop=stop)
                with database.connect() as connection:
                    count = rows_of_day(connection, "trades", day)
                if not report.complete:
                    raise dg.Failure(f"{day}: the sweep was interrupted; run it again to go on.")
                context.add_asset_metadata(
                    {
                        "dagster/partition_row_count": count.rows,
                        **_metadata(report),
                    },
                    partition_key=str(day),
                )
    finally:
        stop.set()
    return dg.MaterializeResult()


def _metadata(report: "DayReport") -> dict[str, Any]:
    """What the sweep of one day found, figure by figure; differences as a table."""
    fields = asdict(report)
    del fields["differences"]
    metadata: dict[str, Any] = {
        name: value if isinstance(value, int | str) else str(value)
        for name, value in fields.items()
    }
    if report.differences:
        names = report.differences[0]._fields
        rows = [names, ["---"] * len(names), *report.differences]
        table = "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
        metadata["differences"] = dg.MetadataValue.md(table)
    return metadata
