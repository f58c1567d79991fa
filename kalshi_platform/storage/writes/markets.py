"""Markets: a placeholder row with the first message that names one."""

from collections.abc import Iterable

import psycopg


def name_markets(connection: psycopg.Connection, tickers: Iterable[str]) -> None:
    """Make sure that each ticker has its row; the caller commits."""
    # Sorted, so that two writers meet in the same order and never wait for each other in a ring.
    connection.execute(
        "INSERT INTO markets (market_ticker) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
        [sorted(tickers)],
    )
