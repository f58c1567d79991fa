"""Candles as they are this instant: the stored ones, and the newest worked out from their trades.

A minute listed in `stale_candles` is not taken from the tables but folded from `trades` again, and
the hours and days that hold one are rolled up again: one statement, so one instant.
"""

from datetime import date, datetime
from functools import cache
from typing import Any

import pandas as pd
import psycopg
from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    FromClause,
    Select,
    Text,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.sql.selectable import CTE, Subquery

from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.candle_records import VWAP_MICROS, Fill, filled, record
from kalshi_platform.storage.statements import compile_statement
from kalshi_platform.transform.candles import COLUMNS, Interval, candles_from_trades, roll_up

_market_ticker = bindparam("market_ticker", type_=Text())
_start = bindparam("start", type_=DateTime(timezone=True))
_end = bindparam("end", type_=DateTime(timezone=True))


@cache
def candle_page_sql(interval: Interval, fill: Fill = Fill.NONE) -> str:
    """One page of a market's candles, oldest first, as JSON text made by the server.

    The text is for psycopg and takes the parameters `market_ticker`, `start`, `end` (aware
    instants; candles that start in [start, end)) and `limit`. The next page starts one interval
    after `last_starts_at`. A filled page has a record for each interval that has begun.

    Returns:
        Text of a query of one row: body (a JSON array), row_count, has_more, last_starts_at (null
        on an empty page).
    """
    window = current_candles_sql(interval)
    if fill is Fill.NONE:
        # One more than asked for tells whether there is a next page.
        rows = f"{window} ORDER BY starts_at LIMIT %(limit)s::int + 1"
    else:
        rows = filled(interval, fill, window, _last_close_sql(interval))
    # The window function keeps the planner from merging the levels and working out each vwap twice.
    return f"""
SELECT concat('[', string_agg({record(fill)}, ',' ORDER BY starts_at)
                   FILTER (WHERE position <= %(limit)s::int), ']') AS body,
       least(count(*), %(limit)s::int)::int AS row_count,
       count(*) > %(limit)s::int AS has_more,
       max(starts_at) FILTER (WHERE position <= %(limit)s::int) AS last_starts_at
FROM (
    SELECT *, {VWAP_MICROS} AS vwap_micros, row_number() OVER (ORDER BY starts_at) AS position
    FROM ({rows}) AS page
) AS numbered
"""  # noqa: S608 -- made of constants alone; values are bound


def current_candles_sql(interval: Interval) -> str:
    """The candles of `market_ticker` that start in [start, end), in no order, as COLUMNS."""
    return _text(_current_candles(interval, _start, _end))


def _last_close_sql(interval: Interval) -> str:
    """close_micros of the market's last candle before `start`; no row if there is none."""
    # The day of `start` in the interval's own candles, all before it in days: few rows to look at.
    midnight = Interval.ONE_DAY.start_of(_start)
    earlier = _current_candles(
        Interval.ONE_DAY, literal_column("timestamptz '-infinity'"), midnight
    )
    parts = [earlier.subquery("earlier")]
    if interval is not Interval.ONE_DAY:
        parts.append(_current_candles(interval, midnight, _start).subquery("same_day"))
    both = union_all(*(select(each.c.starts_at, each.c.close_micros) for each in parts)).subquery()
    return _text(
        select(both.c.close_micros).order_by(both.c.starts_at.desc()).limit(literal_column("1"))
    )


def candles_frame(
    connection: psycopg.Connection[Any],
    market_ticker: str,
    interval: Interval,
    start: datetime,
    end: datetime,
) -> pd.DataFrame:
    """The candles of one market that start in [start, end), oldest first: integers, UTC."""
    cursor = connection.execute(
        f"{current_candles_sql(interval)} ORDER BY starts_at".encode(),
        {"market_ticker": market_ticker, "start": start, "end": end},
    )
    frame = pd.DataFrame(cursor.fetchall(), columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(COLUMNS[2:], "int64"))


def busiest_markets(connection: psycopg.Connection[Any], day: date, count: int) -> list[str]:
    """The `count` markets with the most contracts traded on the UTC day, busiest first."""
    rows = connection.execute(
        "SELECT market_ticker FROM candles_1d WHERE starts_at = %s::date::timestamp AT TIME ZONE"
        " 'UTC' ORDER BY volume_centis DESC, market_ticker LIMIT %s",
        [day, count],
    )
    return [ticker for (ticker,) in rows]


def _current_candles(
    interval: Interval, start: ColumnElement[Any], end: ColumnElement[Any]
) -> Select[Any]:
    stale = tables.stale_candles
    bucket = interval.start_of(stale.c.starts_at)
    minutes = (
        select(stale.c.starts_at)
        .where(stale.c.market_ticker == _market_ticker, bucket >= start, bucket < end)
        .distinct()
        .cte()
    )
    stored = interval.table
    kept = select(*_columns(stored)).where(
        stored.c.market_ticker == _market_ticker,
        stored.c.starts_at >= start,
        stored.c.starts_at < end,
        ~_is_touched(interval, stored, minutes),
    )
    fresh = _fresh_candles(interval, minutes, start, end)
    return select(union_all(kept, select(*_columns(fresh))).subquery())


def _fresh_candles(
    interval: Interval, minutes: CTE, start: ColumnElement[Any], end: ColumnElement[Any]
) -> CTE:
    """Candles of the intervals that hold a stale minute, from trades and finer, right candles."""
    if interval.finer is None:
        return candles_from_trades(_trades_of(minutes, start, end)).cte()
    finer = interval.finer.table
    touched = _touched(interval, minutes)
    kept = (
        select(*_columns(finer))
        .join(
            touched,
            (finer.c.starts_at >= touched.c.starts_at)
            & (finer.c.starts_at < touched.c.starts_at + interval.width),
        )
        .where(
            finer.c.market_ticker == _market_ticker,
            finer.c.starts_at >= start,
            finer.c.starts_at < end + interval.width,
            ~_is_touched(interval.finer, finer, minutes),
        )
    )
    fresh = _fresh_candles(interval.finer, minutes, start, end + interval.width)
    parts = union_all(kept, select(*_columns(fresh))).subquery()
    return roll_up(parts, interval).cte()


def _touched(interval: Interval, minutes: CTE) -> Subquery:
    bucket = interval.start_of(minutes.c.starts_at)
    return select(bucket.label("starts_at")).distinct().subquery()


def _is_touched(interval: Interval, candles: FromClause, minutes: CTE) -> ColumnElement[bool]:
    return exists().where(interval.start_of(minutes.c.starts_at) == candles.c.starts_at)


def _trades_of(minutes: CTE, start: ColumnElement[Any], end: ColumnElement[Any]) -> Subquery:
    trades = tables.trades
    return (
        select(trades)
        .join(
            minutes,
            (trades.c.traded_at >= minutes.c.starts_at)
            & (trades.c.traded_at < minutes.c.starts_at + Interval.ONE_MINUTE.width)
            # Names the one partition that can hold the minute.
            & (trades.c.traded_on == _utc_day(minutes.c.starts_at)),
        )
        .where(
            trades.c.market_ticker == _market_ticker,
            trades.c.traded_on >= _utc_day(start),
            trades.c.traded_on <= _utc_day(end),
        )
        .subquery()
    )


def _columns(candles: FromClause) -> list[ColumnElement[Any]]:
    return [candles.c[name] for name in COLUMNS]


def _utc_day(instant: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.timezone(literal_column("'UTC'"), instant), Date)


def _text(query: Select[Any]) -> str:
    compiled = compile_statement(query)
    # Callers bind by name; a parameter of another name would be one that they do not know of.
    assert set(compiled.params) <= {"market_ticker", "start", "end"}, compiled.params
    return str(compiled)
