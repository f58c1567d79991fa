"""Candles are kept equal to their trades and quotes: the minutes that changed, or a whole day.

Whoever writes a trade or a quote appends its minute to `stale_candles` in the same transaction. A
refresh takes minutes off that list and recomputes them by a later statement of its own transaction,
so a row that commits in between is seen, or its minute is still listed: it is never lost. Rows that
are already right are not written. The caller commits.
"""

from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Table, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import (
    adopt,
    ensure_partitions,
    has_partition,
    partition_bounds,
)
from kalshi_platform.storage.reads.archives import dropped_days, refuse_dropped
from kalshi_platform.storage.statements import run
from kalshi_platform.storage.writes.candle_folds import (
    FRESH,
    FRESH_KEY,
    STALE,
    TOUCHED,
    Day,
    constrain,
    day_window,
    drop_scratch,
    fold,
    keep_dropped_quotes,
    make_scratch,
    within,
)
from kalshi_platform.storage.writes.late_quotes import (
    LostQuotes,
    add_later_minutes,
    flag_lost_quotes,
    list_later_days,
    take_lost_quotes,
)
from kalshi_platform.transform.candles import COLUMNS, KEY, MEASURES, Interval

# One writer of candles at a time, over all processes; any number that nothing else locks.
_CANDLES_LOCK = 4_246

# A day's sorts and hashes stay in memory, few of them live at once; and a day is worth the workers
# that are free.
_PLANNING = {
    "work_mem": "256MB",
    "maintenance_work_mem": "256MB",
    "parallel_tuple_cost": "0.01",
    "jit": "off",
}

# Up to so many stale minutes of a day are looked up one by one; beyond, the day is read whole.
_FEW_MINUTES = 100_000


@dataclass(frozen=True)
class CandleCounts:
    """What a refresh or rebuild did.

    Attributes:
        stale_minutes: market-minutes taken off the list of stale candles.
        written: rows inserted or changed, by interval label.
        removed: rows deleted because no trade or quote is left in them, by interval label.
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

    Minutes of days whose trades are in the archive alone stay on the list until these are back.

    Raises:
        RuntimeError: the transaction is not READ COMMITTED; a trade could be lost in it.
    """
    _take_turn(connection)
    # Taken off the list first, recomputed by later statements: the order is what loses nothing.
    minutes = _take_stale(connection)
    lost = take_lost_quotes(connection)
    add_later_minutes(connection)
    minutes -= _put_back_dropped(connection)
    connection.execute("ANALYZE stale_minutes")
    midnights = Interval.ONE_DAY.start_of(STALE.c.starts_at)
    per_day = select(midnights).distinct().order_by(midnights)
    counts = _Counter()
    for (midnight,) in run(connection, per_day).fetchall():
        day = Day.read(connection, midnight.astimezone(UTC).date())
        _refresh_day(connection, day, counts)
    for gap in lost:
        for interval in Interval:
            for on, flagged in flag_lost_quotes(connection, interval, gap).items():
                counts.days.add(on)
                counts.add(interval, flagged, 0)
    drop_scratch(connection, STALE)
    return counts.total(minutes)


def rebuild_day(connection: psycopg.Connection[Any], day: date) -> CandleCounts:
    """Recompute all candles of the UTC day, whatever is stored or listed as stale.

    Later days that a late quote of this day touches are listed as stale.

    Raises:
        DayDropped: the day's trades are in the archive alone.
        RuntimeError: the transaction is not READ COMMITTED; a trade could be lost in it.
    """
    _take_turn(connection)
    # Who drops a day waits for its turn, too.
    refuse_dropped(connection, "trades", [day])
    state = Day.read(connection, day)
    minutes = _take_stale(connection, state)
    list_later_days(connection, state.window[1])
    counts = _Counter()
    counts.days.add(day)
    for interval in Interval:
        counts.add(interval, *_rebuild_interval(connection, interval, state))
    drop_scratch(connection, STALE)
    return counts.total(minutes)


class _Counter:
    """Adds up what was done to each interval of each day."""

    def __init__(self) -> None:
        self.written = {interval.label: 0 for interval in Interval}
        self.removed = {interval.label: 0 for interval in Interval}
        self.days: set[date] = set()

    def add(self, interval: Interval, written: int, removed: int) -> None:
        self.written[interval.label] += written
        self.removed[interval.label] += removed

    def total(self, stale_minutes: int) -> CandleCounts:
        return CandleCounts(stale_minutes, self.written, self.removed, tuple(sorted(self.days)))


def _take_stale(connection: psycopg.Connection[Any], day: Day | None = None) -> int:
    """Move what is listed as stale, of one day or all, into `stale_minutes`; how many minutes.

    A day leaves gaps of all markets on the list: what they touch may lie in later days.
    """
    make_scratch(connection, STALE)
    stale = tables.stale_candles
    listed = delete(stale)
    if day is not None:
        listed = listed.where(within(stale.c.starts_at, day.window), ~LostQuotes.is_marker(stale))
    gone = listed.returning(stale.c.market_ticker, stale.c.starts_at).cte("gone")
    distinct = select(gone.c.market_ticker, gone.c.starts_at).distinct()
    return run(connection, insert(STALE).from_select(KEY, distinct)).rowcount


def _put_back_dropped(connection: psycopg.Connection[Any]) -> int:
    """List the minutes of days without their trades as stale again; how many."""
    midnights = Interval.ONE_DAY.start_of(STALE.c.starts_at)
    found = run(connection, select(midnights).distinct()).fetchall()
    days = [midnight.astimezone(UTC).date() for (midnight,) in found]
    put_back = 0
    for day in dropped_days(connection, "trades", days):
        of_day = within(STALE.c.starts_at, day_window(day))
        gone = delete(STALE).where(of_day).returning(STALE.c.market_ticker, STALE.c.starts_at)
        rows = gone.cte("gone")
        again = insert(tables.stale_candles).from_select(KEY, select(*rows.c))
        put_back += run(connection, again).rowcount
    return put_back


def _refresh_day(connection: psycopg.Connection[Any], day: Day, counts: "_Counter") -> None:
    ensure_partitions(connection, [day.on], only=[interval.table for interval in Interval])
    counts.days.add(day.on)
    in_day = within(STALE.c.starts_at, day.window)
    [minutes] = run(connection, select(func.count()).where(in_day)).fetchone() or (0,)
    for interval in Interval:
        if minutes > _FEW_MINUTES:
            counts.add(interval, *_rebuild_interval(connection, interval, day))
            continue
        make_scratch(connection, TOUCHED)
        starts_at = interval.start_of(STALE.c.starts_at)
        keys = select(STALE.c.market_ticker, starts_at).where(in_day).distinct()
        run(connection, insert(TOUCHED).from_select(KEY, keys))
        connection.execute("ANALYZE touched_candles")
        fold(connection, interval, day, only_touched=True)
        counts.add(interval, *_replace(connection, interval, day, only_touched=True))
        drop_scratch(connection, TOUCHED)


def _rebuild_interval(
    connection: psycopg.Connection[Any], interval: Interval, day: Day
) -> tuple[int, int]:
    stored = interval.table
    daily = stored.info["partitions"] == "day"
    if not daily or has_partition(connection, stored, day.on):
        ensure_partitions(connection, [day.on], only=[stored])
        fold(connection, interval, day, only_touched=False)
        return _replace(connection, interval, day, only_touched=False)
    # A day's first candles become its partition: no row is compared, none goes through an index.
    written = fold(connection, interval, day, only_touched=False, lasting=True)
    constrain(connection, interval)
    if adopt(connection, stored, FRESH.name, day.on):
        name, _, _ = partition_bounds(stored, day.on)
        connection.execute(f"ALTER INDEX {FRESH_KEY} RENAME TO {name}_pkey".encode())
        return written, 0
    # Somebody made the partition meanwhile.
    return _replace(connection, interval, day, only_touched=False)


def _replace(
    connection: psycopg.Connection[Any], interval: Interval, day: Day, *, only_touched: bool
) -> tuple[int, int]:
    """Make the stored candles those of `fresh_candles`; returns the rows written and removed."""
    stored = interval.table
    in_day = within(stored.c.starts_at, day.window)
    held = select(exists().where(in_day))
    if not only_touched and run(connection, held).fetchone() == (False,):
        # Nothing to compare with; in the order of the key, which its index takes best.
        candles = select(*FRESH.c).order_by(*(FRESH.c[name] for name in KEY))
        written = run(connection, insert(stored).from_select(COLUMNS, candles)).rowcount
        drop_scratch(connection, FRESH)
        if stored.info["partitions"] == "day":
            # An autovacuum that came by meanwhile saw none of these rows, and noted that none are.
            name, _, _ = partition_bounds(stored, day.on)
            connection.execute(f"ANALYZE {name}".encode())
        return written, 0
    connection.execute("ANALYZE fresh_candles")
    if day.dropped:
        keep_dropped_quotes(connection, interval, day, only_touched=only_touched)
    if only_touched:
        removed = _remove_emptied(connection, stored, in_day)
    else:
        emptied = ~exists().where(_same_key(FRESH, stored))
        removed = run(connection, delete(stored).where(in_day, emptied)).rowcount

    candles = select(*FRESH.c)
    if not only_touched:
        # Of a whole day nearly all rows are right already, and even to try to write one costs.
        same = (stored.c[name].is_not_distinct_from(FRESH.c[name]) for name in MEASURES)
        candles = candles.where(~exists().where(_same_key(FRESH, stored), in_day, *same))
    upsert = insert(stored).from_select(COLUMNS, candles)
    upsert = upsert.on_conflict_do_update(
        index_elements=KEY,
        set_={name: upsert.excluded[name] for name in MEASURES},
        where=or_(*(stored.c[name].is_distinct_from(upsert.excluded[name]) for name in MEASURES)),
    )
    written = run(connection, upsert).rowcount
    drop_scratch(connection, FRESH)
    return written, removed


def _remove_emptied(
    connection: psycopg.Connection[Any], stored: Table, in_day: ColumnElement[bool]
) -> int:
    """Delete the candles in `touched_candles` that have none in `fresh_candles`; how many.

    A trade that REST dates more finely may leave a minute that holds nothing else. The few keys
    are found first: the statistics of a table that has just been filled may lie, and a join of all
    that was touched with a day of candles would then take hours.
    """
    emptied = select(TOUCHED).where(~exists().where(_same_key(FRESH, TOUCHED)))
    removed = 0
    for key in run(connection, emptied).fetchall():
        is_it = (stored.c[name] == value for name, value in zip(KEY, key, strict=True))
        removed += run(connection, delete(stored).where(in_day, *is_it)).rowcount
    return removed


def _take_turn(connection: psycopg.Connection[Any]) -> None:
    """Wait for the other writers of candles; until the caller commits, there is no second one."""
    row = connection.execute("SELECT current_setting('transaction_isolation')").fetchone()
    if row != ("read committed",):
        raise RuntimeError(f"Candles need a transaction that is read committed; this is {row}.")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CANDLES_LOCK])
    for name, value in _PLANNING.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _same_key(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in KEY))
