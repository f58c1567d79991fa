"""Series, events, markets and their outcomes by UTC day: what each trade is about and what it paid.

The stream writes them as the exchange tells, and the sync of each minute (`orchestration/sync.py`)
asks REST for what the stream leaves out. A run of these assets asks for whole days: one walk
through the exchange's archive serves all days of the run and fills all four tables.
"""

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from sqlalchemy import Table

from kalshi_platform.orchestration.assets.feed import ANY_DAY, OWNERS, lifecycle_events, raw_trades
from kalshi_platform.orchestration.assets.trades import REST_POOL
from kalshi_platform.orchestration.columns import Sources, table_metadata
from kalshi_platform.orchestration.partitions import day_of, today, utc_days
from kalshi_platform.orchestration.progress import log_progress
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.days import reference_figures
from kalshi_platform.storage.reads.reference import completed_at

if TYPE_CHECKING:
    from kalshi_platform.ingest.reference_days import ReferenceDayReport

# A run that is asked for today does what the sync of each minute does, for this long at most.
_TODAY_SECONDS = 20
# A sync has pauses of its own, and shows each failure in the status.
RETRY_SECONDS = 5.0
# A run may end between two rounds, which are a minute apart.
_UP_TO_DATE = timedelta(seconds=150)

_MESSAGE = ("lifecycle_events", "message")


def _spec(
    table: Table,
    description: str,
    deps: list[dg.AssetSpec | str],
    lineage: Sources,
) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=description + ANY_DAY,
        metadata=table_metadata(table, lineage),
        group_name="reference",
        kinds={"postgres", "rest"},
        owners=OWNERS,
        code_version="1",
        # Reported by each complete sync, also when it found nothing new.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(minutes=5), fail_window=timedelta(minutes=10)
        ),
    )


SPECS = (
    _spec(
        tables.settlements,
        "The outcome of each market as it stands, by the day it was paid on: yes, no, a value in "
        "between. The stream's word counts at once; REST confirms it, and every version of it is "
        "kept in settlement_history.",
        [lifecycle_events],
        {
            "market_ticker": [("lifecycle_events", "market_ticker")],
            "status": [("lifecycle_events", "event_type")],
            "result": [_MESSAGE],
            "settlement_value_micros": [_MESSAGE],
            "determined_at": [_MESSAGE],
            "settled_at": [_MESSAGE],
            "effective_at": [_MESSAGE],
        },
    ),
    _spec(
        tables.markets,
        "Every market: what it asks, when it trades, what it is worth. By the day on which the "
        "exchange created or last changed it. Multivariate ones (combos) only once traded.",
        [lifecycle_events, raw_trades, tables.settlements.name],
        {
            "market_ticker": [
                ("lifecycle_events", "market_ticker"),
                ("raw_trades", "market_ticker"),
            ],
            **{
                name: [_MESSAGE]
                for name in ("event_ticker", "title", "opens_at", "closes_at", "is_paused")
            },
            "outcome_status": [("settlements", "status")],
        },
    ),
    _spec(
        tables.events,
        "The question that markets answer together, by the day on which the exchange last "
        "changed it.",
        [lifecycle_events, tables.markets.name],
        {
            "event_ticker": [
                ("markets", "event_ticker"),
                ("lifecycle_events", "event_ticker"),
            ],
            "series_ticker": [_MESSAGE],
            "title": [_MESSAGE],
        },
    ),
    _spec(
        tables.series,
        "What recurs: the series that events are of, by the day on which the exchange last "
        "changed it. One that the exchange does not know is a fact, too.",
        [tables.events.name],
        {"series_ticker": [("events", "series_ticker")]},
    ),
)
TABLES = tuple(spec.key.to_user_string() for spec in SPECS)


@dg.multi_asset(
    name="reference",
    specs=SPECS,
    partitions_def=utc_days,
    # Any one of them may be asked for, and all four are filled: they come from the same answers.
    can_subset=True,
    # The archive cannot be asked for a day, so that one walk must serve all days of the run.
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=REST_POOL,
)
def reference(
    context: dg.AssetExecutionContext, database: Database, exchange: Exchange
) -> Iterator[dg.MaterializeResult[Any]]:
    """Ask the exchange for what was created, changed or settled on the run's days.

    An interrupted run goes on where it stopped; a second one changes nothing.
    """
    from kalshi_platform.ingest.reference import refresh
    from kalshi_platform.ingest.reference_days import backfill_days

    asked = [day_of(key) for key in context.partition_keys]
    past = [day for day in asked if day != today()]
    reports: list[ReferenceDayReport] = []
    stop = threading.Event()
    try:
        if past:
            with exchange.rest(database, stop) as rest:
                progress = log_progress(context.log, f"of {len(past)} days asked for")
                reports = backfill_days(database.url, rest, past, progress, stop)
        if len(past) < len(asked):
            with exchange.rest(database, stop, retry_seconds=RETRY_SECONDS) as rest:
                today_report = refresh(database.url, rest, stop, seconds=_TODAY_SECONDS)
            if today_report.is_elsewhere:
                context.log.info("Today is being synced by another process.")
            elif today_report.error:
                context.log.warning("Today, at last: %s", today_report.error)
    finally:
        stop.set()
    if not all(report.complete for report in reports):
        raise dg.Failure("The days were not asked for to the end; run them again to go on.")
    found = {report.day: _found(report) for report in reports}
    with database.connect() as connection:
        if len(past) < len(asked) and not is_up_to_date(connection):
            raise dg.Failure("Today was not asked for to the end; see the log, and run it again.")
        for table in TABLES:
            for day in asked:
                metadata = day_metadata(connection, table, day) | found.get(day, {})
                if dg.AssetKey(table) in context.selected_asset_keys:
                    context.add_asset_metadata(metadata, asset_key=table, partition_key=str(day))
                else:
                    context.log_event(
                        dg.AssetMaterialization(table, partition=str(day), metadata=metadata)
                    )
    for table in TABLES:
        if dg.AssetKey(table) in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=table)


def is_up_to_date(connection: psycopg.Connection) -> bool:
    """Whether today can be reported: a sync has lately asked for everything and was answered."""
    completed = completed_at(connection)
    return completed is not None and datetime.now(UTC) - completed <= _UP_TO_DATE


def day_metadata(connection: psycopg.Connection, table: str, day: date) -> dict[str, Any]:
    """What the UI shows of one day of a table: its rows, and which of them still lack something."""
    figures = reference_figures(connection, table, day)
    return {"dagster/partition_row_count": figures.pop("rows"), **figures}


def day_events(
    connection: psycopg.Connection, day: date, found: Mapping[str, Mapping[str, int]]
) -> list[dg.AssetMaterialization]:
    """One report of each table for the day, for whoever is not a run of these assets.

    Args:
        found: more figures to tell, by table.
    """
    return [
        dg.AssetMaterialization(
            table,
            partition=str(day),
            metadata=day_metadata(connection, table, day) | dict(found.get(table, {})),
        )
        for table in TABLES
    ]


def _found(report: "ReferenceDayReport") -> dict[str, Any]:
    """What asking for one day brought, in markets."""
    return {
        "markets_told": report.told,
        "markets_added": report.added,
        "markets_changed": report.changed,
        "unreadable": report.rejected,
    }
