"""A closed day written to its file: exported, hashed, read back, and only then noted.

Killed at any moment, it leaves an unfinished file or one that nothing refers to; the next run of
the day clears both away.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any, BinaryIO, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from kalshi_platform.archive.checksums import Sum, sum_of
from kalshi_platform.archive.copying import column_list, copy_out, to_arrow
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import (
    MANIFEST,
    SCHEMA_VERSION,
    SORTED_BY,
    fields_of,
    folder_of,
    partition_name,
    path_of,
    rows_per_group,
    schema_of,
    time_column,
)
from kalshi_platform.archive.locking import day_held
from kalshi_platform.archive.reading_back import check_file, sum_of_file
from kalshi_platform.archive.store import Store, Written
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import Archive, archive_of
from kalshi_platform.storage.units import unit_of
from kalshi_platform.storage.writes.archives import note_archived

# For the sort of one day; what does not fit goes to the server's disk.
_WORK_MEM = "256MB"

OnRows = Callable[[int], None]


class Outcome(NamedTuple):
    """What became of a day of a table."""

    archive: Archive | None
    """None where the table has no rows of the day, nor ever had: there is no partition."""
    written: bool
    """Whether a file was written; else the one that is there still equals the table."""


class Stopped(Exception):
    """Asked to stop; nothing was noted."""


def archive_day(
    url: str,
    store: Store,
    table: str,
    day: date,
    *,
    on_rows: OnRows | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Write the day's file, unless the one that is there equals the table; safe to repeat.

    Another process that works on the same day of the table is waited for.

    Args:
        on_rows: is told how many rows more are done; each row counts twice, written and read back.
        stop: ends the work between two groups of rows.

    Raises:
        ArchiveDamaged: what was written does not read back as the same rows.
        OSError: the store takes no more, or cannot be reached.
        psycopg.Error: the database is away.
        Stopped: `stop` was set.
    """
    with connect(url, autocommit=True) as connection, day_held(connection, table, day):
        return write_held_day(connection, store, table, day, on_rows=on_rows, stop=stop)


def write_held_day(
    connection: psycopg.Connection[Any],
    store: Store,
    table: str,
    day: date,
    *,
    on_rows: OnRows | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """`archive_day` for who holds the day's lock already, on a connection in autocommit mode."""
    known = archive_of(connection, table, day)
    if known is not None and known.dropped_at is not None:
        return Outcome(known, False)
    partition = partition_name(table, day)
    if not _exists(connection, partition):
        return Outcome(known, False)
    if known is not None and _still_right(connection, store, known):
        return Outcome(known, False)
    folder = folder_of(table, day)
    export = Export(table, day, on_rows, stop)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SET LOCAL work_mem = '{_WORK_MEM}'".encode())
        written = store.write(folder, lambda file: export.write(connection, file))
        total = sum_of(connection, partition, table)
    if total.rows != export.rows:
        raise ArchiveDamaged(f"{table} of {day}: {export.rows:,} of {total.rows:,} rows arrived.")
    path = path_of(table, day, written.sha256)
    archive = _archive(table, day, path, total, written)
    store.finish(folder, path)
    _write_manifest(store, folder, archive, export)
    check_file(store, archive)
    restored = sum_of_file(connection, store, path, table, on_rows)
    if restored != total:
        raise ArchiveDamaged(f"{path} does not restore to the rows that it was made from.")
    with connection.transaction():
        note_archived(connection, archive)
    noted = archive_of(connection, table, day)
    _clear(store, folder, path)
    return Outcome(noted, True)


class Export:
    """One pass over a day's rows, from the server's sort to the file."""

    def __init__(
        self,
        table: str,
        day: date,
        on_rows: OnRows | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._table, self._day = table, day
        self._on_rows = on_rows or (lambda _: None)
        self._stop = stop or threading.Event()
        self._schema = schema_of(table)
        self.rows = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def write(self, connection: psycopg.Connection[Any], file: BinaryIO) -> None:
        """Fill `file`. Rows are received while the group before is compressed and written."""
        groups = copy_out(connection, self._query(), rows_per_group(self._table))
        with (
            pq.ParquetWriter(file, self._schema, **_writer_options(self._table)) as writer,
            ThreadPoolExecutor(1, "archive-writes") as writing,
        ):
            before = None
            for group in groups:
                if self._stop.is_set():
                    raise Stopped(f"{self._table} of {self._day} was not archived.")
                if before is not None:
                    self._count(before.result())
                before = writing.submit(self._write_group, writer, group)
            if before is not None:
                self._count(before.result())

    def _query(self) -> sql.Composed:
        order = sql.SQL(", ").join(map(sql.Identifier, SORTED_BY[self._table]))
        return sql.SQL("SELECT {} FROM ONLY {} ORDER BY {}").format(
            column_list(self._table),
            sql.Identifier(partition_name(self._table, self._day)),
            order,
        )

    def _write_group(
        self, writer: pq.ParquetWriter, group: list[list[bytes]]
    ) -> tuple[int, Any, Any]:
        batches = [to_arrow(self._table, self._schema, chunk) for chunk in group]
        rows = pa.Table.from_batches(batches, self._schema)
        writer.write_table(rows, row_group_size=rows.num_rows)
        times = pa.compute.min_max(rows[time_column(self._table)])
        return rows.num_rows, times["min"].as_py(), times["max"].as_py()

    def _count(self, group: tuple[int, Any, Any]) -> None:
        rows, first, last = group
        self.rows += rows
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
        self._on_rows(rows)


def _writer_options(table: str) -> dict[str, Any]:
    texts = [field.name for field in fields_of(table) if _repeats(field.name)]
    deltas = [
        field.name
        for field in fields_of(table)
        if pa.types.is_timestamp(field.arrow) or field.arrow == pa.int64()
    ]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": texts,
        "column_encoding": dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        "write_statistics": True,
        # A reader of a few pages sees by them that these are as they were written.
        "write_page_checksum": True,
        "sorting_columns": pq.SortingColumn.from_ordering(
            schema_of(table), [(name, "ascending") for name in SORTED_BY[table]], "at_end"
        ),
    }


_REPEATED = ("_ticker", "_type", "side", "source")


def _repeats(column: str) -> bool:
    return column.endswith(_REPEATED)


def _exists(connection: psycopg.Connection[Any], relation: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [relation]).fetchone()
    return row == (True,)


def _still_right(connection: psycopg.Connection[Any], store: Store, known: Archive) -> bool:
    """Whether the file is as it was written, and the table as it was then."""
    if known.verified_at is None or known.schema_version != SCHEMA_VERSION:
        return False
    found = sum_of(connection, partition_name(known.table_name, known.day), known.table_name)
    if found != Sum(known.row_count, known.checksum):
        return False
    try:
        check_file(store, known)
    except ArchiveDamaged:
        return False
    return True


def _archive(table: str, day: date, path: str, total: Sum, written: Written) -> Archive:
    now = datetime.now(UTC)
    return Archive(
        table_name=table,
        day=day,
        path=path,
        schema_version=SCHEMA_VERSION,
        row_count=total.rows,
        size=written.size,
        sha256=written.sha256,
        checksum=total.checksum,
        archived_at=now,
        verified_at=now,
        dropped_at=None,
        restored_at=None,
    )


def _write_manifest(store: Store, folder: str, archive: Archive, export: Export) -> None:
    manifest = {
        "table": archive.table_name,
        "day": str(archive.day),
        "file": archive.path.rpartition("/")[2],
        "rows": archive.row_count,
        "bytes": archive.size,
        "sha256": archive.sha256.hex(),
        "checksum": str(archive.checksum),
        "schema_version": archive.schema_version,
        "sorted_by": SORTED_BY[archive.table_name],
        "first": _text(export.first),
        "last": _text(export.last),
        "columns": list(_columns(archive.table_name)),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    store.write(folder, lambda file: _write_text(file, text))
    store.finish(folder, f"{folder}/{MANIFEST}")


def _columns(table: str) -> Iterator[dict[str, Any]]:
    for field in schema_of(table):
        told = {"name": field.name, "type": str(field.type), "nullable": field.nullable}
        comment = (field.metadata or {}).get(b"comment", b"").decode() or None
        yield told | {"unit": unit_of(field.name) or None, "comment": comment}


def _write_text(file: BinaryIO, text: str) -> None:
    file.write(text.encode())


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="microseconds")


def _clear(store: Store, folder: str, path: str) -> None:
    """Remove what runs that were killed, and archives of other rows, have left of the day."""
    keep = {path.rpartition("/")[2], MANIFEST}
    for name in set(store.names(folder)) - keep:
        store.remove(f"{folder}/{name}")
