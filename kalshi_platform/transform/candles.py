"""What a candle is, once: set-based SQL over ordered trades, and the roll-up to wider intervals.

The queries take any source with the columns of `trades` (or of a candle table), so that a day's
rebuild, the minutes that changed and one market's newest minutes are folded by the same words.
Every trade counts, block trades too. Nothing here is particular to one engine but the spelling of
"the first of an ordered list", of rounding an instant down, and of hashing a text.
"""

from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from kalshi_platform.storage import tables

# What a candle says of its interval; with market_ticker and starts_at, a row of a candle table.
MEASURES = (
    "open_micros",
    "high_micros",
    "low_micros",
    "close_micros",
    "volume_centis",
    "notional_micro_centis",
    "trade_count",
)
COLUMNS = ("market_ticker", "starts_at", *MEASURES)

_FIRST: ColumnElement[int] = literal_column("1", Integer)


class Interval(Enum):
    """Width of a candle; each divides the next, and all divide a UTC day."""

    ONE_MINUTE = ("1m", 60, tables.candles_1m)
    ONE_HOUR = ("1h", 3600, tables.candles_1h)
    ONE_DAY = ("1d", 86_400, tables.candles_1d)

    def __init__(self, label: str, seconds: int, table: Table) -> None:
        self.label = label
        self.seconds = seconds
        self.table = table

    @classmethod
    def labelled(cls, label: str) -> "Interval":
        """The interval called `label`; ValueError names the choices."""
        for interval in cls:
            if interval.label == label:
                return interval
        raise ValueError(f"{label!r} is no interval; one of {[each.label for each in cls]} is.")

    @property
    def finer(self) -> "Interval | None":
        """The interval this one rolls up from; None for the one made of trades."""
        order = list(Interval)
        position = order.index(self)
        return order[position - 1] if position else None

    @property
    def width(self) -> ColumnElement[Any]:
        """The width as an SQL interval."""
        return literal_column(f"interval '{self.seconds} seconds'")

    def start_of(self, instant: ColumnElement[Any]) -> ColumnElement[Any]:
        """Start of the interval that holds `instant`; the session's time zone plays no part."""
        return func.date_bin(
            self.width, instant, literal_column("timestamptz '2000-01-01 00:00:00+00'")
        )


def candles_from_trades(trades: FromClause) -> Select[Any]:
    """One-minute candles of `trades`, one row per market_ticker and starts_at that saw a trade.

    Args:
        trades: source with the columns of the table `trades`; holds either all or none of the
            trades of a market's minute.

    Returns:
        A query of COLUMNS: prices in micros, volume in centis, notional in micro-centis.
    """
    price, count = trades.c.yes_price_micros, trades.c.count_centis
    # Trades may share one traded_at: the feed's order, then trade_id, settle who was first, the
    # same on every rebuild. One sorted list answers both open and close, so it is sorted once.
    prices = _listed(price, trades.c.traded_at, trades.c.feed_order.nulls_last(), trades.c.trade_id)
    starts_at = Interval.ONE_MINUTE.start_of(trades.c.traded_at)
    return select(
        trades.c.market_ticker,
        starts_at.label("starts_at"),
        prices[_FIRST].label("open_micros"),
        func.max(price).label("high_micros"),
        func.min(price).label("low_micros"),
        prices[func.count()].label("close_micros"),
        _sum(count, BigInteger).label("volume_centis"),
        _sum(cast(price, BigInteger) * count, BigInteger).label("notional_micro_centis"),
        cast(func.count(), Integer).label("trade_count"),
    ).group_by(_sort_key(trades.c.market_ticker, starts_at), trades.c.market_ticker, starts_at)


def roll_up(finer: FromClause, interval: Interval) -> Select[Any]:
    """Candles of `interval` from those of a finer one that divides it, as a query of COLUMNS.

    Args:
        finer: source with COLUMNS; holds either all or none of the candles of a market's interval.
        interval: ONE_HOUR or ONE_DAY.
    """
    # Candles of one market never share a starts_at, so the order needs no second key.
    opens = _listed(finer.c.open_micros, finer.c.starts_at)
    closes = _listed(finer.c.close_micros, finer.c.starts_at)
    starts_at = interval.start_of(finer.c.starts_at)
    return select(
        finer.c.market_ticker,
        starts_at.label("starts_at"),
        opens[_FIRST].label("open_micros"),
        func.max(finer.c.high_micros).label("high_micros"),
        func.min(finer.c.low_micros).label("low_micros"),
        closes[func.count()].label("close_micros"),
        _sum(finer.c.volume_centis, BigInteger).label("volume_centis"),
        _sum(finer.c.notional_micro_centis, BigInteger).label("notional_micro_centis"),
        _sum(finer.c.trade_count, Integer).label("trade_count"),
    ).group_by(_sort_key(finer.c.market_ticker, starts_at), finer.c.market_ticker, starts_at)


def _sort_key(ticker: ColumnElement[str], starts_at: ColumnElement[Any]) -> ColumnElement[int]:
    """One integer for a market's interval: a hash of the ticker, then the second it starts.

    It adds nothing to what is grouped, but is compared first: tickers begin alike, and to compare
    them is most of the work of sorting a day. A market's candles stay side by side.
    """
    second = cast(func.date_part(literal_column("'epoch'"), starts_at), BigInteger)
    shift = literal_column(str(2**32), BigInteger)
    return cast(func.hashtext(ticker), BigInteger) * shift + second


def _listed(values: ColumnElement[Any], *order: Any) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(values, *order), type_=ARRAY(Integer))


def _sum(values: ColumnElement[Any], exact: type[Integer]) -> ColumnElement[Any]:
    # PostgreSQL sums bigint to numeric; the total of a market's day fits a bigint with room.
    return cast(func.sum(values), exact)
