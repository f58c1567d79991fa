"""Builders: quotes, books and what is known of them, as the loader leaves them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform_tests.api.rows import TICKER, at, name_market
from kalshi_platform_tests.transform import book_rows
from kalshi_platform_tests.transform.book_rows import CONNECTION, Delta, Side, Snapshot

FIRST_FRAME = CONNECTION << 32
_QUOTE = {
    "yes_bid_size_centis": 12_000,
    "yes_ask_size_centis": 7_550,
    "last_trade_size_centis": 1_000,
    "volume_centis": 5_123_425,
    "open_interest_centis": 2_010_000,
    "dollar_volume": 19_012,
    "dollar_open_interest": 10_050,
    "price_micros": 370_000,
    "yes_bid_micros": 360_000,
    "yes_ask_micros": 380_000,
    "market_ticker": TICKER,
}


@dataclass(frozen=True)
class Watch:
    """One row of `book_watches`."""

    starts_at: datetime
    ends_at: datetime | None = None
    ended_by: str | None = None
    market: str = TICKER
    connection: int = CONNECTION
    sid: int = 1


def quote(when: str = "10:00:00", frame: int = 1, **fields: Any) -> dict[str, Any]:
    """One valid row of `quotes`; name only what the test is about."""
    quoted_at = at(when)
    order = {"quoted_at": quoted_at, "received_at": quoted_at, "feed_order": FIRST_FRAME + frame}
    return _QUOTE | order | fields


def snapshot(when: str, frame: int, **fields: Any) -> Snapshot:
    """A whole book of TICKER; sides are contracts (centis) by price (micros)."""
    return Snapshot(at(when), frame, **{"market": TICKER, **fields})


def delta(
    when: str, frame: int, side: str = "yes", price: int = 360_000, centis: int = 100, **fields: Any
) -> Delta:
    """One change of a book of TICKER."""
    return Delta(at(when), frame, side, price, centis, **{"market": TICKER, **fields})


def watch(start: str, end: str | None = None, ended_by: str | None = None, **fields: Any) -> Watch:
    """An interval in which the book of TICKER was known; without an end it goes on."""
    return Watch(at(start), None if end is None else at(end), ended_by, **fields)


def told(url: str, *rows: dict[str, Any] | Snapshot | Delta | Watch) -> None:
    """Put quotes, snapshots, deltas and watches into the tables; their markets become known."""
    with connect(url) as connection:
        for row in rows:
            if isinstance(row, Snapshot | Delta):
                book_rows.land(connection, row)
                name_market(connection, row.market)
            elif isinstance(row, Watch):
                _add_watch(connection, row)
                name_market(connection, row.market)
            else:
                _add_quote(connection, row)
                name_market(connection, row["market_ticker"])


def heard(url: str, when: datetime) -> None:
    """The loader's note of when it last received something."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO ingestion_metrics (name, labels, value) VALUES"
            " ('last_received_at_seconds', 'channel=\"trade\"', %s)"
            " ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value",
            [when.timestamp()],
        )


def lost(url: str, channel: str, start: str, end: str, market_ticker: str | None = None) -> None:
    """A gap in a channel that no one can ask again."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at, market_ticker)"
            " VALUES (%s, 'disconnect', 'explained', %s, %s, %s)",
            [channel, at(start), at(end), market_ticker],
        )


def _add_quote(connection: psycopg.Connection, row: dict[str, Any]) -> None:
    ensure_partitions(connection, [row["quoted_at"].date()], only=[tables.quotes])
    connection.execute(
        f"INSERT INTO quotes ({', '.join(row)})"
        f" VALUES ({', '.join(f'%({name})s' for name in row)})".encode(),
        row,
    )


def _add_watch(connection: psycopg.Connection, row: Watch) -> None:
    connection.execute(
        "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order, connection, sid,"
        " use_yes_price, ended_by) VALUES (%s, %s, %s, %s, %s, %s, false, %s)",
        [
            row.market,
            row.starts_at,
            row.ends_at,
            row.connection << 32,
            row.connection,
            row.sid,
            row.ended_by,
        ],
    )


__all__ = ["FIRST_FRAME", "Side", "delta", "heard", "lost", "quote", "snapshot", "told", "watch"]
