"""Builders: rows as the loader leaves them, written straight into the tables."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import psycopg

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions

TICKER = "KXRAIN-26NOV20-T1"


def at(text: str) -> datetime:
    """ "10:00:05.5" on 20 November 2026, or a whole ISO instant; UTC."""
    if "T" not in text:
        text = f"2026-11-20T{text}"
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One row of `trades`."""

    traded_at: datetime = field(default_factory=lambda: at("10:00:00"))
    yes_price_micros: int = 360_000
    count_centis: int = 1_200
    taker_side: str = "yes"
    is_block_trade: bool | None = False
    feed_order: int | None = None
    market_ticker: str = TICKER
    trade_id: uuid.UUID = field(default_factory=uuid.uuid4)


def trade(when: str = "10:00:00", **fields: Any) -> Row:
    """One valid trade; name only what the test is about."""
    return Row(traded_at=at(when), **fields)


def land(url: str, *rows: Row) -> None:
    """Put trades into the tables as the loader does, their minutes marked stale."""
    with connect(url) as connection:
        ensure_partitions(connection, {row.traded_at.date() for row in rows})
        for row in rows:
            connection.execute(
                "INSERT INTO trades (traded_at, feed_order, count_centis, yes_price_micros,"
                " traded_on, trade_id, exact_time, is_block_trade, taker_side, market_ticker)"
                " VALUES (%s, %s, %s, %s, %s, %s, true, %s, %s, %s)",
                [
                    row.traded_at,
                    row.feed_order,
                    row.count_centis,
                    row.yes_price_micros,
                    row.traded_at.date(),
                    row.trade_id,
                    row.is_block_trade,
                    row.taker_side,
                    row.market_ticker,
                ],
            )
            connection.execute(
                "INSERT INTO stale_candles (market_ticker, starts_at)"
                " VALUES (%s, date_trunc('minute', %s))",
                [row.market_ticker, row.traded_at],
            )
            name_market(connection, row.market_ticker)


def name_market(connection: psycopg.Connection, market_ticker: str) -> None:
    connection.execute(
        "INSERT INTO markets (market_ticker) VALUES (%s) ON CONFLICT DO NOTHING", [market_ticker]
    )


def cover(url: str, day: date, status: str, swept_until: datetime | None) -> None:
    """State what is known of a whole day."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO coverage (traded_on, market_ticker, status, trades_held, swept_until)"
            " VALUES (%s, '*', %s, 0, %s)",
            [day, status, swept_until],
        )


@contextmanager
def open_gap(url: str, start: datetime, end: datetime, channel: str = "trade") -> Iterator[None]:
    """A gap that nobody has healed yet."""
    with connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES (%s, 'disconnect', 'open', %s, %s)",
            [channel, start, end],
        )
        yield
        connection.execute("UPDATE gaps SET status = 'healed'")
