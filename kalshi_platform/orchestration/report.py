"""The feed's reports: day partitions are materialized while it streams.

A sensor of its own beside the keeper, so that a slow count delays no recorder. It looks at the
tables, not at the recorder, and so reports the same whoever records. Order books are also reported
when nothing happened to them, as long as they are what they should be: watched, or not wanted.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from kalshi_platform.orchestration.assets.books import TABLES as BOOK_TABLES
from kalshi_platform.orchestration.partitions import has_partition, today
from kalshi_platform.orchestration.resources import Database, Home, first_line
from kalshi_platform.orchestration.stream import LOADED
from kalshi_platform.storage.reads.days import (
    gaps_of_day,
    newest_received_at,
    open_gaps_of_day,
    rows_of_day,
    seconds_since,
    watched_on,
    watching,
    written_days,
)

REPORT_SECONDS = 30
FEED_TAPE = "feed_tape"
# A book to which nothing happens is reported less often than what changes.
_QUIET_SECONDS = 300
_CHANNELS = {"quotes": "ticker", **dict.fromkeys(BOOK_TABLES, "orderbook_delta")}
_HAVE_RECEIVED_AT = ("raw_trades", "quotes", "lifecycle_events", *BOOK_TABLES)


@dg.sensor(
    minimum_interval_seconds=REPORT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Report the days that the stream has changed as materializations: rows, lag, gaps.",
)
def feed_report(
    context: dg.SensorEvaluationContext, database: Database, home: Home
) -> dg.SensorResult | dg.SkipReason:
    """One materialization for each table and day that was written to since the last tick."""
    seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    tape = tape_bytes(home.tape_folder)
    try:
        with database.connect() as connection:
            written = {
                (entry.table, entry.day): entry.writes
                for entry in written_days(connection, LOADED)
                if _is_ours(entry.table, entry.day)
            }
            events = [
                _tape_event(home.tape_folder, day, size)
                for day, size in tape.items()
                if seen.get(_key(FEED_TAPE, day)) != size and has_partition(day)
            ] + [
                _table_event(connection, table, day)
                for (table, day), writes in written.items()
                if seen.get(_key(table, day)) != writes
            ]
            events += _quiet_books(connection, seen, events)
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")
    if not events:
        return dg.SkipReason("Nothing has landed since the last report.")
    cursor = {_key(FEED_TAPE, day): size for day, size in tape.items()}
    cursor |= {_key(table, day): writes for (table, day), writes in written.items()}
    cursor |= {name: at for name, at in seen.items() if name in BOOK_TABLES}
    told = {event.asset_key.to_user_string() for event in events}
    cursor |= dict.fromkeys(told & set(BOOK_TABLES), int(time.time()))
    return dg.SensorResult(asset_events=events, cursor=json.dumps(cursor))


def tape_bytes(folder: Path) -> Mapping[date, int]:
    """Compressed bytes per UTC day in which their segments were opened."""
    from kalshi_platform.ingest.tape import segment_path, segments

    days: dict[date, int] = {}
    for segment in segments(folder):
        day = datetime.fromtimestamp(segment / 1000, UTC).date()
        days[day] = days.get(day, 0) + segment_path(folder, segment).stat().st_size
    return days


def _is_ours(table: str, day: date) -> bool:
    # Runs of the asset trades report the days they sweep; the stream writes to the newest ones.
    return has_partition(day) and (table != "trades" or day >= today() - timedelta(days=1))


def _key(asset: str, day: date) -> str:
    return f"{asset} {day}"


def _table_event(connection: psycopg.Connection, table: str, day: date) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        table, partition=str(day), metadata=_figures(connection, table, day)
    )


def _figures(connection: psycopg.Connection, table: str, day: date) -> dict[str, Any]:
    count = rows_of_day(connection, table, day)
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": count.rows,
        "rows": f"{count.rows:,} ({'counted' if count.exact else 'estimated'})",
    }
    # What was lost of these cannot be fetched: their gaps are never open, and stay.
    if (channel := _CHANNELS.get(table)) is not None:
        metadata["gaps"] = gaps_of_day(connection, channel, day)
    else:
        metadata["open_gaps"] = open_gaps_of_day(connection, day)
    if table in _HAVE_RECEIVED_AT:
        newest = newest_received_at(connection, table, day)
        if newest is not None:
            metadata["newest_received_at"] = newest.isoformat(timespec="milliseconds")
            metadata["lag_seconds"] = round(seconds_since(newest), 3)
    if table in BOOK_TABLES:
        metadata["books_watched"] = watched_on(connection, day)
    return metadata


def _quiet_books(
    connection: psycopg.Connection,
    seen: Mapping[str, int],
    events: Sequence[dg.AssetMaterialization],
) -> list[dg.AssetMaterialization]:
    """Today's books where nothing was written to them and nothing is missing.

    A table that was never reported stays so: a platform without books has none to be fresh.
    """
    told = {event.asset_key.to_user_string() for event in events}
    quiet = [
        table
        for table in BOOK_TABLES
        if table not in told and 0 < seen.get(table, 0) <= time.time() - _QUIET_SECONDS
    ]
    state = watching(connection) if quiet else None
    # Wanted books that nobody watches grow stale.
    if state is None or state.watched < min(1, state.wanted):
        return []
    sentence = "nothing has happened to the books that are watched"
    if not state.wanted:
        sentence = "no book is wanted"
    return [
        dg.AssetMaterialization(
            table,
            partition=str(today()),
            description=f"Up to date: {sentence}.",
            metadata=_figures(connection, table, today()) | {"books_watched_now": state.watched},
        )
        for table in quiet
    ]


def _tape_event(folder: Path, day: date, size: int) -> dg.AssetMaterialization:
    from kalshi_platform.ingest.tape import segments

    count = sum(
        datetime.fromtimestamp(segment / 1000, UTC).date() == day for segment in segments(folder)
    )
    metadata: dict[str, Any] = {
        "segments": count,
        "compressed_bytes": size,
        "folder": dg.MetadataValue.path(str(folder)),
    }
    return dg.AssetMaterialization(FEED_TAPE, partition=str(day), metadata=metadata)
