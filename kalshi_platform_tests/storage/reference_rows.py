"""Writing and looking at markets, events, series and outcomes, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from psycopg.rows import dict_row

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.events import write_events
from kalshi_platform.storage.writes.lifecycle import apply_changes
from kalshi_platform.storage.writes.markets import write_markets
from kalshi_platform.storage.writes.series import write_series

READ_AT = datetime(2026, 10, 1, 12, tzinfo=UTC)
_WRITERS = {"markets": write_markets, "events": write_events, "series": write_series}


def tell(database, table, *facts, source="rest", read_at=READ_AT):
    """REST tells; committed."""
    with connect(database) as connection:
        return _WRITERS[table](connection, facts, source=source, read_at=read_at)


def change(database, *changes, at=READ_AT):
    """Lifecycle messages, or (message, the exchange's time); committed."""
    timed = [one if isinstance(one, tuple) else (one, at) for one in changes]
    with connect(database) as connection:
        apply_changes(connection, [(one, told_at, told_at) for one, told_at in timed])


def rows(database, query, *values):
    with connect(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


def row(database, table, ticker):
    """The row of one market, event or series, and how many seconds from now REST is asked next."""
    key = "series_ticker" if table == "series" else f"{table.rstrip('s')}_ticker"
    [found] = rows(
        database,
        f"SELECT *, xmin::text, extract(epoch FROM next_read_at - now())::float8 AS pause"
        f" FROM {table} WHERE {key} = %s",
        ticker,
    )
    return found


def make_due(database, table="markets", *, even_if_final=True):
    statement = f"UPDATE {table} SET next_read_at = now() - interval '1 ms'"
    if not even_if_final:
        statement += " WHERE next_read_at IS NOT NULL"
    with connect(database) as connection:
        connection.execute(statement.encode())


@contextmanager
def open_transaction(database) -> Iterator[psycopg.Connection]:
    connection = connect(database)
    try:
        yield connection
    finally:
        connection.close()
