"""Candles are kept equal to their trades: the minutes that changed, or a whole day, at a time.

Whoever writes a trade appends its minute to `stale_candles` in the same transaction. A refresh
takes minutes off that list and recomputes them by a later statement of its own transaction, so a
trade that commits in between is seen, or its minute is still listed: it is never lost. Rows that
are already right are not written. The caller commits.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
from sqlalchemy import (
    ColumnElement,
    Select,
    TableClause,
    and_,
    column,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    table,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.statements import run
from kalshi_platform.transform.candles import (
    COLUMNS,
    MEASURES,
    Interval,
    candles_from_trades,
    roll_up,
)

# One writer of candles at a time, over all processes; any number that nothing else locks.
_CANDLES_LOCK = 4_246

# A day's sorts and hashes stay in memory; few of them live at once.
_WORK_MEMORY = "256MB"

# Up to so many stale minutes of a day are looked up one by one; beyond, the day is read whole.
_FEW_MINUTES = 100_000

_KEY = ("market_ticker", "starts_at")
_stale = table("stale_minutes", *(column(name) for name in _KEY))
_touched = table("touched_candles", *(column(name) for name in _KEY))
_fresh = table("fresh_candles", *(column(name) for name in COLUMNS))

_Window = tuple[datetime, datetime]


@dataclass(frozen=True)
class CandleCounts:
    """What a refresh or rebuild did.

    Attributes:
        stale_minutes: market-minutes taken off the list of stale candles.
        written: rows inserted or changed, by interval label.
        removed: rows deleted because no trade is left in them, by interval label.
        days: the UTC days looked at, in order.
    """

    stale_minutes: int
    written: dict[str, int]
    removed: dict[str, int]
    days: tuple[date, ...]

    @property
    def changed(self) -> int:
        """Rows of all intervals that are not as they were."""
        return sum(self.written.values()) + sum(self.removed.values())


def refresh_candles(connection: psycopg.Connection[Any]) -> CandleCounts:
    """Recompute every stale minute of any day, and the hours and days that hold one.

    Raises:
        RuntimeError: the transaction is not READ COMMITTED; a trade could be lost in it.
    """
    _take_turn(connection)
    _make_scratch(connection, _stale)
    stale = tables.stale_candles
    # Taken off the list first, recomputed by later statements: the order is what loses nothing.
    gone = delete(stale).returning(stale.c.market_ticker, stale.c.starts_at).cte("gone")
    distinct = select(gone.c.market_ticker, gone.c.starts_at).distinct()
    minutes = run(connection, insert(_stale).from_select(_KEY, distinct)).rowcount
    connection.execute("ANALYZE stale_minutes")
    midnights = Interval.ONE_DAY.start_of(_stale.c.starts_at)
    per_day = select(midnights).distinct().order_by(midnights)
    counts = _Counter()
    for (midnight,) in run(connection, per_day).fetchall():
        _refresh_day(connection, midnight.astimezone(UTC).date(), counts)
    _drop_scratch(connection, _stale)
    return counts.total(minutes)


def rebuild_day(connection: psycopg.Connection[Any], day: date) -> CandleCounts:
    """Recompute all candles of the UTC day from its trades, whatever is stored or listed as stale.

    Raises:
        RuntimeError: the transaction is not READ COMMITTED; a trade could be lost in it.
    """
    _take_turn(connection)
    window = _day_window(day)
    stale = tables.stale_candles
    listed = delete(stale).where(_within(stale.c.starts_at, window))
    distinct = listed.returning(stale.c.market_ticker, stale.c.starts_at).cte("gone")
    counting = select(func.count(tuple_(distinct.c.market_ticker, distinct.c.starts_at).distinct()))
    [minutes] = run(connection, counting).fetchone() or (0,)

    ensure_partitions(connection, [day], only=[interval.table for interval in Interval])
    counts = _Counter()
    counts.days.append(day)
    for interval in Interval:
        counts.add(interval, *_rebuild_interval(connection, interval, day))
    return counts.total(minutes)


class _Counter:
    """Adds up what was done to each interval of each day."""

    def __init__(self) -> None:
        self.written = {interval.label: 0 for interval in Interval}
        self.removed = {interval.label: 0 for interval in Interval}
        self.days: list[date] = []

    def add(self, interval: Interval, written: int, removed: int) -> None:
        self.written[interval.label] += written
        self.removed[interval.label] += removed

    def total(self, stale_minutes: int) -> CandleCounts:
        return CandleCounts(stale_minutes, self.written, self.removed, tuple(self.days))


def _refresh_day(connection: psycopg.Connection[Any], day: date, counts: "_Counter") -> None:
    ensure_partitions(connection, [day], only=[interval.table for interval in Interval])
    counts.days.append(day)
    in_day = _within(_stale.c.starts_at, _day_window(day))
    [minutes] = run(connection, select(func.count()).where(in_day)).fetchone() or (0,)
    for interval in Interval:
        if minutes > _FEW_MINUTES:
            counts.add(interval, *_rebuild_interval(connection, interval, day))
            continue
        _make_scratch(connection, _touched)
        starts_at = interval.start_of(_stale.c.starts_at)
        keys = select(_stale.c.market_ticker, starts_at).where(in_day).distinct()
        run(connection, insert(_touched).from_select(_KEY, keys))
        connection.execute("ANALYZE touched_candles")
        fresh = _candles_of_day(interval, day, only_touched=True)
        counts.add(interval, *_replace(connection, interval, fresh, day, only_touched=True))
        _drop_scratch(connection, _touched)


def _rebuild_interval(
    connection: psycopg.Connection[Any], interval: Interval, day: date
) -> tuple[int, int]:
    window = _day_window(day)
    fresh = _candles_of_day(interval, day, only_touched=False)
    held = select(exists().where(_within(interval.table.c.starts_at, window)))
    if run(connection, held).fetchone() == (True,):
        return _replace(connection, interval, fresh, day, only_touched=False)
    # A day's first build meets nothing to compare with, so it goes straight into the table.
    written = run(connection, insert(interval.table).from_select(COLUMNS, fresh)).rowcount
    return written, 0


def _candles_of_day(interval: Interval, day: date, *, only_touched: bool) -> Select[Any]:
    """Query of the day's candles: all, or those named in `touched_candles`."""
    window = _day_window(day)
    finer = interval.finer
    source = tables.trades if finer is None else finer.table
    instant = source.c.traded_at if finer is None else source.c.starts_at
    conditions = [_within(instant, window)]
    if finer is None:
        conditions.append(tables.trades.c.traded_on == day)  # names the one partition to read
    rows = select(source).where(*conditions)
    if only_touched:
        # The OFFSET keeps the planner from anything but an index lookup for each interval: it
        # overestimates them and would read the whole day.
        found = rows.where(
            source.c.market_ticker == _touched.c.market_ticker,
            instant >= _touched.c.starts_at,
            instant < _touched.c.starts_at + interval.width,
        )
        lookup = found.offset(literal_column("0")).lateral("lookup")
        rows = select(*lookup.c).select_from(_touched.join(lookup, true()))
    folded = rows.subquery("source")
    return candles_from_trades(folded) if finer is None else roll_up(folded, interval)


def _replace(
    connection: psycopg.Connection[Any],
    interval: Interval,
    fresh: Select[Any],
    day: date,
    *,
    only_touched: bool,
) -> tuple[int, int]:
    """Make the stored candles those of `fresh`; returns the rows written and removed."""
    stored = interval.table
    _make_scratch(connection, _fresh, like=stored.name)
    run(connection, insert(_fresh).from_select(COLUMNS, fresh))
    connection.execute("ANALYZE fresh_candles")

    # A trade that REST dates more finely may leave a minute that holds nothing else.
    in_day = _within(stored.c.starts_at, _day_window(day))
    if only_touched:
        empty = select(_touched).where(~exists().where(_same_key(_fresh, _touched)))
        emptied: ColumnElement[bool] = tuple_(*(stored.c[name] for name in _KEY)).in_(empty)
    else:
        emptied = ~exists().where(_same_key(_fresh, stored))
    removed = run(connection, delete(stored).where(in_day, emptied)).rowcount

    candles = select(*_fresh.c)
    if not only_touched:
        # Of a whole day nearly all rows are right already, and even to try to write one costs.
        same = (stored.c[name] == _fresh.c[name] for name in MEASURES)
        candles = candles.where(~exists().where(_same_key(_fresh, stored), in_day, *same))
    upsert = insert(stored).from_select(COLUMNS, candles)
    upsert = upsert.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: upsert.excluded[name] for name in MEASURES},
        where=or_(*(stored.c[name] != upsert.excluded[name] for name in MEASURES)),
    )
    written = run(connection, upsert).rowcount
    _drop_scratch(connection, _fresh)
    return written, removed


def _take_turn(connection: psycopg.Connection[Any]) -> None:
    """Wait for the other writers of candles; until the caller commits, there is no second one."""
    row = connection.execute("SELECT current_setting('transaction_isolation')").fetchone()
    if row != ("read committed",):
        raise RuntimeError(f"Candles need a transaction that is read committed; this is {row}.")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CANDLES_LOCK])
    connection.execute("SELECT set_config('work_mem', %s, true)", [_WORK_MEMORY])


def _make_scratch(
    connection: psycopg.Connection[Any], scratch: TableClause, like: str = "stale_candles"
) -> None:
    columns = ", ".join(scratch.c.keys())
    statement = (
        f"CREATE TEMPORARY TABLE {scratch.name} ON COMMIT DROP AS"
        f" SELECT {columns} FROM {like} WITH NO DATA"  # noqa: S608 (constants)
    )
    connection.execute(statement.encode())


def _drop_scratch(connection: psycopg.Connection[Any], scratch: TableClause) -> None:
    connection.execute(f"DROP TABLE pg_temp.{scratch.name}".encode())


def _same_key(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in _KEY))


def _within(instant: ColumnElement[Any], window: _Window) -> ColumnElement[bool]:
    return and_(instant >= window[0], instant < window[1])


def _day_window(day: date) -> _Window:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)
