"""Which order books to watch: markets that were asked for and are open, and the busiest ones."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import LiteralString, NamedTuple

import psycopg

# `ingestion_checkpoints`: what the recorder says of the books that it is to watch.
SOURCE = "books"
WATCH = "watch"

# How long markets are compared for which is the busiest.
BUSY_MINUTES = 15

# Longest that a book is believed on the strength of its deltas alone.
_PROOF_MINUTES = 60
# The loader holds each snapshot to its deltas, some milliseconds each.
_MOST_OUTDATED = 25

# The loader keeps how far each channel has come by the exchange's clock, which may be ahead of
# ours or, where a recording is replayed, far behind.
_CLOCK: LiteralString = """
SELECT to_timestamp(max(until) / 1000.0), to_timestamp(max(until) FILTER (
    WHERE channel = 'trade') / 1000.0)
FROM ingestion_checkpoints, jsonb_each(position -> 'feed' -> 'channels') AS of (channel, state),
     CAST(state ->> 'complete_until_ms' AS bigint) AS until
WHERE source = 'ws' AND scope = 'tape'"""

_CLOSED: LiteralString = """
SELECT market_ticker FROM markets
WHERE market_ticker = ANY(%(tickers)s) AND (outcome_status IS NOT NULL OR closes_at <= %(now)s)"""

# Of a market that is known by name alone nothing speaks against its being open. One that opens in
# a moment is watched from its first order on.
_OPEN: LiteralString = """outcome_status IS NULL
    AND (closes_at IS NULL OR closes_at > %(now)s)
    AND (opens_at IS NULL OR opens_at <= %(now)s + interval '1 minute')"""

_OF_SERIES: LiteralString = """
SELECT market_ticker FROM markets WHERE series_ticker = ANY(%(series)s) AND {open}
ORDER BY array_position(%(series)s, series_ticker), closes_at, market_ticker
LIMIT %(most)s""".replace("{open}", _OPEN)

# traded_on lets the planner skip every partition but the last days'.
_BUSIEST: LiteralString = """
WITH busy AS MATERIALIZED (
    SELECT market_ticker, count(*) AS trades FROM trades
    WHERE traded_on >= (%(traded_at)s - make_interval(mins => %(minutes)s))::date
      AND traded_at >= %(traded_at)s - make_interval(mins => %(minutes)s)
      AND traded_at <= %(traded_at)s + interval '1 minute'
    GROUP BY market_ticker
)
SELECT market_ticker FROM busy JOIN markets USING (market_ticker)
WHERE NOT is_combo AND {open}
ORDER BY trades DESC, market_ticker LIMIT %(most)s""".replace("{open}", _OPEN)

# The loader sets its gauges about once a second, those of a channel when it has said something.
_LAG: LiteralString = """
SELECT coalesce(max(value) FILTER (WHERE name = 'loaded_lag_seconds'), 0) FROM ingestion_metrics
WHERE name IN ('loaded_lag_seconds', 'loader_seen_at_seconds')
  AND updated_at > now() - interval '5 seconds'
HAVING bool_or(name = 'loader_seen_at_seconds')"""


# By the receiver's clock: what is replayed tells of days long gone.
_OUTDATED: LiteralString = """
SELECT market_ticker FROM book_watches AS watch
LEFT JOIN LATERAL (
    SELECT received_at FROM book_snapshots
    WHERE market_ticker = watch.market_ticker AND source = 'exchange'
      AND sid = watch.sid AND feed_order >= watch.start_order
    ORDER BY at DESC LIMIT 1
) AS last ON true
WHERE watch.ends_at IS NULL AND market_ticker = ANY(%(watched)s) AND (
    last.received_at IS NULL OR last.received_at < now() - make_interval(mins => %(minutes)s))
ORDER BY last.received_at NULLS FIRST, market_ticker LIMIT %(most)s"""


class FeedClock(NamedTuple):
    """How far the recording has come, by the exchange's clock."""

    now: datetime
    traded_at: datetime | None
    """Time of the newest trade."""


def feed_clock(connection: psycopg.Connection) -> FeedClock | None:
    """The exchange's time as of the last message loaded; None if none ever was."""
    row = connection.execute(_CLOCK).fetchone()
    return None if row is None or row[0] is None else FeedClock(*row)


def closed_among(connection: psycopg.Connection, tickers: Sequence[str], now: datetime) -> set[str]:
    """Those of these markets that are known not to trade any more at `now`."""
    values = {"tickers": list(tickers), "now": now}
    return set(_tickers(connection, _CLOSED, values))


def open_markets_of(
    connection: psycopg.Connection, series: Sequence[str], now: datetime, most: int
) -> list[str]:
    """Markets of these series that are open at `now`: by series, then those that close first."""
    return _tickers(connection, _OF_SERIES, {"series": list(series), "now": now, "most": most})


def busiest_markets(connection: psycopg.Connection, clock: FeedClock, most: int) -> list[str]:
    """Open ordinary markets by number of trades in the minutes before the newest one."""
    if clock.traded_at is None:
        return []
    values = {
        "traded_at": clock.traded_at,
        "now": clock.now,
        "minutes": BUSY_MINUTES,
        "most": most,
    }
    return _tickers(connection, _BUSIEST, values)


def open_watches(connection: psycopg.Connection) -> set[str]:
    """Markets whose book is known now."""
    return {
        ticker
        for (ticker,) in connection.execute(
            "SELECT market_ticker FROM book_watches WHERE ends_at IS NULL"
        )
    }


def outdated_books(connection: psycopg.Connection, watched: Iterable[str]) -> list[str]:
    """Some of these books that are known now, and that the exchange has not told whole for an hour.

    What no number shows to be lost, only a snapshot can. And a quiet book would lose the only one
    it has when old days are dropped.
    """
    values = {"watched": [*watched], "minutes": _PROOF_MINUTES, "most": _MOST_OUTDATED}
    return _tickers(connection, _OUTDATED, values)


def loader_lag(connection: psycopg.Connection) -> float | None:
    """Seconds from a frame's receipt until it is in the tables; None where no loader is at work."""
    row = connection.execute(_LAG).fetchone()
    return None if row is None else row[0]


def _tickers(
    connection: psycopg.Connection, statement: LiteralString, values: dict[str, object]
) -> list[str]:
    return [ticker for (ticker,) in connection.execute(statement, values)]
