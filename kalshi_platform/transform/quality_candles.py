"""What must hold for one UTC day of candles with bid, ask and open interest, as queries.

In the manner of `quality.py`: every query returns one row, `passed`, then figures.
"""

from datetime import date
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    and_,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    types,
)

from kalshi_platform.storage import tables
from kalshi_platform.transform.candles import (
    COLUMNS,
    KEY,
    QUOTED,
    SIDES,
    Interval,
    minutes_of,
    quoted_minutes,
    roll_up,
    traded_minutes,
)
from kalshi_platform.transform.quality import Check, day_window, differences
from kalshi_platform.transform.standing import ALL_MARKETS, with_standing

# Trades and quotes that are compared, about: some seconds of work.
_COMPARED = 500_000


def candles_equal_quotes(day: date) -> Select[Any]:
    """Whether bid, ask and open interest of the day's candles are what its quotes say.

    All markets of a small day are compared candle by candle, a fixed sample of a large one's; what
    follows a stale minute of its market is left aside, and so is a day whose quotes were dropped.
    """
    counts = {interval.label: _unlike_quotes(interval, day) for interval in Interval}
    return select(
        and_(*(count == 0 for count in counts.values())).label("passed"),
        *(count.label(f"candles_that_differ_{label}") for label, count in counts.items()),
        _sampling(day).label("one_market_in"),
    )


def candles_in_order(day: date) -> Select[Any]:
    """Whether highs and lows bound opens and closes, and no bid is above its ask.

    A bid above its ask counts only where no quote was lost.
    """
    parts = []
    for interval in Interval:
        candles = interval.table
        sides = ["", *(f"{side}_" for side in SIDES)]
        unbound = or_(*(_is_unbound(candles, prefix) for prefix in sides))
        crossed = and_(
            ~candles.c.quote_gap,
            or_(
                *(
                    candles.c[f"yes_bid_{name}_micros"] > candles.c[f"yes_ask_{name}_micros"]
                    for name in ("open", "close")
                )
            ),
        )
        start, end = day_window(day)
        parts.append(
            select(
                func.count().filter(unbound).label("unbound"),
                func.count().filter(crossed).label("crossed"),
            )
            .where(candles.c.starts_at >= start, candles.c.starts_at < end)
            .subquery(f"of_{interval.label}")
        )
    minutes, hours, days = parts
    unbound = minutes.c.unbound + hours.c.unbound + days.c.unbound
    crossed = minutes.c.crossed + hours.c.crossed + days.c.crossed
    return select(
        and_(unbound == 0, crossed == 0).label("passed"),
        unbound.label("outside_high_and_low"),
        crossed.label("bid_above_ask"),
    ).select_from(minutes.join(hours, true()).join(days, true()))


CHECKS = (
    Check(
        "candles_equal_quotes",
        "Bid, ask and open interest of stored candles are what the quotes say.",
        candles_equal_quotes,
    ),
    Check(
        "candles_in_order",
        "Low <= open, close <= high; bid <= ask where no quote was lost.",
        candles_in_order,
    ),
)


def _unlike_quotes(interval: Interval, day: date) -> ColumnElement[int]:
    markets = _sampled_markets(day)
    stored = _of_markets(interval.table, interval.table.c.starts_at, markets, day)
    if interval.finer is None:
        trades, quotes = tables.trades, tables.quotes
        on_day = trades.c.traded_on == day
        traded = traded_minutes(_of_markets(trades, trades.c.traded_at, markets, day, on_day))
        quoted = quoted_minutes(_of_markets(quotes, quotes.c.quoted_at, markets, day))
        own = minutes_of(traded.subquery("traded"), quoted.subquery("quoted"))
    else:
        finer = interval.finer.table
        own = roll_up(_of_markets(finer, finer.c.starts_at, markets, day), interval)
    right = with_standing(own.subquery("own"), interval).subquery("right_candles")
    return differences(
        _settled(right, interval), _settled(stored, interval), list(KEY), list(QUOTED)
    )


def _settled(candles: FromClause, interval: Interval) -> Subquery:
    """Those that no stale minute of their market can still change."""
    stale = tables.stale_candles
    pending = exists().where(
        stale.c.market_ticker.in_([candles.c.market_ticker, literal_column(f"'{ALL_MARKETS}'")]),
        stale.c.starts_at < candles.c.starts_at + interval.width,
    )
    return select(*(candles.c[name] for name in COLUMNS)).where(~pending).subquery()


def _of_markets(
    source: Any, instant: ColumnElement[Any], markets: Subquery, day: date, *conditions: Any
) -> Subquery:
    start, end = day_window(day)
    # The OFFSET keeps the planner from anything but an index lookup for each market.
    rows = (
        select(source)
        .where(
            source.c.market_ticker == markets.c.market_ticker,
            instant >= start,
            instant < end,
            *conditions,
        )
        .offset(literal_column("0"))
        .lateral("rows_of_market")
    )
    return select(*rows.c).select_from(markets.join(rows, true())).subquery()


def _sampled_markets(day: date) -> Subquery:
    days = tables.candles_1d
    start, end = day_window(day)
    held = func.to_regclass(f"quotes_{day:%Y%m%d}").is_not(None)
    drawn = func.mod(func.hashtext(days.c.market_ticker), _sampling(day)) == 0
    return (
        select(days.c.market_ticker)
        .where(days.c.starts_at >= start, days.c.starts_at < end, held, drawn)
        .subquery("sampled_markets")
    )


def _sampling(day: date) -> ColumnElement[int]:
    """One market in so many is compared candle by candle."""
    days = tables.candles_1d
    start, end = day_window(day)
    count = func.coalesce(func.sum(days.c.trade_count + days.c.quote_count), 0)
    query = select(cast(func.ceil((count + 1) / literal(_COMPARED, types.Numeric)), types.Integer))
    return query.where(days.c.starts_at >= start, days.c.starts_at < end).scalar_subquery()


def _is_unbound(candles: FromClause, prefix: str) -> ColumnElement[bool]:
    opens, highs, lows, closes = (
        candles.c[f"{prefix}{name}_micros"] for name in ("open", "high", "low", "close")
    )
    return or_(opens > highs, closes > highs, opens < lows, closes < lows)
