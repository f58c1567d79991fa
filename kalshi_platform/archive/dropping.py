"""Old days leave the database: each in one transaction, and only with a file that equals them.

Under a lock that keeps writers out, the rows are counted and summed once more and compared with
what the file was found to restore to; a day that has changed since is archived anew first. Candles,
markets and outcomes are never dropped.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kalshi_platform.archive.checksums import Sum, sum_of
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import partition_name
from kalshi_platform.archive.locking import DayInUse, day_held
from kalshi_platform.archive.reading_back import check_file
from kalshi_platform.archive.restoring import restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import write_held_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import CANDLES
from kalshi_platform.storage.reads.archives import (
    Archive,
    archive_of,
    days_to_restore,
    partition_days,
    reason_to_keep,
)
from kalshi_platform.storage.reads.sweeps import DAY_LOCKS
from kalshi_platform.storage.writes.archives import note_dropped, note_verified

# Today fills, and yesterday still gets what comes late.
FEWEST_DAYS = 2
# A partition in use is left for the next time: who waits for its lock holds up all writers.
_LOCK_TIMEOUT = "2s"
_RESTORED_KEPT = timedelta(days=1)
_IN_USE = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
)


class Dropped(NamedTuple):
    """A day of a table whose rows are in the archive alone now."""

    table: str
    day: date
    bytes: int


class Left(NamedTuple):
    """A day that is older than it is kept, and why it stays all the same."""

    table: str
    day: date
    reason: str


class Restored(NamedTuple):
    """A dropped day that came back, and what for."""

    table: str
    day: date
    reason: str


class Outcome(NamedTuple):
    """What one pass did."""

    dropped: Sequence[Dropped]
    left: Sequence[Left]
    restored: Sequence[Restored]


def days_kept(quotes_days: int, books_days: int, trades_days: int) -> dict[str, int]:
    """For how many UTC days, today among them, each table's rows stay in the database."""
    return {
        "quotes": quotes_days,
        "book_snapshots": books_days,
        "book_deltas": books_days,
        "trades": trades_days,
        "raw_trades": trades_days,
        "lifecycle_events": trades_days,
    }


def drop_old_days(
    url: str,
    store: Store,
    kept: Mapping[str, int],
    *,
    now: datetime | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Drop the days that began longer ago than they are kept; bring back those that are needed.

    Args:
        kept: UTC days that are kept, by table, today among them; never fewer than two.
        now: instead of the clock.
        dry_run: only say what would be done.

    Raises:
        OSError: the store cannot be reached.
        psycopg.OperationalError: the database is away.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    dropped: list[Dropped] = []
    left: list[Left] = []
    with connect(url, autocommit=True) as connection:
        restored = [Restored(*each) for each in days_to_restore(connection)]
        if not dry_run:
            restored, left = _bring_back(url, store, restored)
        for table, days in kept.items():
            first_kept = now.date() - timedelta(days=max(days, FEWEST_DAYS) - 1)
            for day, size in partition_days(connection, table):
                if day >= first_kept or any(each[:2] == (table, day) for each in left):
                    continue
                reason = _reason_to_keep(connection, table, day, now)
                if reason is None and not dry_run:
                    reason = _drop(connection, store, table, day, now)
                if reason is None:
                    dropped.append(Dropped(table, day, size))
                else:
                    left.append(Left(table, day, reason))
    return Outcome(dropped, left, restored)


def _bring_back(
    url: str, store: Store, wanted: Sequence[Restored]
) -> tuple[list[Restored], list[Left]]:
    restored, failed = [], []
    for each in wanted:
        try:
            restore_day(url, store, each.table, each.day)
            restored.append(each)
        except ArchiveDamaged as error:
            # The others must not wait for it; the checks of the archive fail, too.
            failed.append(Left(each.table, each.day, str(error)))
    return restored, failed


def _reason_to_keep(
    connection: psycopg.Connection[Any], table: str, day: date, now: datetime
) -> str | None:
    archive = archive_of(connection, table, day)
    if archive is None:
        return "it is not archived yet"
    if archive.verified_at is None:
        return "its file was found damaged and is not written anew yet"
    if archive.dropped_at is not None:
        return "rows came late, and are joined with the archived ones first"
    if archive.restored_at is not None and now - archive.restored_at < _RESTORED_KEPT:
        return f"it was brought back at {archive.restored_at:%Y-%m-%d %H:%M} and stays for a day"
    return reason_to_keep(connection, table, day)


def _drop(
    connection: psycopg.Connection[Any], store: Store, table: str, day: date, now: datetime
) -> str | None:
    """Drop the day, archived anew where it has changed; returns why it was left, or None."""
    try:
        with day_held(connection, table, day, wait=False):
            for _ in range(2):
                archive = archive_of(connection, table, day)
                if archive is None or archive.dropped_at is not None:
                    return "another process worked on it just now"
                try:
                    check_file(store, archive)
                except ArchiveDamaged:
                    note_verified(connection, table, day, verified=False)
                else:
                    if _drop_if_equal(connection, archive, now):
                        return None
                write_held_day(connection, store, table, day)
            return "its rows keep changing"
    except (DayInUse, *_IN_USE):
        return "it is in use"
    except ArchiveDamaged as error:
        return str(error)


def _drop_if_equal(connection: psycopg.Connection[Any], archive: Archive, now: datetime) -> bool:
    """Drop the day if its rows are those of the file; whether it was dropped.

    Raises:
        DayInUse, psycopg.errors.LockNotAvailable: somebody reads or writes the day.
    """
    table, day = archive.table_name, archive.day
    partition = partition_name(table, day)
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
        # No row comes or changes from here on; readers read on.
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(partition)))
        if sum_of(connection, partition, table) != Sum(archive.row_count, archive.checksum):
            return False
        if table == "trades":
            _keep_out_sweeps(connection, day)
        # Candles are computed from what a day has, or not at all.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [CANDLES])
        if _reason_to_keep(connection, table, day, now) is not None:
            raise DayInUse(f"{table} of {day} was needed again just now.")
        connection.execute(
            sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table))
        )
        note_dropped(connection, table, day)
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition)))
    return True


def _keep_out_sweeps(connection: psycopg.Connection[Any], day: date) -> None:
    row = connection.execute(
        "SELECT pg_try_advisory_xact_lock(%s, %s)", [DAY_LOCKS, day.toordinal()]
    ).fetchone()
    if row != (True,):
        raise DayInUse(f"The trades of {day} are compared with the exchange just now.")
