"""The feed's reports: day partitions are materialized while it streams.

A sensor of its own beside the keeper, so that a slow count delays no recorder. It looks at the
tables, not at the recorder, and so reports the same whoever records.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from kalshi_platform.orchestration.partitions import has_partition, today
from kalshi_platform.orchestration.resources import Database, Home, first_line
from kalshi_platform.orchestration.stream import LOADED
from kalshi_platform.storage.reads.days import (
    newest_received_at,
    open_gaps_of_day,
    rows_of_day,
    seconds_since,
    written_days,
)

REPORT_SECONDS = 30
FEED_TAPE = "feed_tape"
_HAVE_RECEIVED_AT = ("raw_trades", "quotes", "lifecycle_events")


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
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")
    if not events:
        return dg.SkipReason("Nothing has landed since the last report.")
    cursor = {_key(FEED_TAPE, day): size for day, size in tape.items()}
    cursor |= {_key(table, day): writes for (table, day), writes in written.items()}
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
    count = rows_of_day(connection, table, day)
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": count.rows,
        "rows": f"{count.rows:,} ({'counted' if count.exact else 'estimated'})",
        "open_gaps": open_gaps_of_day(connection, day),
    }
    if table in _HAVE_RECEIVED_AT:
        newest = newest_received_at(connection, table, day)
        if newest is not None:
            metadata["newest_received_at"] = newest.isoformat(timespec="milliseconds")
            metadata["lag_seconds"] = round(seconds_since(newest), 3)
    return dg.AssetMaterialization(table, partition=str(day), metadata=metadata)


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
