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
    FromClause,
    Integer,
    Select,
    Table,
    TableClause,
    and_,
    cast,
    column,
    delete,
    exists,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    table,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import (
    adopt,
    ensure_partitions,
    has_partition,
    partition_bounds,
)
from kalshi_platform.storage.statements import compile_statement, run
from kalshi_platform.transform.candles import (
    COLUMNS,
    MEASURES,
    Interval,
    candles_from_trades,
    roll_up,
)

# One writer of candles at a time, over all processes; any number that nothing else locks.
_CANDLES_LOCK = 4_246

# A day's sorts and hashes stay in memory, few of them live at once; and a day is worth the workers
# that are free.
_PLANNING = {
    "work_mem": "256MB",
    "maintenance_work_mem": "256MB",
    "parallel_tuple_cost": "0.01",
}

# A day is folded in so many slices of time: each is sorted in memory, and workers share them.
_SLICES = 8

# Up to so many stale minutes of a day are looked up one by one; beyond, the day is read whole.
_FEW_MINUTES = 100_000

_KEY = ("market_ticker", "starts_at")
_stale = table("stale_minutes", *(column(name) for name in _KEY))
_touched = table("touched_candles", *(column(name) for name in _KEY))
_fresh = table("fresh_candles", *(column(name) for name in COLUMNS))

_FRESH_KEY = "fresh_candles_key"

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
        _fold(connection, interval, day, only_touched=True)
        counts.add(interval, *_replace(connection, interval, day, only_touched=True))
        _drop_scratch(connection, _touched)


def _rebuild_interval(
    connection: psycopg.Connection[Any], interval: Interval, day: date
) -> tuple[int, int]:
    stored = interval.table
    daily = stored.info["partitions"] == "day"
    if not daily or has_partition(connection, stored, day):
        ensure_partitions(connection, [day], only=[stored])
        _fold(connection, interval, day, only_touched=False)
        return _replace(connection, interval, day, only_touched=False)
    # A day's first candles become its partition: no row is compared, none goes through an index.
    written = _fold(connection, interval, day, only_touched=False, lasting=True)
    _constrain(connection, interval)
    if adopt(connection, stored, _fresh.name, day):
        name, _, _ = partition_bounds(stored, day)
        connection.execute(f"ALTER INDEX {_FRESH_KEY} RENAME TO {name}_pkey".encode())
        return written, 0
    # Somebody made the partition meanwhile.
    return _replace(connection, interval, day, only_touched=False)


def _fold(
    connection: psycopg.Connection[Any],
    interval: Interval,
    day: date,
    *,
    only_touched: bool,
    lasting: bool = False,
) -> int:
    """Make `fresh_candles` of the day's trades or finer candles; returns its rows."""
    if only_touched or interval.finer is not None:
        parts = [_candles_of(interval, _day_window(day), day, only_touched=only_touched)]
    else:
        parts = [_candles_of(interval, each, day, only_touched=False) for each in _slices(day)]
    candles = union_all(*parts).subquery()
    # In the table's own order of columns, so that it can be attached without converting rows.
    query = compile_statement(select(*_in_order_of(interval.table, candles)))
    # Made by CREATE … AS, which is computed in parallel; INSERT … SELECT is not.
    kind, end = ("", "") if lasting else ("TEMPORARY ", "ON COMMIT DROP ")
    statement = f"CREATE {kind}TABLE {_fresh.name} {end}AS {query}"
    if len(parts) > 1:
        # With no workers within a slice, each takes a whole one, and aggregates it too.
        connection.execute("SET LOCAL min_parallel_table_scan_size = '2TB'")
    rows = connection.execute(statement.encode(), query.params, prepare=False).rowcount
    connection.execute("SET LOCAL min_parallel_table_scan_size TO DEFAULT")
    return rows


def _in_order_of(stored: Table, candles: FromClause) -> list[ColumnElement[Any]]:
    nothing = {"quote_count": literal(0, Integer), "quote_gap": false()}
    return [
        candles.c[each.name]
        if each.name in candles.c
        else cast(nothing.get(each.name, null()), each.type).label(each.name)
        for each in stored.columns
    ]


def _constrain(connection: psycopg.Connection[Any], interval: Interval) -> None:
    """Give `fresh_candles` the constraints of the interval's table."""
    changes = [
        f"ALTER {each.name} SET NOT NULL" for each in interval.table.columns if not each.nullable
    ]
    for name, value in (("quote_count", "0"), ("quote_gap", "false")):
        changes.append(f"ALTER {name} SET DEFAULT {value}")
    changes.append(f"ADD CONSTRAINT {_FRESH_KEY} PRIMARY KEY ({', '.join(_KEY)})")
    connection.execute(f"ALTER TABLE {_fresh.name} {', '.join(changes)}".encode())
    connection.execute(f"ANALYZE {_fresh.name}".encode())


def _candles_of(
    interval: Interval, window: _Window, day: date, *, only_touched: bool
) -> Select[Any]:
    """Query of the candles in a window of the day: all, or those named in `touched_candles`."""
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
    connection: psycopg.Connection[Any], interval: Interval, day: date, *, only_touched: bool
) -> tuple[int, int]:
    """Make the stored candles those of `fresh_candles`; returns the rows written and removed."""
    stored = interval.table
    held = select(exists().where(_within(stored.c.starts_at, _day_window(day))))
    if not only_touched and run(connection, held).fetchone() == (False,):
        # Nothing to compare with; in the order of the key, which its index takes best.
        candles = select(*_fresh.c).order_by(*(_fresh.c[name] for name in _KEY))
        written = run(connection, insert(stored).from_select(COLUMNS, candles)).rowcount
        _drop_scratch(connection, _fresh)
        return written, 0
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
    for name, value in _PLANNING.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _make_scratch(connection: psycopg.Connection[Any], scratch: TableClause) -> None:
    columns = ", ".join(scratch.c.keys())
    statement = (
        f"CREATE TEMPORARY TABLE {scratch.name} ON COMMIT DROP AS"  # noqa: S608 (constants)
        f" SELECT {columns} FROM stale_candles WITH NO DATA"
    )
    connection.execute(statement.encode())


def _drop_scratch(connection: psycopg.Connection[Any], scratch: TableClause) -> None:
    connection.execute(f"DROP TABLE {scratch.name}".encode())


def _same_key(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in _KEY))


def _within(instant: ColumnElement[Any], window: _Window) -> ColumnElement[bool]:
    return and_(instant >= window[0], instant < window[1])


def _slices(day: date) -> list[_Window]:
    start, end = _day_window(day)
    width = (end - start) / _SLICES
    return [(start + width * each, start + width * (each + 1)) for each in range(_SLICES)]


def _day_window(day: date) -> _Window:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)
