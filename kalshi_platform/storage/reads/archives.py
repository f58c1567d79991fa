"""Which days are archived, and which of them are no longer in the database."""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row


class Archive(NamedTuple):
    """A day of a table that is a file, too, or only that."""

    table_name: str
    day: date
    path: str
    """Of the Parquet file, below the archive's URL."""
    schema_version: int
    row_count: int
    size: int
    """Bytes of the file."""
    sha256: bytes
    checksum: Decimal
    """Sum of the rows' hashes, in any order."""
    archived_at: datetime
    verified_at: datetime | None
    """When the file was last read back and found right; null where it was found wrong."""
    dropped_at: datetime | None
    """Since when the rows are in the file alone."""
    restored_at: datetime | None
    """When they last came back."""


_COLUMNS = ", ".join("bytes AS size" if name == "size" else name for name in Archive._fields)


def archive_of(connection: psycopg.Connection[Any], table: str, day: date) -> Archive | None:
    """The archive of one day of a table."""
    with connection.cursor(row_factory=class_row(Archive)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM archives WHERE table_name = %s AND day = %s".encode(),  # noqa: S608 (constants)
            [table, day],
        ).fetchone()


def all_archives(
    connection: psycopg.Connection[Any], first: date | None = None, last: date | None = None
) -> list[Archive]:
    """The archives of the days from `first` to `last`, both included; oldest day first."""
    with connection.cursor(row_factory=class_row(Archive)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM archives"  # noqa: S608 (constants)
            " WHERE day BETWEEN coalesce(%s::date, '-infinity') AND coalesce(%s::date, 'infinity')"
            " ORDER BY day, table_name".encode(),
            [first, last],
        ).fetchall()


def dropped_days(
    connection: psycopg.Connection[Any], table: str, days: Iterable[date]
) -> list[date]:
    """Those of `days` whose rows of `table` are in the archive alone, in order."""
    rows = connection.execute(
        "SELECT day FROM archives WHERE table_name = %s AND day = ANY(%s)"
        " AND dropped_at IS NOT NULL ORDER BY day",
        [table, list(days)],
    ).fetchall()
    return [day for (day,) in rows]


def partition_days(connection: psycopg.Connection[Any], table: str) -> list[tuple[date, int]]:
    """The days that `table` has partitions for, oldest first, and their bytes with indexes."""
    rows = connection.execute(
        "SELECT relname, pg_total_relation_size(pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY relname",
        [table],
    ).fetchall()
    prefix = f"{table}_"
    return [(date.fromisoformat(name.removeprefix(prefix)), size) for name, size in rows]
