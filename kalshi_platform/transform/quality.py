"""What must hold for one UTC day of trades and candles, as queries; each name states the truth.

Every query returns one row: `passed`, then figures that say how far from the truth the day is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Label,
    Select,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    types,
)

from kalshi_platform.storage import tables
from kalshi_platform.transform.candles import COLUMNS, PRICES, TRADED, Interval, traded_minutes


@dataclass(frozen=True)
class Check:
    """A truth about a day.

    Attributes:
        name: the truth it states.
        description: one sentence for the operator.
        query: makes, for a day, a query of one row: passed, then the details by name.
    """

    name: str
    description: str
    query: Callable[[date], Select[Any]]


def trade_ids_unique(day: date) -> Select[Any]:
    """Whether no trade of the day is also held under a neighbouring day.

    Within a day the primary key sees to it; a trade that REST dates across midnight could be twice.
    """
    trades = tables.trades
    other = trades.alias("other")
    beside = other.c.traded_on.in_([day - timedelta(days=1), day + timedelta(days=1)])
    # Only trades near midnight can have a second date: seconds, generously a minute.
    start, end = day_window(day)
    margin = timedelta(minutes=1)
    twice = (
        select(trades.c.trade_id)
        .join(other, and_(trades.c.trade_id == other.c.trade_id, beside))
        .where(
            trades.c.traded_on == day,
            or_(trades.c.traded_at < start + margin, trades.c.traded_at >= end - margin),
        )
        .subquery()
    )
    count = select(func.count()).select_from(twice).scalar_subquery()
    return select((count == 0).label("passed"), count.label("duplicates"))


def prices_in_range(day: date) -> Select[Any]:
    """Whether every trade has a price in (0, 1] dollar, a count above 0, and lies in its day."""
    trades = tables.trades
    start, end = day_window(day)
    price = _count_where(~trades.c.yes_price_micros.between(1, 1_000_000))
    count = _count_where(trades.c.count_centis <= 0)
    misplaced = _count_where(or_(trades.c.traded_at < start, trades.c.traded_at >= end))
    return select(
        and_(price == 0, count == 0, misplaced == 0).label("passed"),
        price.label("prices_out_of_range"),
        count.label("counts_not_positive"),
        misplaced.label("outside_the_day"),
        func.count().label("trades"),
    ).where(trades.c.traded_on == day)


def volume_kept(day: date) -> Select[Any]:
    """Whether minutes, hours and days hold the same volume, notional, trade and quote counts."""
    sums = [_totals(interval.table, day).subquery(interval.label) for interval in Interval]
    equal = and_(*(one.c[name] == other.c[name] for one, other in pairwise(sums) for name in _KEPT))
    figures: list[Label[Any]] = [equal.label("passed")]
    for interval, total in zip(Interval, sums, strict=True):
        figures += [
            total.c.volume_centis.label(f"volume_centis_{interval.label}"),
            total.c.trade_count.label(f"trades_{interval.label}"),
            total.c.quote_count.label(f"quotes_{interval.label}"),
        ]
    minutes, hours, days = sums  # one row each, side by side
    return select(*figures).select_from(minutes.join(hours, true()).join(days, true()))


def candles_equal_trades(day: date) -> Select[Any]:
    """Whether the day's stored minutes say of trades what its trades say, stale ones left aside.

    Every market is compared by its day's totals, highest and lowest price; candle by candle are
    compared all markets of a small day, and a fixed sample of a large one's.
    """
    totals = _differing_markets(day)
    candles = _differing_candles(day)
    return select(
        and_(totals == 0, candles == 0).label("passed"),
        totals.label("markets_with_other_totals"),
        candles.label("candles_that_differ"),
        _sampling(day).label("one_market_in"),
        _stale_count(day).label("stale_minutes"),
    )


def no_open_gap(day: date) -> Select[Any]:
    """Whether no interval of the day waits to be healed."""
    gaps = tables.gaps
    start, end = day_window(day)
    seconds = func.extract(
        "epoch", func.least(gaps.c.ends_at, end) - func.greatest(gaps.c.starts_at, start)
    )
    return select(
        (func.count() == 0).label("passed"),
        func.count().label("open_gaps"),
        cast(func.coalesce(func.ceil(func.sum(seconds)), 0), types.BigInteger).label(
            "open_seconds"
        ),
    ).where(
        gaps.c.channel == "trade",
        gaps.c.status == "open",
        gaps.c.starts_at < end,
        gaps.c.ends_at > start,
    )


def ties_decided(day: date) -> Select[Any]:
    """Whether the feed's order settles every open and close that several prices could have been.

    Trades of one instant that only REST reported stand in the order of their ids, which says
    nothing about time; a minute that opens or closes with such a tie is counted here.
    """
    trades = tables.trades
    tie = trades.alias("tie")
    unordered = trades.alias("unordered")
    instants = (
        select(tie.c.market_ticker, tie.c.traded_at)
        .where(
            tie.c.traded_on == day,
            exists().where(
                unordered.c.traded_on == day,
                unordered.c.feed_order.is_(None),
                unordered.c.market_ticker == tie.c.market_ticker,
                unordered.c.traded_at == tie.c.traded_at,
            ),
        )
        .group_by(tie.c.market_ticker, tie.c.traded_at)
        .having(func.min(tie.c.yes_price_micros) < func.max(tie.c.yes_price_micros))
        .subquery("ties")
    )
    minute = Interval.ONE_MINUTE.start_of(instants.c.traded_at)
    same_market = and_(
        trades.c.traded_on == day, trades.c.market_ticker == instants.c.market_ticker
    )
    earlier = exists().where(
        same_market, trades.c.traded_at >= minute, trades.c.traded_at < instants.c.traded_at
    )
    later = exists().where(
        same_market,
        trades.c.traded_at > instants.c.traded_at,
        trades.c.traded_at < minute + Interval.ONE_MINUTE.width,
    )
    opens, closes = func.count().filter(~earlier), func.count().filter(~later)
    return select(
        and_(opens == 0, closes == 0).label("passed"),
        opens.label("opens_undecided"),
        closes.label("closes_undecided"),
    ).select_from(instants)


CHECKS = (
    Check("trade_ids_unique", "No trade is held twice.", trade_ids_unique),
    Check("prices_in_range", "Prices are within (0, 1] dollar, counts above 0.", prices_in_range),
    Check("volume_kept", "Minutes, hours and days hold the same volume.", volume_kept),
    Check("candles_equal_trades", "Stored candles are what the trades say.", candles_equal_trades),
    Check("no_open_gap", "No interval of the trade feed waits to be healed.", no_open_gap),
    Check("ties_decided", "The feed's order settles every open and close.", ties_decided),
)

_KEPT = ("volume_centis", "notional_micro_centis", "trade_count", "quote_count")

# Trades that are compared candle by candle, about: some seconds of work.
_COMPARED_TRADES = 500_000


def _differing_markets(day: date) -> ColumnElement[int]:
    """How many markets have other totals in their candles than in their trades."""
    trades, candles = _fresh_trades(day), _fresh_candles(day)
    price, count = trades.c.yes_price_micros, trades.c.count_centis
    of_trades = (
        select(
            trades.c.market_ticker,
            func.count().label("trade_count"),
            func.sum(count).label("volume"),
            func.sum(cast(price, types.BigInteger) * count).label("notional"),
            func.max(price).label("high"),
            func.min(price).label("low"),
        )
        .group_by(trades.c.market_ticker)
        .subquery("of_trades")
    )
    of_candles = (
        select(
            candles.c.market_ticker,
            func.sum(candles.c.trade_count).label("trade_count"),
            func.sum(candles.c.volume_centis).label("volume"),
            func.sum(candles.c.notional_micro_centis).label("notional"),
            func.max(candles.c.high_micros).label("high"),
            func.min(candles.c.low_micros).label("low"),
        )
        .group_by(candles.c.market_ticker)
        .subquery("of_candles")
    )
    return differences(of_trades, of_candles, ["market_ticker"], of_trades.c.keys()[1:])


def _differing_candles(day: date) -> ColumnElement[int]:
    """How many candles of the sampled markets are missing, superfluous or unlike their trades.

    A minute that was quoted alone is like no trade.
    """
    trades, candles = _fresh_trades(day), _fresh_candles(day)
    sampled = select(trades).where(_is_sampled(trades.c.market_ticker, day)).subquery("sampled")
    expected = traded_minutes(sampled).subquery("expected")
    stored = select(candles).where(_is_sampled(candles.c.market_ticker, day)).subquery("stored")
    return differences(expected, stored, ["market_ticker", "starts_at"], list(TRADED))


def differences(
    one: FromClause, other: FromClause, key: list[str], values: list[str]
) -> ColumnElement[int]:
    """How many rows are in one source alone, or differ in a value; `key` names a row in both."""
    same = and_(*(one.c[name] == other.c[name] for name in key))
    unlike = or_(*(one.c[name].is_distinct_from(other.c[name]) for name in values))
    joined = one.join(other, same, full=True)
    return select(func.count()).select_from(joined).where(unlike).scalar_subquery()


def _fresh_trades(day: date) -> FromClause:
    trades, stale = tables.trades, tables.stale_candles
    minute = Interval.ONE_MINUTE.start_of(trades.c.traded_at)
    listed = exists().where(
        stale.c.market_ticker == trades.c.market_ticker, stale.c.starts_at == minute
    )
    return select(trades).where(trades.c.traded_on == day, ~listed).subquery("fresh_trades")


def _fresh_candles(day: date) -> FromClause:
    candles, stale = tables.candles_1m, tables.stale_candles
    listed = exists().where(
        stale.c.market_ticker == candles.c.market_ticker, stale.c.starts_at == candles.c.starts_at
    )
    rows = select(*(candles.c[name] for name in COLUMNS)).where(_has_trades(candles))
    return rows.where(_in_day(candles.c.starts_at, day), ~listed).subquery("fresh_candles")


def _has_trades(candles: FromClause) -> ColumnElement[bool]:
    # Any sign of one: a wrong count of 0 beside prices is a difference, too.
    signs = (candles.c[name].is_not(None) for name in PRICES)
    return or_(*signs, *(candles.c[name] != 0 for name in TRADED if name not in PRICES))


def _stale_count(day: date) -> ColumnElement[int]:
    stale = tables.stale_candles
    minutes = func.count(tuple_(stale.c.market_ticker, stale.c.starts_at).distinct())
    return select(minutes).where(_in_day(stale.c.starts_at, day)).scalar_subquery()


def _is_sampled(market_ticker: ColumnElement[Any], day: date) -> ColumnElement[bool]:
    return func.mod(func.hashtext(market_ticker), _sampling(day)) == 0


def _sampling(day: date) -> ColumnElement[int]:
    """One market in so many is compared candle by candle."""
    candles = tables.candles_1d
    count = func.coalesce(func.sum(candles.c.trade_count), 0)
    query = select(
        cast(func.ceil((count + 1) / literal(_COMPARED_TRADES, types.Numeric)), types.Integer)
    )
    return query.where(_in_day(candles.c.starts_at, day)).scalar_subquery()


def _totals(candles: FromClause, day: date) -> Select[Any]:
    sums = (func.coalesce(func.sum(candles.c[name]), 0).label(name) for name in _KEPT)
    return select(*sums).where(_in_day(candles.c.starts_at, day))


def _count_where(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _in_day(instant: ColumnElement[Any], day: date) -> ColumnElement[bool]:
    start, end = day_window(day)
    return and_(instant >= start, instant < end)


def day_window(day: date) -> tuple[datetime, datetime]:
    """First instant of the UTC day and of the next."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)
