"""Candles as they are this instant: the stored ones, and the newest worked out anew.

A minute listed in `stale_candles`, and what its quotes touch later, is not taken from the tables
but folded from `trades` and `quotes` again, and the hours and days that hold one are rolled up
again: one statement, so one instant.
"""

from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    FromClause,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    collate,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.sql.selectable import CTE, Subquery

from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.candle_records import VWAP_MICROS, record
from kalshi_platform.storage.reads.candle_slots import (
    LAST_PRICE_BEFORE,
    Fill,
    filled,
    slots,
    with_previous,
)
from kalshi_platform.storage.statements import compile_statement
from kalshi_platform.transform.candles import (
    COLUMNS,
    MEASURES,
    Interval,
    minutes_of,
    quoted_minutes,
    roll_up,
    traded_minutes,
)
from kalshi_platform.transform.standing import (
    ALL_MARKETS,
    TICKER_CHANNEL,
    later_minutes,
    with_standing,
)

if TYPE_CHECKING:
    import pandas as pd

_market_ticker = bindparam("market_ticker", type_=Text())
_start = bindparam("start", type_=DateTime(timezone=True))
_end = bindparam("end", type_=DateTime(timezone=True))
_EVERY_MARKET: ColumnElement[str] = literal_column(f"'{ALL_MARKETS}'")


# Integers, with gaps where nothing was traded or quoted.
_FRAME_TYPES = {
    **dict.fromkeys(MEASURES, "Int64"),
    "starts_at": "datetime64[us, UTC]",
    "quoted_at": "datetime64[us, UTC]",
    "quote_gap": "bool",
}


@cache
def candle_page_sql(interval: Interval, fill: Fill = Fill.NONE) -> str:
    """One page of a market's candles, oldest first, as JSON text made by the server.

    The text is for psycopg and takes the parameters `market_ticker`, `start`, `end` (aware
    instants; candles that start in [start, end)) and `limit`. An interval begins at `start`: what
    the first record knows of earlier trades and quotes is as of then. The next page starts one
    interval after `last_starts_at`. A filled page has a record for each interval that has begun.

    Returns:
        Text of a query of one row: body (a JSON array), row_count, has_more, last_starts_at (null
        on an empty page).
    """
    window = current_candles_sql(interval)
    if fill is Fill.NONE:
        # One more than asked for tells whether there is a next page.
        rows = f"{window} ORDER BY starts_at LIMIT %(limit)s::int + 1"
    else:
        rows = slots(interval, window)
    rows = with_previous(rows, LAST_PRICE_BEFORE)
    if fill is not Fill.NONE:
        rows = filled(interval, fill, rows, _text(_standing_at_start(interval)))
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


@cache
def current_candles_sql(interval: Interval) -> str:
    """The candles of `market_ticker` that start in [start, end), in no order, as COLUMNS."""
    return _text(_current_candles(interval, _start, _end))


def _standing_at_start(interval: Interval) -> Select[Any]:
    """The candle of an empty interval at `start`: what stood then, if anything."""
    stored = interval.table
    known = {
        "market_ticker": collate(_market_ticker, "C"),
        "starts_at": _start,
        "quote_count": literal_column("0"),
    }
    empty = select(
        *(cast(known.get(name, null()), stored.c[name].type).label(name) for name in COLUMNS)
    )
    return with_standing(empty.subquery("empty"), interval, any_day=True)


def candles_frame(
    connection: psycopg.Connection[Any],
    market_ticker: str,
    interval: Interval,
    start: datetime,
    end: datetime,
) -> "pd.DataFrame":
    """The candles of one market that start in [start, end), oldest first: integers, UTC."""
    import pandas as pd  # with pyarrow: nothing that the API should carry

    cursor = connection.execute(
        f"{current_candles_sql(interval)} ORDER BY starts_at".encode(),
        {"market_ticker": market_ticker, "start": start, "end": end},
    )
    frame = pd.DataFrame(cursor.fetchall(), columns=list(COLUMNS))
    return frame.astype(_FRAME_TYPES)


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
    minutes = _changed_minutes(interval, start, end)
    stored = interval.table
    kept = select(*_columns(stored)).where(
        stored.c.market_ticker == _market_ticker,
        stored.c.starts_at >= start,
        stored.c.starts_at < end,
        ~_is_touched(interval, stored, minutes),
    )
    fresh = _fresh_candles(interval, minutes, start, end)
    return select(union_all(kept, select(*_columns(fresh))).subquery())


def _changed_minutes(interval: Interval, start: ColumnElement[Any], end: ColumnElement[Any]) -> CTE:
    """Minutes whose stored candles no longer hold, of the intervals that start in [start, end)."""
    stale, gaps = tables.stale_candles, tables.gaps
    listed = (
        select(stale.c.starts_at)
        .where(stale.c.market_ticker.in_([_market_ticker, _EVERY_MARKET]), stale.c.starts_at < end)
        .distinct()
        .cte("listed")
    )
    lost_until = (
        select(func.max(gaps.c.ends_at))
        .where(
            gaps.c.channel == TICKER_CHANNEL,
            or_(gaps.c.market_ticker.is_(None), gaps.c.market_ticker == _market_ticker),
            gaps.c.ends_at >= listed.c.starts_at,
            gaps.c.starts_at >= listed.c.starts_at,
            gaps.c.starts_at < listed.c.starts_at + Interval.ONE_MINUTE.width,
        )
        .scalar_subquery()
    )
    changed = select(
        # Of the same collation as the columns it is compared with.
        collate(_market_ticker, "C").label("market_ticker"),
        listed.c.starts_at,
        lost_until.label("lost_until"),
    ).subquery("changed")
    later = later_minutes(changed).subquery("later")
    every = union(select(listed.c.starts_at), select(later.c.starts_at)).subquery("every")
    bucket = interval.start_of(every.c.starts_at)
    # What is stored of a day whose trades are only in the archive is final: nothing else is held.
    archives = tables.archives
    is_archived = exists().where(
        archives.c.table_name == literal_column("'trades'"),
        archives.c.day == _utc_day(every.c.starts_at),
        archives.c.dropped_at.is_not(None),
    )
    return (
        select(every.c.starts_at).where(bucket >= start, bucket < end, ~is_archived).cte("minutes")
    )


def _fresh_candles(
    interval: Interval, minutes: CTE, start: ColumnElement[Any], end: ColumnElement[Any]
) -> CTE:
    """Candles of the intervals that hold a changed minute, from what happened and finer candles."""
    if interval.finer is None:
        traded = traded_minutes(_trades_of(minutes)).subquery("traded")
        quoted = quoted_minutes(_quotes_of(minutes)).subquery("quoted")
        own = minutes_of(traded, quoted).subquery("own")
        return with_standing(own, interval).cte()
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
    return with_standing(roll_up(parts, interval).subquery("own"), interval).cte()


def _touched(interval: Interval, minutes: CTE) -> Subquery:
    bucket = interval.start_of(minutes.c.starts_at)
    return select(bucket.label("starts_at")).distinct().subquery()


def _is_touched(interval: Interval, candles: FromClause, minutes: CTE) -> ColumnElement[bool]:
    return exists().where(interval.start_of(minutes.c.starts_at) == candles.c.starts_at)


def _trades_of(minutes: CTE) -> Subquery:
    trades = tables.trades
    # The day names the one partition that can hold the minute.
    on_day = trades.c.traded_on == _utc_day(minutes.c.starts_at)
    return _rows_of(minutes, trades, trades.c.traded_at, on_day)


def _quotes_of(minutes: CTE) -> Subquery:
    return _rows_of(minutes, tables.quotes, tables.quotes.c.quoted_at)


def _rows_of(
    minutes: CTE, source: Table, instant: ColumnElement[Any], *conditions: ColumnElement[bool]
) -> Subquery:
    # The OFFSET keeps the planner from anything but an index lookup for each minute: a plan for
    # any market and window would read a whole day.
    rows = (
        select(source)
        .where(
            source.c.market_ticker == _market_ticker,
            instant >= minutes.c.starts_at,
            instant < minutes.c.starts_at + Interval.ONE_MINUTE.width,
            *conditions,
        )
        .offset(literal_column("0"))
        .lateral("rows_of_minute")
    )
    return select(*rows.c).select_from(minutes.join(rows, true())).subquery()


def _columns(candles: FromClause) -> list[ColumnElement[Any]]:
    return [candles.c[name] for name in COLUMNS]


def _utc_day(instant: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.timezone(literal_column("'UTC'"), instant), Date)


def _text(query: Select[Any]) -> str:
    compiled = compile_statement(query)
    # Callers bind by name; a parameter of another name would be one that they do not know of.
    assert set(compiled.params) <= {"market_ticker", "start", "end"}, compiled.params
    return str(compiled)
