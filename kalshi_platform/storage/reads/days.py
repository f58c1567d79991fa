"""Days: which days' partitions changed, and how many rows they hold."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import psycopg
from psycopg import sql

# A count reads the whole partition; above this size its planner's estimate is good enough.
_COUNTED_BYTES = 64 << 20

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


def _is_day(suffix: str) -> bool:
    return re.fullmatch(r"\d{8}", suffix) is not None
