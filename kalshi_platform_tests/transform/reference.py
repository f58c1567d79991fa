"""Trades for tests, a way into the tables, and candles worked out in plain Python."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.transform.candles import COLUMNS, Interval

DAY = datetime(2026, 10, 5, tzinfo=UTC)
MARKET = "KXTEST-26OCT05-T1"


@dataclass(frozen=True)
class StoredTrade:
    traded_at: datetime
    trade_id: uuid.UUID
    yes_price_micros: int
    count_centis: int
    feed_order: int | None
    market_ticker: str
    is_block_trade: bool | None = False

    @property
    def order(self) -> tuple[datetime, int, int, int]:
        unknown = self.feed_order is None
        return (self.traded_at, int(unknown), self.feed_order or 0, self.trade_id.int)


def trade(
    at: str | datetime = "10:00:05",
    price: int = 400_000,
    count: int = 100,
    *,
    feed_order: int | None = 1,
    number: int | None = None,
    market: str = MARKET,
    block: bool | None = False,
) -> StoredTrade:
    """One valid trade on DAY; `number` fixes the trade_id, whose order settles ties."""
    instant = at if isinstance(at, datetime) else datetime.fromisoformat(f"2026-10-05T{at}Z")
    identity = uuid.uuid4() if number is None else uuid.UUID(int=number)
    return StoredTrade(instant, identity, price, count, feed_order, market, block)


def land(connection: psycopg.Connection[Any], *trades: StoredTrade) -> None:
    """Insert or update `trades` and list their minutes as stale, in the caller's transaction."""
    days = {each.traded_at.date() for each in trades}
    ensure_partitions(connection, days, only=[tables.trades])
    for each in trades:
        on = each.traded_at.date()
        before = connection.execute(
            "DELETE FROM trades WHERE trade_id = %s RETURNING market_ticker, traded_at",
            [each.trade_id],
        ).fetchall()
        connection.execute(
            "INSERT INTO trades (traded_at, feed_order, count_centis, yes_price_micros, traded_on,"
            " trade_id, exact_time, is_block_trade, taker_side, market_ticker)"
            " VALUES (%s, %s, %s, %s, %s, %s, true, %s, 'yes', %s)",
            [
                each.traded_at,
                each.feed_order,
                each.count_centis,
                each.yes_price_micros,
                on,
                each.trade_id,
                each.is_block_trade,
                each.market_ticker,
            ],
        )
        for ticker, instant in [*before, (each.market_ticker, each.traded_at)]:
            connection.execute(
                "INSERT INTO stale_candles (market_ticker, starts_at) VALUES (%s, %s)",
                [ticker, instant.replace(second=0, microsecond=0)],
            )


class Candle(NamedTuple):
    market_ticker: str
    starts_at: datetime
    open_micros: int
    high_micros: int
    low_micros: int
    close_micros: int
    volume_centis: int
    notional_micro_centis: int
    trade_count: int


def candles(connection: psycopg.Connection[Any], interval: Interval) -> list[Candle]:
    """All stored candles of `interval`, by market and time."""
    query = f"SELECT {', '.join(COLUMNS)} FROM {interval.table.name} ORDER BY 1, 2"
    return [Candle(*row) for row in connection.execute(query.encode())]


def expected_candles(trades: Iterable[StoredTrade], interval: Interval) -> list[Candle]:
    """Candles of `trades` by the book: sort, group, take the first and the last."""
    groups: dict[tuple[str, datetime], list[StoredTrade]] = {}
    for each in sorted(trades, key=lambda each: each.order):
        seconds = int(each.traded_at.timestamp()) // interval.seconds * interval.seconds
        starts_at = datetime.fromtimestamp(seconds, UTC)
        groups.setdefault((each.market_ticker, starts_at), []).append(each)
    return [
        Candle(
            ticker,
            starts_at,
            group[0].yes_price_micros,
            max(each.yes_price_micros for each in group),
            min(each.yes_price_micros for each in group),
            group[-1].yes_price_micros,
            sum(each.count_centis for each in group),
            sum(each.count_centis * each.yes_price_micros for each in group),
            len(group),
        )
        for (ticker, starts_at), group in sorted(groups.items(), key=lambda item: item[0])
    ]
