"""Builders: what recorder and loader leave behind, by which the platform tells how it is."""

import time
from datetime import UTC, datetime, timedelta

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions

_INSERTS = {
    "raw_trades": "INSERT INTO raw_trades (landed_at, received_at, traded_at, count_centis,"
    " yes_price_micros, trade_id, source, taker_side, market_ticker) SELECT now(), %(at)s, %(at)s,"
    " 100, 500000, gen_random_uuid(), %(source)s, 'yes', %(market)s"
    " FROM generate_series(1, %(rows)s)",
    "quotes": "INSERT INTO quotes SELECT %(at)s, %(at)s, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1000000,"
    " 'KX-A' FROM generate_series(1, %(rows)s)",
    "lifecycle_events": "INSERT INTO lifecycle_events (received_at, connection, sid, seq,"
    " message_type, message) SELECT %(at)s, 1, 1, 1, 'market_lifecycle_v2', '{}'"
    " FROM generate_series(1, %(rows)s)",
    "book_deltas": "INSERT INTO book_deltas SELECT %(at)s, %(at)s, 1, 1, 1, 1, 1, 'yes', 'KX-A'"
    " FROM generate_series(1, %(rows)s)",
}


def feed(url: str, channel: str, *, age: float, messages: int = 5) -> None:
    """What the loader writes for a channel whose newest message is `age` seconds old."""
    label = f'channel="{channel}"'
    for name, value in (
        ("messages_total", float(messages)),
        ("last_received_at_seconds", time.time() - age),
        ("received_lag_seconds", 0.25),
        ("loaded_lag_seconds", 0.5),
    ):
        told(url, name, label, value)


def told(url: str, name: str, labels: str, value: float, *, age: float = 0) -> None:
    """One row of `ingestion_metrics`, written `age` seconds ago."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO ingestion_metrics (name, labels, value, updated_at)"
            " VALUES (%s, %s, %s, now() - make_interval(secs => %s)) ON CONFLICT (name, labels)"
            " DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            [name, labels, value, age],
        )


def started(url: str, *, age: float) -> None:
    """The loader was started `age` seconds ago."""
    told(url, "started_at_seconds", 'part="loader"', time.time() - age)


def received(
    url: str,
    table: str,
    *,
    age: float,
    source: str = "ws",
    rows: int = 1,
    market: str = "KX-A",
) -> None:
    """Rows of a table of the feed that were received `age` seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=age)
    with connect(url) as connection:
        ensure_partitions(connection, {at.date(), datetime.now(UTC).date()})
        values = {"at": at, "source": source, "rows": rows, "market": market}
        connection.execute(_INSERTS[table].encode(), values)
