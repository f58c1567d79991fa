"""Snapshots of our own: they bound what a rebuild must read, between the exchange's.

Each is one statement, so it sees the books and their watches as of one commit of the loader: what
a watch holds then is known without a gap up to the last delta seen.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg

from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.transform.books import books_at, last_snapshot

_COUNT = f"""\
SELECT watch.market_ticker, base.feed_order,
       coalesce(since.until, known.until, base.at),
       coalesce(known.deltas, 0) + since.deltas,
       base.received_at < now() - make_interval(secs => %(longest_seconds)s)
FROM book_watches AS watch
CROSS JOIN LATERAL (
    SELECT at, received_at, feed_order
    {last_snapshot("watch.market_ticker", "'infinity'")}
) AS base
LEFT JOIN unnest(%(market_tickers)s::text[], %(base_orders)s::bigint[],
                 %(untils)s::timestamptz[], %(deltas)s::bigint[])
       AS known (market_ticker, base_order, until, deltas)
  ON known.market_ticker = watch.market_ticker AND known.base_order = base.feed_order
CROSS JOIN LATERAL (
    SELECT count(*) AS deltas, max(at) AS until
    FROM book_deltas
    WHERE market_ticker = watch.market_ticker AND at > coalesce(known.until, base.at)
      AND feed_order > base.feed_order
) AS since
WHERE watch.ends_at IS NULL AND base.feed_order >= watch.start_order"""  # noqa: S608  (constants)

_NEWEST = (
    "(SELECT market_ticker, 'infinity'::timestamptz AS at"
    " FROM unnest(%(market_tickers)s::text[]) AS market_ticker) AS moment"
)
_REBUILD = f"""\
WITH rebuilt AS MATERIALIZED (
    SELECT watch.watch_id, book.*
    FROM (
{books_at(_NEWEST)}
    ) AS book
    JOIN book_watches AS watch
      ON watch.market_ticker = book.market_ticker AND watch.ends_at IS NULL
     AND watch.connection = book.connection AND watch.sid = book.sid
     AND watch.start_order <= book.base_order
    WHERE book.deltas > 0
),
taken AS (
    INSERT INTO book_snapshots (at, received_at, feed_order, seq, sid, source, market_ticker,
                                yes_micros, yes_centis, no_micros, no_centis)
    SELECT last_at, now(), last_order, base_seq, sid, 'own', market_ticker,
           yes_micros, yes_centis, no_micros, no_centis
    FROM rebuilt
    WHERE lowest_centis >= 0
    RETURNING market_ticker
),
ended AS (
    UPDATE book_watches AS watch
    SET ended_by = %(below_zero)s, ends_at = greatest(watch.starts_at, (
            SELECT max(at) FROM book_snapshots AS told
            WHERE told.market_ticker = watch.market_ticker AND told.sid = watch.sid
              AND told.source = 'exchange'
              AND told.feed_order BETWEEN watch.start_order AND rebuilt.base_order))
    FROM rebuilt
    WHERE watch.watch_id = rebuilt.watch_id AND rebuilt.lowest_centis < 0
      AND watch.ends_at IS NULL
    RETURNING rebuilt.market_ticker, watch.ends_at, rebuilt.last_at, rebuilt.connection
)
SELECT market_ticker, NULL::timestamptz, NULL::timestamptz, NULL::bigint FROM taken
UNION ALL
SELECT * FROM ended"""  # noqa: S608  (constants)

BELOW_ZERO = "a level below zero"


class Counted(NamedTuple):
    """Deltas of one book since its last snapshot."""

    market_ticker: str
    base_order: int
    until: datetime
    deltas: int
    old: bool


class Taken(NamedTuple):
    """What became of some books."""

    kept: int
    below_zero: list[str]
    """Markets whose deltas do not fit their snapshot; they are watched no longer."""


def count_deltas(
    connection: psycopg.Connection, known: Iterable[Counted], longest_seconds: float
) -> list[Counted]:
    """How many deltas followed the last snapshot of each book that is known.

    Only a measure of the work that a rebuild would be: a delta older than one that was counted
    before is left out.

    Args:
        known: the last answer; what it counted is not read again.
        longest_seconds: a snapshot older than this is old.
    """
    columns = [*zip(*known, strict=True)] or [()] * len(Counted._fields)
    rows = connection.execute(
        _COUNT.encode(),
        {
            "longest_seconds": longest_seconds,
            "market_tickers": [*columns[0]],
            "base_orders": [*columns[1]],
            "untils": [*columns[2]],
            "deltas": [*columns[3]],
        },
        prepare=False,
    )
    return [Counted(*row) for row in rows]


def take_snapshots(connection: psycopg.Connection, market_tickers: Sequence[str]) -> Taken:
    """Rebuild these books as they are and keep them; the caller commits.

    A book with fewer than no contracts at a price is kept for nobody: something was lost that no
    number showed. Its watch ends where the exchange last told it whole, and the time since is a
    gap.
    """
    rows = connection.execute(
        _REBUILD.encode(),
        {"market_tickers": [*market_tickers], "below_zero": BELOW_ZERO},
        prepare=False,
    ).fetchall()
    below_zero = [row for row in rows if row[1] is not None]
    for market_ticker, whole_at, last_at, number in below_zero:
        open_gap(
            connection,
            Gap(
                "orderbook_delta",
                BELOW_ZERO,
                whole_at,
                last_at,
                connection=number,
                market_ticker=market_ticker,
            ),
        )
    return Taken(len(rows) - len(below_zero), [row[0] for row in below_zero])
