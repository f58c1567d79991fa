"""Trades: landed as reported in `raw_trades`, merged into `trades`, their candles marked stale.

A merge does not depend on the order of arrival: microseconds win over milliseconds, the earliest
place in the feed wins over later ones (a repeated frame), a stated block flag wins over none.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import NamedTuple, Protocol

import psycopg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from kalshi_platform.storage import tables
from kalshi_platform.storage.bulk import NULL, POSTGRES_EPOCH_MICROS, copy_binary, text_field
from kalshi_platform.storage.partitions import ensure_partitions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS_PER_DAY = 86_400_000_000


class TradeValues(Protocol):
    """What a row needs; `exchange.messages.Trade` has it."""

    trade_id: str
    market_ticker: str
    yes_price_micros: int
    count_centis: int
    taker_side: str
    is_block_trade: bool | None
    traded_at_micros: int
    exact_time: bool


class Landed(NamedTuple):
    """What one batch did."""

    reported: int
    added: int
    changed: int


COLUMNS = (
    "received_at",
    "traded_at",
    "traded_on",
    "count_centis",
    "yes_price_micros",
    "trade_id",
    "exact_time",
    "seq",
    "feed_order",
    "is_block_trade",
    "taker_side",
    "market_ticker",
    "landed_at",
    "source",
    "connection",
    "tape_segment",
    "tape_offset",
)
# A field is its length and its value; see storage.bulk. First what differs from trade to trade,
# packed in one call; then what repeats and is remembered; last what a batch has in common.
_VARYING = Struct(">h iq iq ii iq ii i16s i?".replace(" ", "")).pack
_VARYING_FED = Struct(">h iq iq ii iq ii i16s i? iq iq".replace(" ", "")).pack
_BOOLEAN = Struct(">i?").pack
_BIGINT = Struct(">iq").pack
_POSTGRES_EPOCH_DAYS = POSTGRES_EPOCH_MICROS // _MICROS_PER_DAY


class TradeEncoder:
    """Encodes trades of one source, and of one place of the tape, as landing rows in COPY BINARY.

    Args:
        source: ws, rest or historical.
        landed_at_micros: Unix microseconds.
        connection, tape_segment, tape_offset: where the feed and the tape hold them, for ws.
    """

    def __init__(
        self,
        source: str,
        landed_at_micros: int,
        connection: int | None = None,
        tape_segment: int | None = None,
        tape_offset: int | None = None,
    ) -> None:
        self._connection = connection
        self._common = (
            _BIGINT(8, landed_at_micros - POSTGRES_EPOCH_MICROS)
            + text_field(source)
            + b"".join(
                NULL if value is None else _BIGINT(8, value)
                for value in (connection, tape_segment, tape_offset)
            )
        )

    def encode(self, trade: TradeValues, received_at_micros: int, seq: int | None = None) -> bytes:
        """One row; `seq` is the number on the subscription, for ws.

        Raises:
            ValueError: trade_id is not a UUID.
        """
        try:
            trade_id = bytes.fromhex(trade.trade_id.replace("-", ""))
        except ValueError:
            trade_id = b""
        if len(trade_id) != 16:
            raise ValueError(f"trade_id {trade.trade_id!r} is not a UUID")
        traded_at = trade.traded_at_micros
        repeated = _repeated(trade.is_block_trade, trade.taker_side, trade.market_ticker)
        varying = (
            len(COLUMNS),
            8,
            received_at_micros - POSTGRES_EPOCH_MICROS,
            8,
            traded_at - POSTGRES_EPOCH_MICROS,
            4,
            traded_at // _MICROS_PER_DAY - _POSTGRES_EPOCH_DAYS,
            8,
            trade.count_centis,
            4,
            trade.yes_price_micros,
            16,
            trade_id,
            1,
            trade.exact_time,
        )
        if seq is None or self._connection is None:
            return _VARYING(*varying) + _NO_PLACE + repeated + self._common
        feed_order = self._connection << 32 | seq
        return _VARYING_FED(*varying, 8, seq, 8, feed_order) + repeated + self._common


_NO_PLACE = NULL * 2


@lru_cache(maxsize=1 << 17)
def _repeated(is_block_trade: bool | None, taker_side: str, market_ticker: str) -> bytes:
    block = NULL if is_block_trade is None else _BOOLEAN(1, is_block_trade)
    return block + text_field(taker_side) + text_field(market_ticker)


def ensure_trade_partitions(
    connection: psycopg.Connection, trades: Sequence[TradeValues], landed_at: datetime
) -> None:
    """Partitions for the days of these trades and of their landing; cheap once they exist."""
    days = {trade.traded_at_micros // _MICROS_PER_DAY for trade in trades}
    ensure_partitions(
        connection,
        [(_EPOCH + timedelta(days=day)).date() for day in sorted(days)],
        only=[tables.trades],
    )
    ensure_partitions(connection, [landed_at.date()], only=[tables.raw_trades])


def merge_trades(connection: psycopg.Connection, rows: Sequence[bytes]) -> Landed:
    """Land encoded rows in `raw_trades` and merge them into `trades`; the caller commits.

    Every candle minute that an added or changed trade touches goes to `stale_candles`.
    """
    connection.execute(_MAKE_LANDING)
    copy_binary(connection, "landing_trades", COLUMNS, rows)
    connection.execute(_KEEP_RAW)
    counts = connection.execute(_MERGE).fetchone()
    connection.execute("TRUNCATE landing_trades")
    assert counts is not None, "an aggregate without GROUP BY has one row"
    return Landed(len(rows), *counts)


def _landing_ddl() -> str:
    """The landing table holds the columns of both tables, typed as they are."""
    known = {column.name: column for table in _BOTH for column in table.columns}
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = ", ".join(f"{name} {known[name].type.compile(dialect)}" for name in COLUMNS)
    return f"CREATE TEMP TABLE IF NOT EXISTS landing_trades ({columns})"


_BOTH: tuple[Table, Table] = (tables.raw_trades, tables.trades)
_MAKE_LANDING = _landing_ddl()
_RAW = ", ".join(column.name for column in tables.raw_trades.columns)
_KEEP_RAW = f"INSERT INTO raw_trades ({_RAW}) SELECT {_RAW} FROM landing_trades"  # noqa: S608
_TRADES = ", ".join(column.name for column in tables.trades.columns)
# Rows go in by key order, which halves the cost of the index; a key twice in one batch would stop
# ON CONFLICT DO UPDATE, so the batch is made distinct first.
_MERGE = f"""
WITH merged AS (
    INSERT INTO trades AS held ({_TRADES})
    SELECT DISTINCT ON (traded_on, trade_id) {_TRADES}
    FROM landing_trades
    ORDER BY traded_on, trade_id, exact_time DESC, feed_order
    ON CONFLICT (traded_on, trade_id) DO UPDATE SET
        traded_at = CASE WHEN held.exact_time THEN held.traded_at ELSE excluded.traded_at END,
        exact_time = held.exact_time OR excluded.exact_time,
        feed_order = least(held.feed_order, excluded.feed_order),
        is_block_trade = coalesce(held.is_block_trade, excluded.is_block_trade)
    WHERE excluded.exact_time AND NOT held.exact_time
       OR excluded.feed_order < held.feed_order
       OR held.feed_order IS NULL AND excluded.feed_order IS NOT NULL
       OR held.is_block_trade IS NULL AND excluded.is_block_trade IS NOT NULL
    RETURNING new.market_ticker, new.traded_at, old.trade_id IS NULL AS added
), stale AS (
    INSERT INTO stale_candles (starts_at, market_ticker)
    SELECT DISTINCT date_trunc('minute', traded_at), market_ticker FROM merged
)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM merged
"""  # noqa: S608
