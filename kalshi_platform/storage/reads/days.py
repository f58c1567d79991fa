"""Days: which days' partitions changed, and how many rows they hold."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import psycopg
from psycopg import sql

# A count reads the whole partition; above this size its planner's estimate is good enough.
_COUNTED_BYTES = 64 << 20

# Rows of a day of the tables that are not partitioned, and what is told beside their number. Times
# are the exchange's; only of what it has not yet told of, ours. Every condition has its index.
_CHANGED = (
    "exchange_updated_at >= day.starts_at AND exchange_updated_at < day.ends_at"
    " OR (exchange_updated_at IS NULL"
    " AND first_seen_at >= day.starts_at AND first_seen_at < day.ends_at)"
)
_REFERENCE = {
    "markets": f"""\
SELECT count(*) AS rows, count(*) FILTER (WHERE metadata IS NULL) AS undescribed
FROM day JOIN markets ON created_at >= day.starts_at AND created_at < day.ends_at OR {_CHANGED}""",  # noqa: S608
    "events": f"""\
SELECT count(*) AS rows, count(*) FILTER (WHERE metadata IS NULL) AS undescribed
FROM day JOIN events ON {_CHANGED}""",  # noqa: S608
    "series": f"""\
SELECT count(*) AS rows,
       count(*) FILTER (WHERE not_found_at IS NOT NULL AND metadata IS NULL) AS not_found
FROM day JOIN series ON {_CHANGED}""",  # noqa: S608
    "settlements": """\
SELECT count(*) FILTER (WHERE settled_at >= day.starts_at AND settled_at < day.ends_at) AS rows,
       count(*) FILTER (WHERE settled_at IS NULL) AS not_yet_paid,
       count(*) FILTER (WHERE confirmed_at IS NULL) AS unconfirmed
FROM day JOIN settlements ON settled_at >= day.starts_at AND settled_at < day.ends_at
    OR effective_at >= day.starts_at AND effective_at < day.ends_at""",
}

# A table grows by up to 64 pages at once, the last of which may still be empty.
_TAIL_PAGES = 80


class DayOfTable(NamedTuple):
    """One daily partition."""

    table: str
    day: date
    # Rows inserted, updated and deleted since the server's statistics began; any difference means
    # that the partition changed.
    writes: int


class RowCount(NamedTuple):
    rows: int
    exact: bool


class Watching(NamedTuple):
    """Whether order books are watched as they should be."""

    wanted: int
    """Markets whose books the recorder is to watch, by its own word of a moment ago."""
    watched: int
    """Of all markets, those whose book is known at this moment."""


def written_days(connection: psycopg.Connection, tables: Sequence[str]) -> list[DayOfTable]:
    """The daily partitions of `tables` that were written to, oldest first.

    Reads the server's counters, which a session hands in within a second of its commit; no table
    is scanned, so it costs the same at any volume.
    """
    rows = connection.execute(
        "SELECT parent.relname, stat.relname, stat.n_tup_ins + stat.n_tup_upd + stat.n_tup_del"
        " FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent"
        " JOIN pg_stat_user_tables AS stat ON stat.relid = inhrelid"
        " WHERE parent.relname = ANY(%s) AND parent.relnamespace = current_schema()::regnamespace",
        [list(tables)],
    ).fetchall()
    days = [
        DayOfTable(table, date.fromisoformat(suffix), writes)
        for table, partition, writes in rows
        if writes and (suffix := partition.removeprefix(f"{table}_")) and _is_day(suffix)
    ]
    return sorted(days, key=lambda entry: (entry.day, entry.table))


def written_rows(connection: psycopg.Connection, tables: Sequence[str]) -> dict[str, int]:
    """Writes per table over all its partitions since the server's statistics began."""
    total = dict.fromkeys(tables, 0)
    for entry in written_days(connection, tables):
        total[entry.table] += entry.writes
    return total


def rows_of_day(connection: psycopg.Connection, table: str, day: date) -> RowCount:
    """Rows in one daily partition: counted while it is small, the planner's estimate beyond."""
    partition = f"{table}_{day:%Y%m%d}"
    found = connection.execute(
        "SELECT pg_relation_size(c.oid), c.reltuples, c.relpages, pg_stat_get_live_tuples(c.oid),"
        " current_setting('block_size')::bigint"
        " FROM pg_class AS c WHERE relname = %s AND relnamespace = current_schema()::regnamespace",
        [partition],
    ).fetchone()
    if found is None:
        return RowCount(0, exact=True)
    size, tuples, pages, live, block = found
    if size > _COUNTED_BYTES:
        # Never analyzed: the counter of live rows, which is right unless the server crashed.
        known = tuples > 0 and pages > 0
        estimate = round(tuples / pages * (size / block)) if known else live
        return RowCount(estimate, exact=False)
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(partition))
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return RowCount(row[0], exact=True)


def newest_received_at(connection: psycopg.Connection, table: str, day: date) -> datetime | None:
    """When the newest of the last rows of an append-only daily partition was received.

    Reads the last pages only, whatever the partition's size; None where they hold no row.
    """
    partition = f"{table}_{day:%Y%m%d}"
    pages = connection.execute(
        "SELECT pg_relation_size(c.oid) / current_setting('block_size')::bigint FROM pg_class AS c"
        " WHERE relname = %s AND relnamespace = current_schema()::regnamespace",
        [partition],
    ).fetchone()
    if pages is None:
        return None
    row = connection.execute(
        sql.SQL("SELECT max(received_at) FROM {} WHERE ctid >= {}::tid").format(
            sql.Identifier(partition), sql.Literal(f"({max(0, pages[0] - _TAIL_PAGES)},0)")
        )
    ).fetchone()
    return row[0] if row else None


def seconds_since(instant: datetime) -> float:
    return (datetime.now(UTC) - instant).total_seconds()


def open_gaps_of_day(connection: psycopg.Connection, day: date) -> int:
    """Open gaps that touch the UTC day, of any channel."""
    row = connection.execute(
        "SELECT count(*) FROM gaps WHERE status = 'open'"
        " AND starts_at < (%s::date + 1)::timestamptz AND ends_at >= %s::date::timestamptz",
        [day, day],
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return int(row[0])


def gaps_of_day(connection: psycopg.Connection, channel: str, day: date) -> int:
    """Gaps of the channel that touch the UTC day, whatever became of them."""
    row = connection.execute(
        "SELECT count(*) FROM gaps WHERE channel = %s"
        " AND starts_at < (%s::date + 1)::timestamptz AND ends_at >= %s::date::timestamptz",
        [channel, day, day],
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return int(row[0])


def watching(connection: psycopg.Connection) -> Watching | None:
    """How many books are wanted and watched; None where no recorder has said so for a minute."""
    row = connection.execute(
        "SELECT (position ->> 'wanted')::bigint,"
        " (SELECT count(*) FROM book_watches WHERE ends_at IS NULL)"
        " FROM ingestion_checkpoints WHERE source = 'books' AND scope = 'watch'"
        " AND position ? 'wanted' AND updated_at > now() - interval '1 minute'"
    ).fetchone()
    return None if row is None else Watching(*row)


def watched_on(connection: psycopg.Connection, day: date) -> int:
    """Markets whose book was known at some time of the UTC day."""
    row = connection.execute(
        "SELECT count(DISTINCT market_ticker) FROM book_watches"
        " WHERE starts_at < (%s::date + 1)::timestamptz"
        " AND coalesce(ends_at, 'infinity') > %s::date::timestamptz",
        [day, day],
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return int(row[0])


def reference_figures(connection: psycopg.Connection, table: str, day: date) -> dict[str, int]:
    """What one UTC day of series, events, markets or settlements holds: `rows`, then remarks.

    A day's series and events are those last changed on it; its markets also those created on it;
    its settlements those paid on it (the remarks speak of those determined on it, too).
    """
    start = datetime.combine(day, time(), UTC)
    cursor = connection.execute(
        f"WITH day AS (SELECT %s::timestamptz AS starts_at, %s::timestamptz AS ends_at)"
        f" {_REFERENCE[table]}".encode(),
        [start, start + timedelta(days=1)],
    )
    row = cursor.fetchone()
    assert row is not None and cursor.description is not None, "count(*) returns a row"
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def _is_day(suffix: str) -> bool:
    return re.fullmatch(r"\d{8}", suffix) is not None
