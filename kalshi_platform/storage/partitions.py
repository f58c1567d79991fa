"""Partitions: made ahead and on demand, dropped in one statement."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql
from sqlalchemy import Table

from kalshi_platform.storage import tables

PARTITIONED = [table for table in tables.metadata.sorted_tables if "partitions" in table.info]

# Serializes partition DDL over all processes; any number that nothing else locks.
_DDL_LOCK = 4_243


def partition_bounds(table: Table, day: date) -> tuple[str, date, date]:
    """Name and half-open bounds of the partition of `table` that holds `day`."""
    if table.info["partitions"] == "month":
        start = day.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
        return f"{table.name}_{start:%Y%m}", start, end
    return f"{table.name}_{day:%Y%m%d}", day, day + timedelta(days=1)


def ensure_partitions(
    connection: psycopg.Connection, days: Iterable[date], only: Iterable[Table] = PARTITIONED
) -> list[str]:
    """Make the missing partitions for `days`; returns the names of those made.

    A partition is built as a table of its own and attached, which does not lock out readers and
    writers of the parent the way CREATE … PARTITION OF does. Until the caller commits nobody drops
    a day of these tables, so that what was found here is still there to be written to.
    """
    wanted = {
        name: (table, start, end)
        for table in only
        for day in days
        for name, start, end in [partition_bounds(table, day)]
    }
    if not wanted:
        return []
    # What a writer takes itself a moment later; who drops a day waits for it.
    connection.execute(
        sql.SQL("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE").format(
            sql.SQL(", ONLY ").join(
                map(sql.Identifier, sorted({table.name for table, *_ in wanted.values()}))
            )
        )
    )
    missing = set(wanted) - _existing(connection, wanted)
    if not missing:
        return []
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_DDL_LOCK])
    missing -= _existing(connection, wanted)
    for name in sorted(missing):
        table, start, end = wanted[name]
        parent = sql.Identifier(table.name)
        connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
                sql.Identifier(name), parent
            )
        )
        attach(connection, table, name, start, end)
    return sorted(missing)


def adopt(connection: psycopg.Connection, table: Table, name: str, day: date) -> bool:
    """Make the stand-alone table `name` the partition of `table` for `day`, unless there is one.

    Returns:
        Whether it was adopted; else it is left as it is. The caller commits.
    """
    partition, start, end = partition_bounds(table, day)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_DDL_LOCK])
    if _existing(connection, [partition]):
        return False
    connection.execute(
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(
            sql.Identifier(name), sql.Identifier(partition)
        )
    )
    attach(connection, table, partition, start, end)
    return True


def lock_partitions(connection: psycopg.Connection) -> None:
    """Let nobody else make a partition until the caller's transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_DDL_LOCK])


def has_partition(connection: psycopg.Connection, table: Table, day: date) -> bool:
    """Whether `table` has a partition for `day`."""
    name, _, _ = partition_bounds(table, day)
    return bool(_existing(connection, [name]))


def attach(connection: psycopg.Connection, table: Table, name: str, start: date, end: date) -> None:
    """Attach the stand-alone table `name` as the partition of `table` for [start, end)."""
    column = table.info["partition_column"]
    cast = "" if column.endswith("_on") else " 00:00:00+00"
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(table.name),
            sql.Identifier(name),
            sql.Literal(f"{start}{cast}"),
            sql.Literal(f"{end}{cast}"),
        )
    )


def days_ahead(now: datetime, days: int = 2) -> list[date]:
    """Today and the next days, so that midnight finds its partitions made."""
    today = now.astimezone(UTC).date()
    return [today + timedelta(days=offset) for offset in range(days + 1)]


def _existing(connection: psycopg.Connection, names: Iterable[str]) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relispartition"
        " AND relnamespace = current_schema()::regnamespace",
        [list(names)],
    )
    return {name for (name,) in rows}
