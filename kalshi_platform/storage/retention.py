"""How long quotes and order books are kept: whole days are dropped, each in one statement.

Candles keep the bids, asks and open interest of days whose quotes are gone. Trades, outcomes and
markets are never dropped.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import Table

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import partition_bounds

QUOTES = (tables.quotes,)
BOOKS = (tables.book_snapshots, tables.book_deltas)

# Today fills, and yesterday still gets what comes late.
_FEWEST_DAYS = 2
# A partition in use is left for the next time: who waits for its lock holds up all writers.
_LOCK_TIMEOUT = "2s"


class Dropped(NamedTuple):
    """A day of a table that is gone."""

    table: str
    day: date
    bytes: int


class Outcome(NamedTuple):
    """What one pass dropped, and the partitions it had to leave because they were in use."""

    dropped: Sequence[Dropped]
    in_use: Sequence[str]


def drop_old_days(
    connection: psycopg.Connection,
    *,
    quotes_days: int,
    books_days: int,
    now: datetime | None = None,
) -> Outcome:
    """Drop the days of quotes and books that began longer ago than they are kept.

    Args:
        connection: in autocommit mode; each day is a transaction of its own.
        quotes_days, books_days: UTC days that are kept, today among them; never fewer than two.
        now: instead of the clock.
    """
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    keep: Mapping[Table, int] = dict.fromkeys(QUOTES, quotes_days) | dict.fromkeys(
        BOOKS, books_days
    )
    dropped, in_use = [], []
    for table, days in keep.items():
        first_kept = today - timedelta(days=max(days, _FEWEST_DAYS) - 1)
        for day, size in _days_of(connection, table):
            if day >= first_kept:
                continue
            name, _, _ = partition_bounds(table, day)
            if _drop(connection, name):
                dropped.append(Dropped(table.name, day, size))
            else:
                in_use.append(name)
    _forget_watches(connection, today - timedelta(days=max(books_days, _FEWEST_DAYS) - 1))
    return Outcome(dropped, in_use)


def _days_of(connection: psycopg.Connection, table: Table) -> list[tuple[date, int]]:
    """The days that `table` has partitions for, oldest first, and their bytes with indexes."""
    rows = connection.execute(
        "SELECT relname, pg_total_relation_size(pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass ORDER BY relname",
        [table.name],
    ).fetchall()
    prefix = f"{table.name}_"
    return [(date.fromisoformat(name.removeprefix(prefix)), size) for name, size in rows]


def _drop(connection: psycopg.Connection, name: str) -> bool:
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT))
            )
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _forget_watches(connection: psycopg.Connection, first_kept: date) -> None:
    """Delete the watches that ended before anything that is kept of books."""
    connection.execute(
        "DELETE FROM book_watches WHERE ends_at < %s", [datetime.combine(first_kept, time(), UTC)]
    )
