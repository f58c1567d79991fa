"""The sync of markets with REST: short runs while something is due, and one census to begin with.

Runs of their own, not of the assets: they must not wait for a day's sweep that holds the pool of
the REST API for hours. The budget in the database keeps them to their share of the calls.

A sync runs for most of a minute and sleeps in between, since the start of a run costs more than
its work. A process outside of Dagster may do the same (`kalshi-platform reference`); a lease in the
database lets one of them work, and the sensor then only reports.
"""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import psycopg

from kalshi_platform.orchestration.assets.reference import (
    RETRY_SECONDS,
    day_events,
    is_up_to_date,
)
from kalshi_platform.orchestration.partitions import has_partition
from kalshi_platform.orchestration.progress import log_progress
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.orchestration.stream import MAX_RUNTIME_TAG, ROLE_TAG

if TYPE_CHECKING:
    from kalshi_platform.ingest.reference_pages import Tally

_SYNC_SECONDS = 50
# Outcomes of yesterday are confirmed, and paid, in the first hours of today.
_YESTERDAY_TOO = timedelta(hours=3)


# By table, then by name.
Figures = Mapping[str, Mapping[str, int]]


class SyncWindow(dg.Config):
    """How long one run asks; it sleeps while nothing is due."""

    seconds: float = _SYNC_SECONDS


@dg.op(description="Ask REST for what changed, for what the stream named, and for outcomes.")
def sync_reference(
    context: dg.OpExecutionContext, config: SyncWindow, database: Database, exchange: Exchange
) -> None:
    """Sync until the window ends, then report the days, if what they hold is up to date.

    Raises:
        ExchangeError: the exchange refuses us, which no waiting will change.
    """
    from kalshi_platform.ingest.reference import refresh
    from kalshi_platform.storage.budget import Priority

    stop = threading.Event()
    try:
        with exchange.rest(
            database, stop, priority=Priority.ENRICHMENT, retry_seconds=RETRY_SECONDS
        ) as rest:
            report = refresh(database.url, rest, stop, seconds=config.seconds)
    finally:
        stop.set()
    if report.is_elsewhere:
        context.log.info("Another process syncs; this run leaves it to that one.")
        return
    context.log.info("%d complete rounds; %s", report.rounds, _sentence(report.tally))
    if report.failures:
        context.log.warning("%d failures, at last: %s", report.failures, report.error)
    with database.connect() as connection:
        if not is_up_to_date(connection):
            # The assets grow stale then, and their freshness says so.
            context.log.warning("No round has been completed lately: the days are not reported.")
            return
        for event in reports(connection, _found(report.tally)):
            context.log_event(event)


@dg.job(
    description="Bring markets, events, series and outcomes up to REST's state, for a minute. The "
    "reference_keeper sensor starts it.",
    executor_def=dg.in_process_executor,
    tags={ROLE_TAG: "reference", "dagster/priority": "40", MAX_RUNTIME_TAG: "600"},
)
def refresh_reference() -> None:
    sync_reference()


@dg.op(description="Ask REST for every market that is not settled, every event, every series.")
def take_census(context: dg.OpExecutionContext, database: Database, exchange: Exchange) -> None:
    """One walk through the exchange's lists; interrupted, the next one goes on from there."""
    from kalshi_platform.ingest.census import census
    from kalshi_platform.storage.budget import Priority

    stop = threading.Event()
    try:
        with exchange.rest(database, stop, priority=Priority.CENSUS) as rest:
            progress = log_progress(context.log, "of the exchange's lists read")
            report = census(database.url, rest, stop, progress)
    finally:
        stop.set()
    if report.is_elsewhere:
        context.log.info("Another process takes a census; this run leaves it to that one.")
        return
    context.log.info("%s", _sentence(report.tally))
    if not report.complete:
        raise dg.Failure("The census was interrupted; the next one goes on from there.")


@dg.job(
    name="census",
    description="Fill markets, events and series once; the reference_keeper sensor starts it when "
    "none has been completed.",
    executor_def=dg.in_process_executor,
    tags={ROLE_TAG: "census", "dagster/priority": "-10", MAX_RUNTIME_TAG: "21600"},
)
def census_job() -> None:
    take_census()


def _found(tally: "Tally") -> Figures:
    """Rows that REST added and changed, by table."""
    changes = {"markets": tally.markets, "events": tally.events, "series": tally.series}
    return {table: {"added": one.added, "changed": one.changed} for table, one in changes.items()}


def _sentence(tally: "Tally") -> str:
    """`markets 3 added 12 changed, events …`, refused and missing ones where there are any."""
    counts = [
        f"{table} {figures['added']:,} added {figures['changed']:,} changed"
        for table, figures in _found(tally).items()
    ]
    counts += [
        f"{count:,} {word}"
        for count, word in ((tally.rejected, "unreadable"), (tally.missing, "not found"))
        if count
    ]
    return ", ".join(counts)


def reports(
    connection: psycopg.Connection, found: Figures | None = None
) -> list[dg.AssetMaterialization]:
    """The day's state of the four tables; in its first hours the state of the day before, too.

    Args:
        found: figures of what a sync did, by table, to be told with the newest day.
    """
    now = datetime.now(UTC)
    events = []
    if (yesterday := (now - _YESTERDAY_TOO).date()) < now.date() and has_partition(yesterday):
        events += day_events(connection, yesterday, {})
    return events + day_events(connection, now.date(), found or {})
