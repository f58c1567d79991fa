"""Reading all that conditions are found in, in one turn of some milliseconds."""

from collections.abc import Iterable
from pathlib import Path

import psycopg

from kalshi_platform.alerting.disks import disks_of
from kalshi_platform.alerting.findings import REJECTED_SECONDS, Facts
from kalshi_platform.storage.reads.alerts import (
    damaged_archives,
    failing_channels,
    oldest_open_gap,
    rejected_lately,
    unarchived_days,
)
from kalshi_platform.storage.reads.status import read_status
from kalshi_platform.storage.writes.alerts import keep_watch

# The tables whose days become Parquet files.
ARCHIVED = ("trades", "raw_trades", "quotes", "book_snapshots", "book_deltas", "lifecycle_events")
# A day is archived in the night after it is over by two; with the hold of its kind, a day that was
# missed is told of when it is older than three.
ARCHIVE_DAYS = 2


def read_facts(
    connection: psycopg.Connection,
    *,
    simulated: bool,
    folders: Iterable[tuple[str, Path]],
    disk_percent: float,
) -> Facts:
    """All facts as of now; that somebody looks is noted as well."""
    with connection.transaction():
        watch = keep_watch(connection)
        status = read_status(connection, simulated=simulated)
        return Facts(
            status=status,
            watched_seconds=watch.seconds,
            rejected=rejected_lately(connection, REJECTED_SECONDS),
            gap=oldest_open_gap(connection) if status.open_gaps else None,
            unarchived=unarchived_days(connection, ARCHIVED, older_than_days=ARCHIVE_DAYS),
            damaged=damaged_archives(connection),
            failing=failing_channels(connection),
            disks=disks_of(folders),
            disk_percent=disk_percent,
        )


def folders_of(home: Path) -> list[tuple[str, Path]]:
    """What is written to: the home folder, the tape, and the database where it is embedded."""
    return [
        ("the home folder", home),
        ("the tape", home / "tape"),
        ("the database", home / "postgres"),
    ]
