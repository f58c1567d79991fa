"""Candles folded into a table of the transaction: of a whole day, or of the keys that changed."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
from sqlalchemy import (
    ColumnElement,
    DefaultClause,
    FromClause,
    Select,
    Table,
    TableClause,
    and_,
    column,
    exists,
    insert,
    literal_column,
    null,
    or_,
    select,
    table,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql import ClauseElement

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import has_partition
from kalshi_platform.storage.reads.archives import dropped_days
from kalshi_platform.storage.statements import compile_statement, run
from kalshi_platform.transform.candles import (
    COLUMNS,
    KEY,
    PRICES,
    QUOTED,
    TRADED,
    Interval,
    minutes_of,
    quoted_minutes,
    roll_up,
    traded_minutes,
)
from kalshi_platform.transform.standing import TICKER_CHANNEL, with_standing, without_quotes

Window = tuple[datetime, datetime]

STALE = table("stale_minutes", *(column(name) for name in KEY))
"""Keys of minutes to recompute."""
TOUCHED = table("touched_candles", *(column(name) for name in KEY))
"""Keys of one interval to recompute."""
FRESH = table("fresh_candles", *(column(name) for name in COLUMNS))
FRESH_KEY = "fresh_candles_key"
_TRADED = table("traded_minutes", *(column(name) for name in (*KEY, *TRADED)))
_QUOTED = table("quoted_minutes", *(column(name) for name in (*KEY, *QUOTED[:-1])))
_STAGES = (_TRADED, _QUOTED)

# A day is folded in so many slices of time: each is sorted in memory, and workers share them.
_SLICES = 8

# Candles older than this are not asked what stood when the quotes themselves are gone.
_MEMORY = timedelta(days=31)


@dataclass(frozen=True)
class Day:
    """A UTC day, and what is known of its quotes.

    Attributes:
        quotes: whether any market has a quote at or before its end, or may have: a gap touches it.
        dropped: whether its own quotes are gone: what stored candles know of them is kept.
    """

    on: date
    quotes: bool
    dropped: bool

    @classmethod
    def read(cls, connection: psycopg.Connection[Any], on: date) -> "Day":
        start, end = day_window(on)
        quotes, days, gaps = tables.quotes, tables.candles_1d, tables.gaps
        held = exists().where(quotes.c.quoted_at < end)
        told = exists().where(
            days.c.starts_at >= start - _MEMORY,
            days.c.starts_at < end,
            days.c.quoted_at.is_not(None),
        )
        lost = exists().where(
            gaps.c.channel == TICKER_CHANNEL, gaps.c.starts_at < end, gaps.c.ends_at > start
        )
        known, missed = run(connection, select(held | told, lost)).fetchone() or (False, False)
        # A quote that came late for a dropped day stands alone in a new partition.
        gone = not has_partition(connection, quotes, on) or bool(
            dropped_days(connection, quotes.name, [on])
        )
        return cls(on, known or missed, known and gone)

    @property
    def window(self) -> Window:
        """Its first instant and the next day's."""
        return day_window(self.on)


def fold(
    connection: psycopg.Connection[Any],
    interval: Interval,
    day: Day,
    *,
    only_touched: bool,
    lasting: bool = False,
) -> int:
    """Make `fresh_candles` of the day's trades and quotes, or finer candles; returns its rows."""
    if only_touched or interval.finer is not None:
        parts = [_candles_of(interval, day, only_touched=only_touched)]
    elif day.quotes:
        parts = [_staged_minutes(connection, day)]
    else:
        traded = [_traded(day, window, only_touched=False) for window in _slices(day)]
        parts = [without_quotes(each.subquery("traded")) for each in traded]
    candles = union_all(*parts).subquery()
    # In the table's own order of columns, so that it can be attached without converting rows.
    query = select(*(candles.c[each.name] for each in interval.table.columns))
    rows = _create(connection, FRESH.name, query, sliced=len(parts) > 1, lasting=lasting)
    for staged in _STAGES if day.quotes and interval.finer is None and not only_touched else ():
        drop_scratch(connection, staged)
    return rows


def constrain(connection: psycopg.Connection[Any], interval: Interval) -> None:
    """Give `fresh_candles` the constraints and defaults of the interval's table."""
    changes = []
    for each in interval.table.columns:
        if not each.nullable:
            changes.append(f"ALTER {each.name} SET NOT NULL")
        if isinstance(each.server_default, DefaultClause):
            changes.append(f"ALTER {each.name} SET DEFAULT {each.server_default.arg}")
    changes.append(f"ADD CONSTRAINT {FRESH_KEY} PRIMARY KEY ({', '.join(KEY)})")
    connection.execute(f"ALTER TABLE {FRESH.name} {', '.join(changes)}".encode())
    connection.execute(f"ANALYZE {FRESH.name}".encode())


def keep_dropped_quotes(
    connection: psycopg.Connection[Any], interval: Interval, day: Day, *, only_touched: bool
) -> None:
    """Give `fresh_candles` what stored candles know of quotes that are no longer held."""
    stored = interval.table
    in_day = within(stored.c.starts_at, day.window)
    same_key = and_(*(FRESH.c[name] == stored.c[name] for name in KEY))
    knows_more = or_(
        stored.c.quote_count > 0,
        FRESH.c.quoted_at.is_(None),
        stored.c.quoted_at >= FRESH.c.quoted_at,
    )
    kept = update(FRESH).values({FRESH.c[name]: stored.c[name] for name in QUOTED})
    run(connection, kept.where(same_key, in_day, stored.c.quoted_at.is_not(None), knows_more))
    # What was quoted stays, even if a trade beside it has moved away.
    nothing = {name: null() if name in PRICES else literal_column("0") for name in TRADED}
    values = [nothing.get(name, stored.c[name]) for name in COLUMNS]
    quoted = select(*values).where(in_day, stored.c.quote_count > 0, ~exists().where(same_key))
    if only_touched:
        quoted = quoted.where(tuple_(*(stored.c[name] for name in KEY)).in_(select(*TOUCHED.c)))
    run(connection, insert(FRESH).from_select(COLUMNS, quoted))


def make_scratch(connection: psycopg.Connection[Any], scratch: TableClause) -> None:
    """Make an empty table of keys that the transaction drops."""
    columns = ", ".join(scratch.c.keys())
    statement = (
        f"CREATE TEMPORARY TABLE {scratch.name} ON COMMIT DROP AS"  # noqa: S608 (constants)
        f" SELECT {columns} FROM stale_candles WITH NO DATA"
    )
    connection.execute(statement.encode())


def drop_scratch(connection: psycopg.Connection[Any], scratch: TableClause) -> None:
    """Drop a table of the transaction."""
    connection.execute(f"DROP TABLE {scratch.name}".encode())


def day_window(day: date) -> Window:
    """First instant of the UTC day and of the next."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def within(instant: ColumnElement[Any], window: Window) -> ColumnElement[bool]:
    """Whether `instant` lies in the half-open window."""
    return and_(instant >= window[0], instant < window[1])


def _candles_of(interval: Interval, day: Day, *, only_touched: bool) -> Select[Any]:
    """Query of the day's candles: all, or those named in `touched_candles`."""
    if interval.finer is not None:
        finer = interval.finer.table
        rows = _rows(finer, finer.c.starts_at, interval, day.window, only_touched=only_touched)
        candles = roll_up(rows, interval, quotes=day.quotes)
    else:
        candles = _traded(day, day.window, only_touched=only_touched)
        if day.quotes:
            quoted = _quoted(day.window, only_touched=only_touched)
            candles = minutes_of(candles.subquery("traded"), quoted.subquery("quoted"))
    own = candles.subquery("candles")
    return with_standing(own, interval) if day.quotes else without_quotes(own)


def _staged_minutes(connection: psycopg.Connection[Any], day: Day) -> Select[Any]:
    """Query of the day's minutes, what was traded and what was quoted made into tables before.

    A join is not computed in parallel over slices; what is joined is.
    """
    slices = _slices(day)
    for staged, parts in (
        (_TRADED, [_traded(day, window, only_touched=False) for window in slices]),
        (_QUOTED, [_quoted(window, only_touched=False) for window in slices]),
    ):
        _create(connection, staged.name, union_all(*parts), sliced=True)
        connection.execute(f"ANALYZE {staged.name}".encode())
    return with_standing(minutes_of(_TRADED, _QUOTED).subquery("candles"), Interval.ONE_MINUTE)


def _traded(day: Day, window: Window, *, only_touched: bool) -> Select[Any]:
    trades = tables.trades
    # The day names the one partition to read.
    on_day = trades.c.traded_on == day.on
    return traded_minutes(
        _rows(
            trades,
            trades.c.traded_at,
            Interval.ONE_MINUTE,
            window,
            on_day,
            only_touched=only_touched,
        )
    )


def _quoted(window: Window, *, only_touched: bool) -> Select[Any]:
    quotes = tables.quotes
    return quoted_minutes(
        _rows(quotes, quotes.c.quoted_at, Interval.ONE_MINUTE, window, only_touched=only_touched)
    )


def _rows(
    source: Table,
    instant: ColumnElement[Any],
    interval: Interval,
    window: Window,
    *conditions: Any,
    only_touched: bool,
) -> FromClause:
    """The rows of a table in a window: all, or those of the intervals in `touched_candles`."""
    found = select(source).where(within(instant, window), *conditions)
    if not only_touched:
        return found.subquery(source.name)
    # The OFFSET keeps the planner from anything but an index lookup for each interval: it
    # overestimates them and would read the whole day.
    found = found.where(
        source.c.market_ticker == TOUCHED.c.market_ticker,
        instant >= TOUCHED.c.starts_at,
        instant < TOUCHED.c.starts_at + interval.width,
    )
    lookup = found.offset(literal_column("0")).lateral("lookup")
    return select(*lookup.c).select_from(TOUCHED.join(lookup, true())).subquery(source.name)


def _create(
    connection: psycopg.Connection[Any],
    name: str,
    query: ClauseElement,
    *,
    sliced: bool,
    lasting: bool = False,
) -> int:
    """Make a table of what a query finds; returns its rows."""
    compiled = compile_statement(query)
    # Made by CREATE … AS, which is computed in parallel; INSERT … SELECT is not.
    kind, end = ("", "") if lasting else ("TEMPORARY ", "ON COMMIT DROP ")
    statement = f"CREATE {kind}TABLE {name} {end}AS {compiled}"
    if sliced:
        # With no workers within a slice, each takes a whole one, and aggregates it too.
        connection.execute("SET LOCAL min_parallel_table_scan_size = '2TB'")
    rows = connection.execute(statement.encode(), compiled.params, prepare=False).rowcount
    connection.execute("SET LOCAL min_parallel_table_scan_size TO DEFAULT")
    return rows


def _slices(day: Day) -> list[Window]:
    start, end = day.window
    width = (end - start) / _SLICES
    return [(start + width * each, start + width * (each + 1)) for each in range(_SLICES)]
