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


class DayDropped(RuntimeError):
    """The day's rows are in the archive alone; the text is one sentence with the remedy."""

    def __init__(self, table: str, day: date) -> None:
        super().__init__(
            f"The {table} of {day} are in the archive only. Bring them back first: "
            f"kalshi-platform archive restore --day {day}"
        )
        self.table = table
        self.day = day


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


def refuse_dropped(connection: psycopg.Connection[Any], table: str, days: Iterable[date]) -> None:
    """Go on only if the rows of `table` of all these days are in the database.

    Raises:
        DayDropped: they are not.
    """
    for day in dropped_days(connection, table, days):
        raise DayDropped(table, day)


def days_to_restore(connection: psycopg.Connection[Any]) -> list[tuple[str, date, str]]:
    """Dropped days whose rows are needed in the database again: table, day and the reason.

    Rows came late; or the day's candles are out of date; or it has a gap that can still be healed.
    """
    rows = connection.execute(_TO_RESTORE).fetchall()
    return [(table, day, reason) for table, day, reason in rows]


_TO_RESTORE = """
SELECT table_name, day, reason
FROM archives
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN to_regclass(table_name || '_' || to_char(day, 'YYYYMMDD')) IS NOT NULL
        THEN 'rows came late'
        WHEN table_name = 'trades' AND EXISTS (
            SELECT FROM stale_candles
            WHERE starts_at >= day::timestamptz AND starts_at < (day + 1)::timestamptz
        ) THEN 'candles are out of date'
        WHEN table_name = 'trades' AND EXISTS (
            SELECT FROM gaps
            WHERE channel = 'trade' AND status = 'open'
              AND starts_at < (day + 1)::timestamptz AND ends_at >= day::timestamptz
        ) THEN 'a gap can be healed'
    END AS reason
) AS why
WHERE dropped_at IS NOT NULL AND reason IS NOT NULL
ORDER BY day, table_name
"""


def reason_to_keep(connection: psycopg.Connection[Any], table: str, day: date) -> str | None:
    """Why the day's rows are still needed in the database, or None."""
    row = connection.execute(_NEEDED, {"table": table, "day": day}).fetchone()
    return row[0] if row else None


_NEEDED = """
SELECT CASE
    WHEN %(table)s IN ('trades', 'quotes') AND EXISTS (
        SELECT FROM stale_candles WHERE starts_at >= %(day)s::date::timestamptz
                                    AND starts_at < (%(day)s::date + 1)::timestamptz
    ) THEN 'its candles are out of date'
    WHEN %(table)s = 'trades' AND EXISTS (
        SELECT FROM gaps WHERE channel = 'trade' AND status = 'open'
                           AND starts_at < (%(day)s::date + 1)::timestamptz
                           AND ends_at >= %(day)s::date::timestamptz
    ) THEN 'a gap in it is not healed yet'
END
"""


def days_without_archive(
    connection: psycopg.Connection[Any], tables: Iterable[str], days: Iterable[date]
) -> dict[date, list[str]]:
    """Which of `tables` hold rows of a day that are not in a file that was read back, by day."""
    rows = connection.execute(
        "SELECT asked.day, name FROM unnest(%s::text[]) AS name"
        " CROSS JOIN unnest(%s::date[]) AS asked (day)"
        " LEFT JOIN archives ON archives.table_name = name AND archives.day = asked.day"
        " WHERE verified_at IS NULL AND (archives.day IS NOT NULL"
        " OR to_regclass(name || '_' || to_char(asked.day, 'YYYYMMDD')) IS NOT NULL)"
        " ORDER BY 1, 2",
        [list(tables), sorted(days)],
    ).fetchall()
    missing: dict[date, list[str]] = {}
    for day, table in rows:
        missing.setdefault(day, []).append(table)
    return missing


def partition_days(connection: psycopg.Connection[Any], table: str) -> list[tuple[date, int]]:
    """The days that `table` has partitions for, oldest first, and their bytes with indexes."""
    rows = connection.execute(
        "SELECT relname, pg_total_relation_size(pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY relname",
        [table],
    ).fetchall()
    prefix = f"{table}_"
    return [(date.fromisoformat(name.removeprefix(prefix)), size) for name, size in rows]
