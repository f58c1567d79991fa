"""Which days are over and wait for their file, and which files were not looked at for longest."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.storage.reads.archives import Archive, all_archives, partition_days

# Today fills, and yesterday still gets what comes late.
_OPEN_DAYS = 2


def last_closed_day(now: datetime | None = None) -> date:
    """The newest UTC day that may be archived."""
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    return today - timedelta(days=_OPEN_DAYS)


def days_to_archive(
    connection: psycopg.Connection[Any], now: datetime | None = None
) -> dict[date, list[str]]:
    """Closed days of which a table in the database has no file, or a damaged one; oldest first."""
    last = last_closed_day(now)
    done = {
        (archive.table_name, archive.day)
        for archive in all_archives(connection)
        if archive.verified_at is not None
    }
    waiting: dict[date, list[str]] = {}
    for table in SORTED_BY:
        for day, _ in partition_days(connection, table):
            if day <= last and (table, day) not in done:
                waiting.setdefault(day, []).append(table)
    return dict(sorted(waiting.items()))


def least_lately_verified(
    connection: psycopg.Connection[Any], tables: Sequence[str], count: int
) -> list[Archive]:
    """The files that nobody has read for longest; those found damaged first."""
    never = datetime.min.replace(tzinfo=UTC)
    found = [archive for archive in all_archives(connection) if archive.table_name in tables]
    return sorted(found, key=lambda archive: archive.verified_at or never)[:count]
