"""What a candle is, once: set-based SQL over ordered trades and quotes, and the roll-up to wider.

The queries take any source with the columns of `trades` or `quotes` (or of a candle table), so that
a day's rebuild, the minutes that changed and one market's newest minutes are folded by the same
words. Every trade counts, block trades too. What of a candle lies before its interval, the quote
that stood as it began, is put in by `transform.standing`. Nothing here is particular to one engine
but the spelling of "the first of an ordered list", of rounding an instant down, and of hashing a
text.
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
    and_,
    cast,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from kalshi_platform.storage import tables

KEY = ("market_ticker", "starts_at")
PRICES = ("open_micros", "high_micros", "low_micros", "close_micros")
TRADED = (*PRICES, "volume_centis", "notional_micro_centis", "trade_count")
SIDES = ("yes_bid", "yes_ask")
QUOTED = (
    *(f"{side}_{price}" for side in SIDES for price in PRICES),
    "open_interest_centis",
    "quoted_at",
    "quote_count",
    "quote_gap",
)
# What a candle says of its interval; with its key, a row of a candle table.
MEASURES = (*TRADED, *QUOTED)
COLUMNS = (*KEY, *MEASURES)

_FIRST: ColumnElement[int] = literal_column("1", Integer)
_NONE: ColumnElement[int] = literal_column("0", Integer)


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


def traded_minutes(trades: FromClause) -> Select[Any]:
    """What was traded by minute, one row per market_ticker and starts_at that saw a trade.

    Args:
        trades: source with the columns of the table `trades`; holds either all or none of the
            trades of a market's minute.

    Returns:
        A query of KEY and TRADED: prices in micros, volume in centis, notional in micro-centis.
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


def quoted_minutes(quotes: FromClause) -> Select[Any]:
    """What was quoted by minute, one row per market_ticker and starts_at that saw a quote.

    Args:
        quotes: source with the columns of the table `quotes`; holds either all or none of the
            quotes of a market's minute.

    Returns:
        A query of KEY and QUOTED without quote_gap: of the quotes within the minute alone.
    """
    # Quotes may share one millisecond: the feed's order settles which was last.
    order = (quotes.c.quoted_at, quotes.c.feed_order)
    starts_at = Interval.ONE_MINUTE.start_of(quotes.c.quoted_at)
    sides = []
    for side in SIDES:
        price = quotes.c[f"{side}_micros"]
        listed = _listed(price, *order)
        sides += [
            listed[_FIRST].label(f"{side}_open_micros"),
            func.max(price).label(f"{side}_high_micros"),
            func.min(price).label(f"{side}_low_micros"),
            listed[func.count()].label(f"{side}_close_micros"),
        ]
    interest = _listed(quotes.c.open_interest_centis, *order)
    return select(
        quotes.c.market_ticker,
        starts_at.label("starts_at"),
        *sides,
        interest[func.count()].label("open_interest_centis"),
        func.max(quotes.c.quoted_at).label("quoted_at"),
        cast(func.count(), Integer).label("quote_count"),
    ).group_by(_sort_key(quotes.c.market_ticker, starts_at), quotes.c.market_ticker, starts_at)


def minutes_of(traded: FromClause, quoted: FromClause) -> Select[Any]:
    """One row of KEY, TRADED and QUOTED without quote_gap where a trade or a quote happened."""
    key = {name: func.coalesce(traded.c[name], quoted.c[name]) for name in KEY}
    both = traded.join(quoted, _same_key(traded, quoted), full=True)
    return select(
        *(value.label(name) for name, value in key.items()),
        *(traded.c[name] for name in PRICES),
        # Nothing was traded: that is known, and a sum of nothing is 0.
        *(
            func.coalesce(traded.c[name], _NONE).label(name)
            for name in TRADED
            if name not in PRICES
        ),
        *(quoted.c[name] for name in QUOTED[:-2]),
        func.coalesce(quoted.c.quote_count, _NONE).label("quote_count"),
    ).select_from(both)


def roll_up(finer: FromClause, interval: Interval, *, quotes: bool = True) -> Select[Any]:
    """Candles of `interval` from those of a finer one that divides it.

    Args:
        finer: source with COLUMNS; holds either all or none of the candles of a market's interval.
        interval: ONE_HOUR or ONE_DAY.
        quotes: whether its candles know of any quotes.

    Returns:
        A query of KEY and TRADED; where `quotes`, with QUOTED but quote_gap.
    """
    starts_at = interval.start_of(finer.c.starts_at)
    measures = [
        *_rolled(finer, ""),
        _sum(finer.c.volume_centis, BigInteger).label("volume_centis"),
        _sum(finer.c.notional_micro_centis, BigInteger).label("notional_micro_centis"),
        _sum(finer.c.trade_count, Integer).label("trade_count"),
    ]
    if quotes:
        interest = finer.c.open_interest_centis
        known = func.count(interest)
        measures += [
            *_rolled(finer, "yes_bid_"),
            *_rolled(finer, "yes_ask_"),
            _known(interest, finer)[known].label("open_interest_centis"),
            func.max(finer.c.quoted_at).label("quoted_at"),
            _sum(finer.c.quote_count, Integer).label("quote_count"),
        ]
    key = (finer.c.market_ticker, starts_at)
    return select(finer.c.market_ticker, starts_at.label("starts_at"), *measures).group_by(
        _sort_key(*key), *key
    )


def _rolled(finer: FromClause, prefix: str) -> list[ColumnElement[Any]]:
    opens, highs, lows, closes = (finer.c[f"{prefix}{name}"] for name in PRICES)
    return [
        _known(opens, finer)[_FIRST].label(opens.name),
        func.max(highs).label(highs.name),
        func.min(lows).label(lows.name),
        _known(closes, finer)[func.count(closes)].label(closes.name),
    ]


def _known(values: ColumnElement[Any], finer: FromClause) -> ColumnElement[Any]:
    """Those of the values that are known, in order of time.

    Candles of one market never share a starts_at, so the order needs no second key.
    """
    ordered = aggregate_order_by(values, finer.c.starts_at)
    kind = ARRAY(values.type)
    return type_coerce(func.array_agg(ordered, type_=kind).filter(values.is_not(None)), kind)


def _sort_key(ticker: ColumnElement[str], starts_at: ColumnElement[Any]) -> ColumnElement[int]:
    """One integer for a market's interval: a hash of the ticker, then the second it starts.

    It adds nothing to what is grouped, but is compared first: tickers begin alike, and to compare
    them is most of the work of sorting a day. A market's candles stay side by side.
    """
    second = cast(func.date_part(literal_column("'epoch'"), starts_at), BigInteger)
    shift = literal_column(str(2**32), BigInteger)
    return cast(func.hashtext(ticker), BigInteger) * shift + second


def _listed(values: ColumnElement[Any], *order: Any) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(values, *order), type_=ARRAY(values.type))


def _same_key(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in KEY))


def _sum(values: ColumnElement[Any], exact: type[Integer]) -> ColumnElement[Any]:
    # PostgreSQL sums bigint to numeric; the total of a market's day fits a bigint with room.
    return cast(func.sum(values), exact)
