"""The quote that stood when an interval began, as part of its candle; and what was lost since.

A candle's bid and ask are those of its interval's quotes and of the one standing at the start: the
last with quoted_at <= starts_at. It is looked up in `quotes`, so that no candle depends on another;
where those quotes have been dropped, in the daily candles, which hold the last one of each day.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Date,
    FromClause,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.sql.selectable import LateralFromClause

from kalshi_platform.storage import tables
from kalshi_platform.transform.candles import COLUMNS, KEY, PRICES, QUOTED, SIDES, TRADED, Interval

ALL_MARKETS = "*"
"""Stands in `stale_candles` for every market: gaps of all begin in the minute."""
TICKER_CHANNEL: ColumnElement[str] = literal_column("'ticker'")
_TOLD = ("quoted_at", "yes_bid_micros", "yes_ask_micros", "open_interest_centis")
_ONE: ColumnElement[int] = literal_column("1")


def with_standing(candles: FromClause, interval: Interval, *, any_day: bool = False) -> Select[Any]:
    """Candles as stored: with the quote that stood, and whether quotes were lost since.

    Args:
        candles: source with KEY, TRADED and QUOTED but quote_gap, of the interval's own quotes.
        interval: the candles' own.
        any_day: they may lie anywhere in a day whose quotes are only in the archive, and other days
            around it: then the minutes before are asked, too.

    Returns:
        A query of COLUMNS.
    """
    held = _last_quote(candles)
    stood: dict[str, ColumnElement[Any]]
    if any_day:
        asked = or_(held.c.quoted_at.is_(None), _is_dropped_since(held, candles))
        minute = _last_minute(candles, asked)
        told = _last_of_earlier_day(candles, asked)
        source = candles.outerjoin(held, true()).outerjoin(minute, true()).outerjoin(told, true())
        newest = func.greatest(held.c.quoted_at, minute.c.quoted_at, told.c.quoted_at)
        known = [(each.c.quoted_at == newest, each) for each in (held, minute, told)]
        stood = {name: case(*((is_it, each.c[name]) for is_it, each in known)) for name in _TOLD}
    else:
        told = _last_of_earlier_day(candles, held.c.quoted_at.is_(None))
        source = candles.outerjoin(held, true()).outerjoin(told, true())
        stood = {name: func.coalesce(held.c[name], told.c[name]) for name in _TOLD}
    columns: dict[str, ColumnElement[Any]] = {
        name: candles.c[name] for name in (*KEY, *TRADED, "quote_count")
    }
    for side in SIDES:
        names = [f"{side}_{price}" for price in PRICES]
        opens, highs, lows, closes = (candles.c[name] for name in names)
        price = stood[f"{side}_micros"]
        values = (
            func.coalesce(price, opens),
            func.greatest(price, highs),
            func.least(price, lows),
            func.coalesce(closes, price),
        )
        columns |= zip(names, values, strict=True)
    for name in ("open_interest_centis", "quoted_at"):
        columns[name] = func.coalesce(candles.c[name], stood[name])
    # Where nothing stood, a gap before the first quote may have swallowed one.
    known_since = func.coalesce(stood["quoted_at"], candles.c.starts_at)
    columns["quote_gap"] = lost_since(known_since, candles, interval)
    return select(*(columns[name].label(name) for name in COLUMNS)).select_from(source)


def without_quotes(candles: FromClause) -> Select[Any]:
    """Candles as stored where no quote is known, from a source with KEY and TRADED."""
    none: dict[str, ColumnElement[Any]] = {
        "quote_count": literal_column("0"),
        "quote_gap": literal_column("false"),
    }
    stored = tables.candles_1m
    quoted = (cast(none.get(name, null()), stored.c[name].type).label(name) for name in QUOTED)
    return select(*(candles.c[name] for name in (*KEY, *TRADED)), *quoted)


def lost_since(
    instant: ColumnElement[Any], candles: FromClause, interval: Interval
) -> ColumnElement[bool]:
    """Whether quotes may have been lost after `instant` and before the candle's end; else false."""
    gaps = tables.gaps
    # The gap that reaches furthest, of those that begin in time: the index of ends begins with it.
    reach = (
        select(gaps.c.ends_at)
        .where(
            gaps.c.channel == TICKER_CHANNEL,
            gaps.c.starts_at < candles.c.starts_at + interval.width,
            or_(gaps.c.market_ticker.is_(None), gaps.c.market_ticker == candles.c.market_ticker),
        )
        .order_by(gaps.c.ends_at.desc())
        .limit(_ONE)
        .correlate(candles)
        .scalar_subquery()
    )
    return func.coalesce(reach > instant, literal_column("false"))


def later_minutes(changed: FromClause) -> Select[Any]:
    """The stored minutes after a changed one that the same quotes or gaps touch.

    A quote stands until the market's next one, and what a gap lost, until the next one after it.

    Args:
        changed: source of market_ticker and starts_at, minutes in which quotes may have come, and
            lost_until: where the gaps end that begin in it; null if none does.

    Returns:
        A query of KEY; may repeat.
    """
    quotes, minutes = tables.quotes, tables.candles_1m
    width = Interval.ONE_MINUTE.width
    own = quotes.c.market_ticker == changed.c.market_ticker
    quoted = exists().where(
        own,
        quotes.c.quoted_at >= changed.c.starts_at,
        quotes.c.quoted_at < changed.c.starts_at + width,
    )
    after = func.greatest(changed.c.starts_at + width, changed.c.lost_until)
    renewed = (
        select(quotes.c.quoted_at)
        .where(own, quotes.c.quoted_at >= after)
        .order_by(quotes.c.quoted_at)
        .limit(_ONE)
        .lateral("renewed")
    )
    until = func.coalesce(renewed.c.quoted_at, literal_column("timestamptz 'infinity'"))
    # The OFFSET keeps the planner from anything but an index lookup for each minute.
    later = (
        select(minutes.c.starts_at)
        .where(
            minutes.c.market_ticker == changed.c.market_ticker,
            minutes.c.starts_at > changed.c.starts_at,
            minutes.c.starts_at <= until,
        )
        .offset(literal_column("0"))
        .lateral("later")
    )
    return (
        select(changed.c.market_ticker, later.c.starts_at)
        .select_from(changed.outerjoin(renewed, true()).join(later, true()))
        .where(or_(quoted, changed.c.lost_until.is_not(None)))
    )


def _last_quote(candles: FromClause) -> LateralFromClause:
    """The last quote at or before the start of each candle."""
    quotes = tables.quotes
    return (
        select(
            quotes.c.quoted_at,
            quotes.c.yes_bid_micros,
            quotes.c.yes_ask_micros,
            quotes.c.open_interest_centis,
        )
        .where(
            quotes.c.market_ticker == candles.c.market_ticker,
            quotes.c.quoted_at <= candles.c.starts_at,
        )
        .order_by(quotes.c.quoted_at.desc(), quotes.c.feed_order.desc())
        .limit(_ONE)
        .lateral("held")
    )


def _last_of_earlier_day(candles: FromClause, asked: ColumnElement[bool]) -> LateralFromClause:
    """What the last daily candle before knows."""
    days = tables.candles_1d.alias("told_days")
    before = days.c.starts_at < Interval.ONE_DAY.start_of(candles.c.starts_at)
    return _last_told(days, candles, asked, before).lateral("told")


def _last_minute(candles: FromClause, asked: ColumnElement[bool]) -> LateralFromClause:
    """What the last minute before knows, of the same day."""
    minutes = tables.candles_1m.alias("told_minutes")
    before = and_(
        minutes.c.starts_at >= Interval.ONE_DAY.start_of(candles.c.starts_at),
        minutes.c.starts_at < candles.c.starts_at,
    )
    return _last_told(minutes, candles, asked, before).lateral("minute")


def _last_told(
    stored: FromClause,
    candles: FromClause,
    asked: ColumnElement[bool],
    before: ColumnElement[bool],
) -> Select[Any]:
    return (
        select(
            stored.c.quoted_at,
            stored.c.yes_bid_close_micros.label("yes_bid_micros"),
            stored.c.yes_ask_close_micros.label("yes_ask_micros"),
            stored.c.open_interest_centis,
        )
        .where(
            asked,
            stored.c.market_ticker == candles.c.market_ticker,
            before,
            stored.c.quoted_at.is_not(None),
        )
        .order_by(stored.c.starts_at.desc())
        .limit(_ONE)
    )


def _is_dropped_since(held: FromClause, candles: FromClause) -> ColumnElement[bool]:
    """Whether quotes after the one that is held, up to the candle, are only in the archive."""
    archives = tables.archives
    return exists().where(
        archives.c.table_name == literal_column("'quotes'"),
        archives.c.dropped_at.is_not(None),
        archives.c.day >= _utc_day(held.c.quoted_at),
        archives.c.day <= _utc_day(candles.c.starts_at),
    )


def _utc_day(instant: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.timezone(literal_column("'UTC'"), instant), Date)
