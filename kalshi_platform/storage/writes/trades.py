"""Trades: landed as reported in `raw_trades`, merged into `trades`, their candles marked stale.

A merge does not depend on the order of arrival: microseconds win over milliseconds, the earliest
place in the feed wins over later ones (a repeated frame), a stated block flag wins over none.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from struct import Struct
from typing import Any, NamedTuple, Protocol

import numpy as np
import psycopg

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


class ColumnValues(Protocol):
    """Many trades, an element of each column a trade; `exchange.trade_columns` makes them."""

    @property
    def trade_ids(self) -> bytes: ...
    @property
    def market_tickers(self) -> Sequence[str]: ...
    @property
    def yes_price_micros(self) -> Sequence[int]: ...
    @property
    def count_centis(self) -> Sequence[int]: ...
    @property
    def taker_sides(self) -> Sequence[str]: ...
    @property
    def is_block_trade(self) -> Sequence[bool | None]: ...
    @property
    def traded_at_ms(self) -> Sequence[int]: ...


class Landed(NamedTuple):
    """What one batch did."""

    reported: int
    added: int
    changed: int


# Columns as the rows are packed (see storage.bulk): first what differs from trade to trade, then
# what repeats and is remembered, last what the rows of one place of the tape have in common. The
# key of a trade comes first, so that rows sorted as bytes are sorted by it.
_TRADE_COLUMNS = (
    "trade_id",
    "traded_on",
    "traded_at",
    "count_centis",
    "yes_price_micros",
    "exact_time",
    "feed_order",
    "is_block_trade",
    "taker_side",
    "market_ticker",
)
_RAW_COLUMNS = (
    "trade_id",
    "received_at",
    "traded_at",
    "count_centis",
    "yes_price_micros",
    "seq",
    "is_block_trade",
    "taker_side",
    "market_ticker",
    "landed_at",
    "source",
    "connection",
    "tape_segment",
    "tape_offset",
)
_TRADE = Struct(">h i16s ii iq iq ii i?".replace(" ", "")).pack
_RAW = Struct(">h i16s iq iq iq ii".replace(" ", "")).pack
# The same with the number on the subscription, of which the order in the feed is made.
_NUMBERED_TRADE = Struct(">h i16s ii iq iq ii i? iq".replace(" ", "")).pack
_NUMBERED_RAW = Struct(">h i16s iq iq iq ii iq".replace(" ", "")).pack
# The same as a row of numpy's, for many at once.
_TRADE_ROW = np.dtype(
    [
        *(("fields", ">i2"), ("id_length", ">i4"), ("trade_id", "V16")),
        *(("day_length", ">i4"), ("day", ">i4"), ("at_length", ">i4"), ("at", ">i8")),
        *(("count_length", ">i4"), ("count", ">i8"), ("price_length", ">i4"), ("price", ">i4")),
        *(("exact_length", ">i4"), ("exact", "?"), ("order_length", ">i4"), ("order", ">i8")),
    ]
)
_RAW_ROW = np.dtype(
    [
        *(("fields", ">i2"), ("id_length", ">i4"), ("trade_id", "V16")),
        *(("received_length", ">i4"), ("received", ">i8"), ("at_length", ">i4"), ("at", ">i8")),
        *(("count_length", ">i4"), ("count", ">i8"), ("price_length", ">i4"), ("price", ">i4")),
        *(("seq_length", ">i4"), ("seq", ">i8")),
    ]
)
_ANY_TRADE = _NUMBERED_TRADE(10, 16, b"", 4, 0, 8, 0, 8, 0, 4, 0, 1, False, 8, 0)
_ANY_RAW = _NUMBERED_RAW(14, 16, b"", 8, 0, 8, 0, 8, 0, 4, 0, 8, 0)
_STALE = Struct(">hiq").pack
_BOOLEAN = Struct(">i?").pack
_BIGINT = Struct(">iq").pack
_POSTGRES_EPOCH_DAYS = POSTGRES_EPOCH_MICROS // _MICROS_PER_DAY
_MICROS_PER_MINUTE = 60_000_000


class Packed(NamedTuple):
    """Rows of three tables in COPY BINARY."""

    raw: bytes
    trades: bytes
    stale_candles: bytes


class TradeRows:
    """Trades of one source, encoded in COPY BINARY as rows of `raw_trades` and of `trades`.

    Args:
        source: ws, rest or historical.
        landed_at_micros: Unix microseconds.
    """

    def __init__(self, source: str, landed_at_micros: int) -> None:
        self.raw: list[bytes] = []
        self.trades: list[bytes] = []
        self.minutes: set[tuple[str, int]] = set()
        """(market, Unix minute) of every trade: the candles that no longer hold."""
        self._landed = _BIGINT(8, landed_at_micros - POSTGRES_EPOCH_MICROS) + text_field(source)
        self._connection: int | None = None
        self._common = self._landed + NULL * 3

    def place(self, connection: int, tape_segment: int, tape_offset: int) -> None:
        """Where the feed and the tape hold the trades that are added next."""
        self._connection = connection
        place = (connection, tape_segment, tape_offset)
        self._common = self._landed + b"".join(_BIGINT(8, value) for value in place)

    def add(self, trade: TradeValues, received_at_micros: int, seq: int | None = None) -> None:
        """Add one trade; `seq` is its number on the subscription, for ws.

        Raises:
            ValueError: trade_id is not a UUID; nothing was added.
        """
        try:
            trade_id = bytes.fromhex(trade.trade_id.replace("-", ""))
        except ValueError:
            trade_id = b""
        if len(trade_id) != 16:
            raise ValueError(f"trade_id {trade.trade_id!r} is not a UUID")
        traded_at = trade.traded_at_micros
        count, price = trade.count_centis, trade.yes_price_micros
        repeated = _repeated(trade.is_block_trade, trade.taker_side, trade.market_ticker)
        day = traded_at // _MICROS_PER_DAY - _POSTGRES_EPOCH_DAYS
        at = traded_at - POSTGRES_EPOCH_MICROS
        received = received_at_micros - POSTGRES_EPOCH_MICROS
        exact = trade.exact_time
        connection = self._connection
        if seq is None or connection is None:
            row = _TRADE(10, 16, trade_id, 4, day, 8, at, 8, count, 4, price, 1, exact) + NULL
            raw = _RAW(14, 16, trade_id, 8, received, 8, at, 8, count, 4, price) + NULL
        else:
            order = connection << 32 | seq
            row = _NUMBERED_TRADE(
                10, 16, trade_id, 4, day, 8, at, 8, count, 4, price, 1, exact, 8, order
            )
            raw = _NUMBERED_RAW(14, 16, trade_id, 8, received, 8, at, 8, count, 4, price, 8, seq)
        self.trades.append(row + repeated)
        self.raw.append(raw + repeated + self._common)
        self.minutes.add((trade.market_ticker, traded_at // _MICROS_PER_MINUTE))

    def add_columns(
        self, columns: ColumnValues, received_at_micros: Sequence[int], first_seq: int
    ) -> None:
        """Add trades of the feed that have their place and follow each other from `first_seq` on.

        Their times are in milliseconds, so none is exact.
        """
        assert self._connection is not None, "the feed has a place"
        count = len(received_at_micros)
        traded_at = np.array(columns.traded_at_ms, np.int64) * 1000
        seqs = np.arange(first_seq, first_seq + count)
        rows = np.frombuffer(bytearray(_ANY_TRADE * count), _TRADE_ROW)
        raws = np.frombuffer(bytearray(_ANY_RAW * count), _RAW_ROW)
        rows["day"] = traded_at // _MICROS_PER_DAY - _POSTGRES_EPOCH_DAYS
        rows["order"] = self._connection << 32 | seqs
        raws["received"] = np.array(received_at_micros, np.int64) - POSTGRES_EPOCH_MICROS
        raws["seq"] = seqs
        for table in (rows, raws):
            table["trade_id"] = np.frombuffer(columns.trade_ids, "V16")
            table["at"] = traded_at - POSTGRES_EPOCH_MICROS
            table["count"] = columns.count_centis
            table["price"] = columns.yes_price_micros
        repeated = [
            *map(_repeated, columns.is_block_trade, columns.taker_sides, columns.market_tickers)
        ]
        common = self._common
        self.trades += [row + end for row, end in zip(_cut(rows), repeated, strict=True)]
        self.raw += [row + end + common for row, end in zip(_cut(raws), repeated, strict=True)]
        minutes = (traded_at // _MICROS_PER_MINUTE).tolist()
        if min(minutes) == max(minutes):
            # As nearly always: no pair is made twice.
            self.minutes.update((ticker, minutes[0]) for ticker in set(columns.market_tickers))
        else:
            self.minutes.update(zip(columns.market_tickers, minutes, strict=True))

    @cached_property
    def packed(self) -> "Packed":
        """All rows that were added, ready to be sent; nothing is added any more."""
        return Packed(
            b"".join(self.raw),
            # In order of the key: the index is filled from left to right, and two writers who meet
            # wait for each other in the same order.
            b"".join(sorted(self.trades)),
            b"".join(
                _STALE(2, 8, minute * _MICROS_PER_MINUTE - POSTGRES_EPOCH_MICROS)
                + text_field(ticker)
                for ticker, minute in sorted(self.minutes)
            ),
        )

    def __len__(self) -> int:
        return len(self.trades)


def _cut(rows: "np.ndarray[Any, Any]") -> Iterator[bytes]:
    """Each row's bytes."""
    data, width = rows.tobytes(), rows.itemsize
    return (data[start : start + width] for start in range(0, len(data), width))


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


def landing_table(connection: psycopg.Connection) -> str:
    """An empty table of the session, for rows that `merge_landing` takes."""
    connection.execute(_MAKE_LANDING)
    return "landing_trades"


def merge_landing(connection: psycopg.Connection) -> tuple[int, int]:
    """Merge the landing table into `trades` and empty it; rows added and changed."""
    counts = connection.execute(_MERGE).fetchone()
    connection.execute("TRUNCATE landing_trades")
    assert counts is not None, "an aggregate without GROUP BY has one row"
    return counts[0], counts[1]


def merge_trades(connection: psycopg.Connection, rows: TradeRows) -> Landed:
    """Land rows in `raw_trades` and merge them into `trades`; the caller commits.

    Nearly every batch brings nothing but new trades, and COPY takes those at once. Where one is
    known already, or twice in the batch, the batch is merged row by row instead.
    """
    packed = rows.packed
    copy_binary(connection, "raw_trades", _RAW_COLUMNS, [packed.raw])
    try:
        with connection.transaction():
            copy_binary(connection, "trades", _TRADE_COLUMNS, [packed.trades])
        landed = Landed(len(rows), len(rows), 0)
    except psycopg.errors.UniqueViolation:
        copy_binary(connection, landing_table(connection), _TRADE_COLUMNS, [packed.trades])
        landed = Landed(len(rows), *merge_landing(connection))
    copy_binary(connection, "stale_candles", ("starts_at", "market_ticker"), [packed.stale_candles])
    return landed


_MAKE_LANDING = "CREATE TEMP TABLE IF NOT EXISTS landing_trades (LIKE trades)"
_TRADES = ", ".join(_TRADE_COLUMNS)
# A key twice in one batch would stop ON CONFLICT DO UPDATE, so the batch is made distinct first.
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
    RETURNING old.trade_id IS NULL AS added
)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM merged
"""  # noqa: S608
