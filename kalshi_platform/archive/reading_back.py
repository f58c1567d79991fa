"""A file read back: by its hash, by its rows, and as rows that PostgreSQL would have again."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from kalshi_platform.archive.checksums import NOTHING, Sum, sum_of
from kalshi_platform.archive.copying import copy_in
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import schema_of
from kalshi_platform.archive.store import Store, Written
from kalshi_platform.storage.reads.archives import Archive

# Rows that are in the database a second time at once, about.
_ROWS_AT_ONCE = 1 << 20
_COPY_ROWS = 8_192
_COPY = "archive_read_back"

OnRows = Callable[[int], None]


def check_file(store: Store, archive: Archive) -> None:
    """Read the whole file and compare it with what was noted of it.

    Raises:
        ArchiveDamaged: it is missing, or has another size, hash, number of rows or columns.
        OSError: the store cannot be reached.
    """
    try:
        found = store.hash(archive.path)
        if found != Written(archive.size, archive.sha256):
            raise ArchiveDamaged(
                f"{archive.path} is damaged: {found.size:,} bytes of sha256 "
                f"{found.sha256.hex()[:12]}, not {archive.size:,} of {archive.sha256.hex()[:12]}."
            )
        with store.open(archive.path) as source, pq.ParquetFile(source) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"{archive.path} is missing from the archive {store.url}.") from error
    except pa.ArrowInvalid as error:
        raise ArchiveDamaged(f"{archive.path} cannot be read as Parquet: {error}") from error
    if rows != archive.row_count:
        raise ArchiveDamaged(f"{archive.path} has {rows:,} rows, not {archive.row_count:,}.")
    if not schema.equals(schema_of(archive.table_name)):
        raise ArchiveDamaged(f"{archive.path} has other columns than {archive.table_name}.")


def sum_of_file(
    connection: psycopg.Connection[Any],
    store: Store,
    path: str,
    table: str,
    on_rows: OnRows | None = None,
) -> Sum:
    """Count and checksum of the rows that the file restores to, by PostgreSQL's own word.

    Rows go through a temporary table, a million at a time, as a restore brings them back.

    Args:
        connection: in autocommit mode.
        on_rows: is told how many rows more are done.
    """
    total = NOTHING
    with connection.transaction():
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DROP").format(
                sql.Identifier(_COPY), sql.Identifier(table)
            )
        )
        with store.open(path) as source, pq.ParquetFile(source) as file:
            for part in _parts(file):
                copy_in(connection, _COPY, table, part)
                found = sum_of(connection, _COPY, table)
                total += found
                connection.execute(f"TRUNCATE {_COPY}".encode())
                if on_rows is not None:
                    on_rows(found.rows)
    return total


def _parts(file: pq.ParquetFile) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of a file in parts of about a million."""
    groups, rows = [], 0
    for group in range(file.num_row_groups):
        groups.append(group)
        rows += file.metadata.row_group(group).num_rows
        if rows >= _ROWS_AT_ONCE or group == file.num_row_groups - 1:
            yield batches_of(file, groups)
            groups, rows = [], 0


def batches_of(
    file: pq.ParquetFile, groups: Iterable[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file, or of some of its groups, in order, a few thousand at a time."""
    for group in range(file.num_row_groups) if groups is None else groups:
        yield from file.read_row_group(group, use_threads=False).to_batches(_COPY_ROWS)
