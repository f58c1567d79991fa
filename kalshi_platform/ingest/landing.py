"""Landing: trades of any source go through `raw_trades` into `trades` by the same door."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import psycopg

from kalshi_platform.exchange.messages import Trade
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform.storage.writes.trades import (
    Landed,
    TradeRows,
    ensure_trade_partitions,
    merge_trades,
)


def land_rest_trades(
    connection: psycopg.Connection,
    trades: Sequence[Trade],
    *,
    source: Literal["rest", "historical"],
    received_at: datetime,
) -> Landed:
    """Land one REST page; the caller commits.

    Returns:
        How many were reported, how many were new, how many known ones gained something
        (microseconds, mostly).
    """
    if not trades:
        return Landed(0, 0, 0)
    landed_at = datetime.now(UTC)
    ensure_trade_partitions(connection, trades, landed_at)
    name_markets(connection, {trade.market_ticker for trade in trades})
    rows = TradeRows(source, unix_micros(landed_at))
    for trade in trades:
        rows.add(trade, unix_micros(received_at))
    return merge_trades(connection, rows)


def unix_micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond


def instant(unix_micros: int) -> datetime:
    """The inverse of `unix_micros`."""
    seconds, micros = divmod(unix_micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
