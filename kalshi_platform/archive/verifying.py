"""Archived days looked at again: is the file what was written, and does it equal the table?"""

from typing import Any, NamedTuple

import psycopg

from kalshi_platform.archive.checksums import NOTHING, Sum, sum_of
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import TABLES, partition_name
from kalshi_platform.archive.locking import day_held
from kalshi_platform.archive.reading_back import OnRows, check_file, sum_of_file
from kalshi_platform.archive.store import Store
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import has_partition
from kalshi_platform.storage.reads.archives import Archive, archive_of
from kalshi_platform.storage.writes.archives import note_verified


class Verdict(NamedTuple):
    """What was found of one archived day."""

    archive: Archive
    damage: str | None
    """What is wrong with the file, in one sentence."""
    has_changed: bool
    """The table has other rows by now: the file is written anew before the day is dropped."""


def verify(
    url: str, store: Store, archive: Archive, *, deep: bool = False, on_rows: OnRows | None = None
) -> Verdict:
    """Read the file and note whether it is right; of a day that is not dropped, look at its rows.

    Args:
        deep: also restore the rows of the file into a temporary table and sum them up there.

    Raises:
        OSError: the store cannot be reached.
    """
    table, day = archive.table_name, archive.day
    with connect(url, autocommit=True) as connection, day_held(connection, table, day):
        # It may have been written anew meanwhile.
        now = archive_of(connection, table, day) or archive
        has_changed = now.dropped_at is None and _rows(connection, now) != _noted(now)
        try:
            check_file(store, now)
            if deep and sum_of_file(connection, store, now.path, table, on_rows) != _noted(now):
                raise ArchiveDamaged(f"{now.path} does not restore to the rows that were archived.")
        except ArchiveDamaged as error:
            note_verified(connection, table, day, verified=False)
            return Verdict(now, str(error), has_changed)
        note_verified(connection, table, day, verified=True)
    return Verdict(now, None, has_changed)


def _noted(archive: Archive) -> Sum:
    return Sum(archive.row_count, archive.checksum)


def _rows(connection: psycopg.Connection[Any], archive: Archive) -> Sum:
    table, day = archive.table_name, archive.day
    if not has_partition(connection, TABLES[table], day):
        return NOTHING
    return sum_of(connection, partition_name(table, day), table)
