"""Order books as the feed tells them: snapshots, deltas, and the watches that say what is known.

A watch is an interval without a gap. Which are open, the table alone says: the loader tells what
begins and ends in the order of the feed, without knowing what was open before.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from struct import Struct
from typing import NamedTuple

import psycopg

from kalshi_platform.storage.bulk import POSTGRES_EPOCH_MICROS, copy_binary, text_field
from kalshi_platform.storage.texts import storable
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.transform.books import CLOCK_SECONDS, levels_that_differ

_DELTA_COLUMNS = (
    "at",
    "received_at",
    "feed_order",
    "seq",
    "delta_centis",
    "price_micros",
    "sid",
    "side",
    "market_ticker",
)
_DELTA = Struct(">h" + "iq" * 5 + "ii" * 2).pack
_SNAPSHOT_COLUMNS = (
    "at, received_at, feed_order, seq, sid, source, market_ticker,"
    " yes_micros, yes_centis, no_micros, no_centis"
)

DIFFERS = "a snapshot that its deltas do not make"


class SnapshotRow(NamedTuple):
    """One row of `book_snapshots` as the exchange sent it; sides as contracts by price."""

    at: datetime
    received_at: datetime
    feed_order: int
    seq: int
    sid: int
    market_ticker: str
    yes: Mapping[int, int]
    no: Mapping[int, int]


class WatchBegins(NamedTuple):
    """A snapshot by which a book is known from now on, unless it was known before."""

    market_ticker: str
    at: datetime
    feed_order: int
    connection: int
    sid: int
    use_yes_price: bool


class WatchEnds(NamedTuple):
    """What was known goes on no further; of all books, but for those of which it is said."""

    at: datetime | None
    """First instant not known complete; None: from the watch's beginning."""
    ended_by: str
    market_ticker: str | None = None
    """This one's alone."""
    kept: frozenset[str] = frozenset()
    """All but these."""


WatchChange = WatchBegins | WatchEnds


def encode_delta(
    at_micros: int,
    received_at_micros: int,
    feed_order: int,
    seq: int,
    sid: int,
    side: str,
    price_micros: int,
    delta_centis: int,
    market_ticker: str,
) -> bytes:
    """One row of `book_deltas` in COPY BINARY; times in Unix microseconds."""
    return _DELTA(
        len(_DELTA_COLUMNS),
        8,
        at_micros - POSTGRES_EPOCH_MICROS,
        8,
        received_at_micros - POSTGRES_EPOCH_MICROS,
        8,
        feed_order,
        8,
        seq,
        8,
        delta_centis,
        4,
        price_micros,
        4,
        sid,
    ) + _side_of(side, market_ticker)


@lru_cache(maxsize=1 << 14)
def _side_of(side: str, market_ticker: str) -> bytes:
    return text_field(side) + text_field(market_ticker)


def add_deltas(connection: psycopg.Connection, rows: Sequence[bytes]) -> None:
    """Append encoded deltas; the caller has made the partitions and commits."""
    copy_binary(connection, "book_deltas", _DELTA_COLUMNS, rows)


def add_snapshots(connection: psycopg.Connection, rows: Iterable[SnapshotRow]) -> None:
    """Append snapshots of the exchange; the caller has made the partitions and commits."""
    statement = f"COPY book_snapshots ({_SNAPSHOT_COLUMNS}) FROM STDIN".encode()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(
                (
                    row.at,
                    row.received_at,
                    row.feed_order,
                    row.seq,
                    row.sid,
                    "exchange",
                    row.market_ticker,
                    _array(row.yes),
                    _array(row.yes.values()),
                    _array(row.no),
                    _array(row.no.values()),
                )
            )


def _array(values: Iterable[int]) -> str:
    return f"{{{','.join(map(str, values))}}}"


def change_watches(connection: psycopg.Connection, changes: Iterable[WatchChange]) -> list[str]:
    """Apply what the feed told, in its order, once its rows are written; the caller commits.

    Returns:
        Markets with a snapshot in the middle of a watch that the deltas before it do not make:
        something was lost that no number showed. Where the book was last told whole its watch has
        ended, a gap reaches from there to the snapshot, and a new watch begins with it.
    """
    differ: list[str] = []
    for kind, group in groupby(changes, type):
        if kind is WatchBegins:
            differ += _begin(
                connection, [change for change in group if isinstance(change, WatchBegins)]
            )
            continue
        for change in group:
            if isinstance(change, WatchEnds):
                _end(connection, change)
    return differ


def _begin(connection: psycopg.Connection, begun: Sequence[WatchBegins]) -> list[str]:
    first: dict[str, WatchBegins] = {}
    for each in begun:
        first.setdefault(each.market_ticker, each)
    begins = _insert(connection, first.values())
    again = [
        each
        for each in begun
        if each is not first[each.market_ticker] or each.market_ticker not in begins
    ]
    return _doubt(connection, again) if again else []


def _insert(connection: psycopg.Connection, begun: Iterable[WatchBegins]) -> set[str]:
    """Begin watches of books that are not known; the markets that were not."""
    columns = zip(*begun, strict=True)
    rows = connection.execute(
        "INSERT INTO book_watches"
        " (market_ticker, starts_at, start_order, connection, sid, use_yes_price)"
        " SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::bigint[], %s::bigint[],"
        " %s::integer[], %s::boolean[])"
        " AS begun (market_ticker, starts_at, start_order, connection, sid, use_yes_price)"
        " WHERE NOT EXISTS (SELECT FROM book_watches AS known"
        " WHERE known.market_ticker = begun.market_ticker AND known.ends_at IS NULL"
        " AND known.connection = begun.connection AND known.sid = begun.sid)"
        " RETURNING market_ticker",
        [list(column) for column in columns],
    )
    return {market for (market,) in rows}


# The snapshot before, of whatever source, is looked for by its time, with which goes the index.
_BEFORE = """FROM book_snapshots AS earlier
        WHERE earlier.market_ticker = watch.market_ticker AND earlier.sid = watch.sid
          AND earlier.feed_order >= watch.start_order AND earlier.feed_order < told.feed_order"""
_DIFFER = f"""\
WITH again AS (
    SELECT told.*, watch.sid, watch.watch_id, before.at AS before_at,
           before.feed_order AS before_order
    FROM unnest(%(market_tickers)s::text[], %(ats)s::timestamptz[], %(feed_orders)s::bigint[])
             AS told (market_ticker, at, feed_order)
    JOIN book_watches AS watch
      ON watch.market_ticker = told.market_ticker AND watch.ends_at IS NULL
     AND watch.connection = told.feed_order >> 32
    CROSS JOIN LATERAL (
        SELECT at, feed_order {_BEFORE}
          AND at >= (SELECT max(at) {_BEFORE}) - interval '{CLOCK_SECONDS} seconds'
        ORDER BY feed_order DESC LIMIT 1
    ) AS before
    -- A clock that was put back tells nothing of what lies between.
    WHERE before.at <= told.at + interval '{CLOCK_SECONDS} seconds'
), {levels_that_differ("again")}
SELECT told.market_ticker, told.feed_order, least(told.at, greatest(watch.starts_at, (
           SELECT max(at) {_BEFORE} AND source = 'exchange'
       )))
FROM again AS told JOIN book_watches AS watch USING (watch_id)
WHERE (told.market_ticker, told.feed_order) IN (SELECT market_ticker, feed_order FROM wrong)
ORDER BY told.feed_order"""  # noqa: S608  (constants)


def _doubt(connection: psycopg.Connection, again: Sequence[WatchBegins]) -> list[str]:
    """Hold snapshots of books that are known to the deltas before them; the markets that differ."""
    rows = connection.execute(
        _DIFFER.encode(),
        {
            "market_tickers": [each.market_ticker for each in again],
            "ats": [each.at for each in again],
            "feed_orders": [each.feed_order for each in again],
        },
        prepare=False,
    ).fetchall()
    by_order = {each.feed_order: each for each in again}
    for market_ticker, feed_order, whole_at in rows:
        told = by_order[feed_order]
        _end(connection, WatchEnds(whole_at, DIFFERS, market_ticker))
        _insert(connection, [told])
        open_gap(
            connection,
            Gap(
                "orderbook_delta",
                DIFFERS,
                whole_at,
                told.at,
                connection=told.connection,
                market_ticker=market_ticker,
            ),
        )
    return [market_ticker for market_ticker, _, _ in rows]


def _end(connection: psycopg.Connection, end: WatchEnds) -> None:
    connection.execute(
        "UPDATE book_watches"
        " SET ends_at = greatest(starts_at, %(at)s::timestamptz), ended_by = %(ended_by)s"
        " WHERE ends_at IS NULL"
        " AND (%(market_ticker)s::text IS NULL OR market_ticker = %(market_ticker)s)"
        " AND NOT market_ticker = ANY(%(kept)s)",
        {
            "at": end.at,
            "ended_by": storable(end.ended_by),
            "market_ticker": end.market_ticker,
            "kept": [*end.kept],
        },
    )
