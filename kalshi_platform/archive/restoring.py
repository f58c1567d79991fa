"""Days brought back from their files into the database, whole or not at all."""

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import psycopg
import pyarrow.parquet as pq
from psycopg import sql

from kalshi_platform.archive.checksums import Sum, sum_of
from kalshi_platform.archive.copying import column_list, copy_in
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import TABLES, partition_name
from kalshi_platform.archive.locking import day_held
from kalshi_platform.archive.reading_back import OnRows, batches_of, check_file
from kalshi_platform.archive.store import Store
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import adopt, has_partition, lock_partitions
from kalshi_platform.storage.reads.archives import Archive, archive_of, dropped_days
from kalshi_platform.storage.writes.archives import note_restored
from kalshi_platform.storage.writes.trades import landing_table, merge_landing


class NotArchived(RuntimeError):
    """There is no file of the day."""


def restore_day(
    url: str, store: Store, table: str, day: date, on_rows: OnRows | None = None
) -> bool:
    """Bring the rows of a dropped day back, in one transaction; rows that came late stay.

    Another process that works on the same day of the table is waited for.

    Returns:
        Whether they were brought back; False if they were there already.

    Raises:
        NotArchived: the day has no file.
        ArchiveDamaged: the file is not what was written; nothing was changed.
        OSError: the store cannot be reached.
    """
    with connect(url, autocommit=True) as connection, day_held(connection, table, day):
        archive = archive_of(connection, table, day)
        if archive is None:
            raise NotArchived(f"There is no archive of {table} of {day}.")
        if archive.dropped_at is None:
            return False
        check_file(store, archive)
        with connection.transaction():
            _restore(connection, store, archive, on_rows)
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(partition_name(table, day))))
    return True


def restore_dropped(
    url: str,
    store_url: str,
    table: str,
    days: Iterable[date],
    told: Callable[[str], None] = lambda _: None,
) -> list[date]:
    """Bring back those of `days` whose rows of `table` were dropped; returns them.

    Args:
        store_url: the archive's; not looked at where nothing was dropped.
        told: is told a sentence for each.
    """
    with connect(url) as connection:
        dropped = dropped_days(connection, table, days)
    for day in dropped:
        told(f"The {table} of {day} were in the archive only; they are brought back.")
        restore_day(url, Store(store_url), table, day)
    return dropped


def _restore(
    connection: psycopg.Connection[Any], store: Store, archive: Archive, on_rows: OnRows | None
) -> None:
    name, day, table = archive.table_name, archive.day, TABLES[archive.table_name]
    whole = f"restored_{partition_name(name, day)}"
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
            sql.Identifier(whole), sql.Identifier(name)
        )
    )
    with store.open(archive.path) as source, pq.ParquetFile(source) as file:
        batches = batches_of(file)
        copy_in(connection, whole, name, _told_of(batches, on_rows) if on_rows else batches)
    if sum_of(connection, whole, name) != Sum(archive.row_count, archive.checksum):
        raise ArchiveDamaged(f"{archive.path} does not restore to the rows that were dropped.")
    lock_partitions(connection)
    if has_partition(connection, table, day):
        _join(connection, whole, name)
    else:
        adopt(connection, table, whole, day)
    note_restored(connection, name, day)


def _join(connection: psycopg.Connection[Any], whole: str, table: str) -> None:
    """Add the day's rows to those that came late."""
    target = table
    if table == "trades":
        # A trade that REST told of once more: which of both says more, the merge decides.
        target = landing_table(connection)
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
            sql.Identifier(target),
            column_list(table),
            column_list(table),
            sql.Identifier(whole),
        )
    )
    if table == "trades":
        merge_landing(connection)
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(whole)))


def _told_of(batches: Iterable[Any], on_rows: OnRows) -> Iterable[Any]:
    for batch in batches:
        yield batch
        on_rows(batch.num_rows)
