"""Books as rows, and the same books in plain Python."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.transform.books import books_at

DAY = datetime(2026, 10, 5, tzinfo=UTC)
MARKET = "KXTEST-26OCT05-T1"
CONNECTION = 1_790_000_000

Side = dict[int, int]
"""Contracts (centis) by price (micros)."""


@dataclass(frozen=True)
class Snapshot:
    at: datetime
    frame: int
    yes: Side = field(default_factory=dict)
    no: Side = field(default_factory=dict)
    market: str = MARKET
    connection: int = CONNECTION
    sid: int = 1
    source: str = "exchange"
    seq: int | None = None

    @property
    def feed_order(self) -> int:
        return self.connection << 32 | self.frame


@dataclass(frozen=True)
class Delta:
    at: datetime
    frame: int
    side: str
    price: int
    centis: int
    market: str = MARKET
    connection: int = CONNECTION
    sid: int = 1
    seq: int | None = None

    @property
    def feed_order(self) -> int:
        return self.connection << 32 | self.frame


def second(seconds: float) -> datetime:
    """An instant so many seconds after noon of DAY."""
    return DAY + timedelta(hours=12, seconds=seconds)


def land(connection: psycopg.Connection[Any], *rows: Snapshot | Delta) -> None:
    """Insert rows in the caller's transaction; `seq` is the frame unless it is given."""
    days = {row.at.date() for row in rows}
    ensure_partitions(connection, days, only=[tables.book_snapshots, tables.book_deltas])
    for row in rows:
        shared = (row.at, row.at, row.feed_order, row.seq or row.frame, row.sid, row.market)
        if isinstance(row, Snapshot):
            sides = [
                values
                for side in (row.yes, row.no)
                for values in ([*sorted(side)], [side[price] for price in sorted(side)])
            ]
            connection.execute(
                "INSERT INTO book_snapshots (at, received_at, feed_order, seq, sid, market_ticker,"
                " source, yes_micros, yes_centis, no_micros, no_centis)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [*shared, row.source, *sides],
            )
        else:
            connection.execute(
                "INSERT INTO book_deltas (at, received_at, feed_order, seq, sid, market_ticker,"
                " side, price_micros, delta_centis) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [*shared, row.side, row.price, row.centis],
            )


def books(
    connection: psycopg.Connection[Any], moments: Iterable[tuple[str, datetime]]
) -> dict[tuple[str, datetime], Any]:
    """What `books_at` answers, by moment."""
    asked = list(moments)
    parameters = {
        "market_tickers": [market for market, _ in asked],
        "instants": [at for _, at in asked],
    }
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(books_at().encode(), parameters)
        return {(row.market_ticker, row.at): row for row in cursor}


def book(
    connection: psycopg.Connection[Any], at: datetime, market: str = MARKET
) -> tuple[Side, Side] | None:
    """Both sides of one book; None where there is none."""
    found = books(connection, [(market, at)]).get((market, at))
    return None if found is None else sides(found)


def sides(row: Any) -> tuple[Side, Side]:
    """Both sides of a row, in the order they came in."""
    yes = dict(zip(row.yes_micros, row.yes_centis, strict=True))
    no = dict(zip(row.no_micros, row.no_centis, strict=True))
    assert [*yes] == sorted(yes)
    assert [*no] == sorted(no)
    return yes, no
