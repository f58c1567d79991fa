"""Snapshots of our own: they bound what a rebuild must read, between the exchange's.

Each is one statement, so it sees the books and their watches as of one commit of the loader: what
a watch holds then is known without a gap up to the last delta seen.
"""

from collections.abc import Sequence
from typing import LiteralString, NamedTuple

import psycopg

from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.transform.books import CLOCK_SECONDS, books_at

_DUE: LiteralString = """\
SELECT watch.market_ticker
FROM book_watches AS watch
CROSS JOIN LATERAL (
    SELECT at, feed_order
    FROM book_snapshots
    WHERE market_ticker = watch.market_ticker
    ORDER BY at DESC, feed_order DESC
    LIMIT 1
) AS base
CROSS JOIN LATERAL (
    SELECT count(*) AS deltas
    FROM (
        SELECT
        FROM book_deltas
        WHERE market_ticker = watch.market_ticker AND feed_order > base.feed_order
          AND at >= base.at - make_interval(secs => %(clock_seconds)s)
        LIMIT %(most_deltas)s
    ) AS counted
) AS since
WHERE watch.ends_at IS NULL AND base.feed_order >= watch.start_order
  AND (since.deltas >= %(most_deltas)s
       OR since.deltas > 0 AND base.at < now() - make_interval(secs => %(longest_seconds)s))
ORDER BY since.deltas DESC, watch.market_ticker"""

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
    SET ends_at = greatest(watch.starts_at, rebuilt.base_at), ended_by = %(below_zero)s
    FROM rebuilt
    WHERE watch.watch_id = rebuilt.watch_id AND rebuilt.lowest_centis < 0
      AND watch.ends_at IS NULL
    RETURNING rebuilt.market_ticker, rebuilt.base_at, rebuilt.last_at, rebuilt.connection
)
SELECT market_ticker, NULL::timestamptz, NULL::timestamptz, NULL::bigint FROM taken
UNION ALL
SELECT * FROM ended"""  # noqa: S608  (constants)

BELOW_ZERO = "a level below zero"


class Taken(NamedTuple):
    """What became of some books."""

    kept: int
    below_zero: list[str]
    """Markets whose deltas do not fit their snapshot; they are watched no longer."""


def books_due(
    connection: psycopg.Connection, most_deltas: int, longest_seconds: float
) -> list[str]:
    """Markets whose book is known and takes long to rebuild: those with most deltas first.

    Args:
        most_deltas: since the last snapshot; from so many on it is due.
        longest_seconds: since the last snapshot; from then on any delta is reason enough.
    """
    rows = connection.execute(
        _DUE,
        {
            "clock_seconds": CLOCK_SECONDS,
            "most_deltas": most_deltas,
            "longest_seconds": longest_seconds,
        },
        prepare=False,
    )
    return [market_ticker for (market_ticker,) in rows]


def take_snapshots(connection: psycopg.Connection, market_tickers: Sequence[str]) -> Taken:
    """Rebuild these books as they are and keep them; the caller commits.

    A book with fewer than no contracts at a price is kept for nobody: something was lost that no
    number showed. Its watch ends where it was last told whole, and the interval since is a gap.
    """
    rows = connection.execute(
        _REBUILD.encode(),
        {"market_tickers": [*market_tickers], "below_zero": BELOW_ZERO},
        prepare=False,
    ).fetchall()
    below_zero = [row for row in rows if row[1] is not None]
    for market_ticker, base_at, last_at, number in below_zero:
        open_gap(
            connection,
            Gap(
                "orderbook_delta",
                BELOW_ZERO,
                base_at,
                last_at,
                connection=number,
                market_ticker=market_ticker,
            ),
        )
    return Taken(len(rows) - len(below_zero), [row[0] for row in below_zero])
