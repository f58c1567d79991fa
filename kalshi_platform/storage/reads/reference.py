"""What REST is to be asked about next: the queue that markets, events and series carry in them."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import LiteralString

import psycopg

from kalshi_platform.storage.reads.sweeps import checkpoint

# `ingestion_checkpoints.source` of everything about markets, events and series, and its scopes.
SOURCE = "reference"
REFRESHED = "refreshed"
CENSUS = "census"

# An outcome that customers hold unconfirmed goes before names that nobody has asked about yet.
_DUE_MARKETS: LiteralString = """
SELECT market_ticker FROM markets WHERE next_read_at <= now()
ORDER BY outcome_status IS NULL, next_read_at, market_ticker LIMIT %s"""

# Those of combos have to be asked for one by one: they wait for the others.
_DUE_EVENTS: LiteralString = """
SELECT event_ticker FROM events WHERE next_read_at <= now()
ORDER BY event_ticker LIKE 'KXMVE%%', next_read_at, event_ticker LIMIT %s"""

_DUE_SERIES: LiteralString = """
SELECT series_ticker FROM series WHERE next_read_at <= now()
ORDER BY next_read_at, series_ticker LIMIT %s"""

_NEXT_DUE: LiteralString = """
SELECT extract(epoch FROM least(
    (SELECT min(next_read_at) FROM markets WHERE next_read_at IS NOT NULL),
    (SELECT min(next_read_at) FROM events WHERE next_read_at IS NOT NULL),
    (SELECT min(next_read_at) FROM series WHERE next_read_at IS NOT NULL)) - now())::float8"""

# Traded on these days, and REST has not told of it since `since`. Combos are in no list of a day:
# one that was read before its end is asked for again.
_UNREAD_TRADED: LiteralString = """
SELECT market_ticker FROM markets
WHERE (metadata IS NULL OR is_combo AND outcome_status IS DISTINCT FROM 'finalized')
  AND (not_found_at IS NULL OR not_found_at < %(since)s)
  AND market_ticker > %(after)s
  AND EXISTS (SELECT FROM trades WHERE trades.market_ticker = markets.market_ticker
              AND traded_on = ANY(%(days)s))
ORDER BY market_ticker LIMIT %(limit)s"""

_EVENTS_OF_DAYS: LiteralString = """
SELECT event_ticker FROM events
WHERE next_read_at <= now() AND EXISTS (
    SELECT FROM markets WHERE markets.event_ticker = events.event_ticker
    AND (created_at >= %(start)s AND created_at < %(end)s
         OR exchange_updated_at >= %(start)s AND exchange_updated_at < %(end)s
         OR closes_at >= %(start)s AND closes_at < %(end)s
         OR EXISTS (SELECT FROM trades WHERE trades.market_ticker = markets.market_ticker
                    AND traded_on >= %(start)s::date AND traded_on < %(end)s::date)))
ORDER BY event_ticker LIKE 'KXMVE%%', event_ticker LIMIT %(limit)s"""


def completed_at(connection: psycopg.Connection) -> datetime | None:
    """When a sync last asked for everything and was answered; our clock."""
    saved = checkpoint(connection, SOURCE, REFRESHED)
    at = saved[0].get("at") if saved else None
    return datetime.fromisoformat(at) if isinstance(at, str) else None


def due_markets(connection: psycopg.Connection, limit: int) -> list[str]:
    """Markets whose turn has come: those with an outcome to confirm first, then by their turn."""
    return _tickers(connection, _DUE_MARKETS, limit)


def due_events(connection: psycopg.Connection, limit: int) -> list[str]:
    """Events whose turn has come: ordinary ones before those of combos."""
    return _tickers(connection, _DUE_EVENTS, limit)


def due_series(connection: psycopg.Connection, limit: int) -> list[str]:
    """Series whose turn has come."""
    return _tickers(connection, _DUE_SERIES, limit)


def seconds_to_next_due(connection: psycopg.Connection) -> float | None:
    """How long until something is due, negative for how long something has been; None: nothing."""
    row = connection.execute(_NEXT_DUE).fetchone()
    assert row is not None, "a query of one expression answers one row"
    return None if row[0] is None else float(row[0])


def unread_traded_markets(
    connection: psycopg.Connection,
    days: Sequence[date],
    *,
    since: datetime,
    after: str,
    limit: int,
) -> list[str]:
    """Markets that traded on `days` and that no list of a day completes, in order, after `after`.

    They are known by name alone, or are combos that were not final when last read.

    Args:
        since: one that REST has not known since then is left out.
    """
    values = {"days": list(days), "since": since, "after": after, "limit": limit}
    return [ticker for (ticker,) in connection.execute(_UNREAD_TRADED, values)]


def due_events_of_days(
    connection: psycopg.Connection, start: datetime, end: datetime, limit: int
) -> list[str]:
    """Due events with a market created, changed, closed or traded in [start, end)."""
    values = {"start": start, "end": end, "limit": limit}
    return [ticker for (ticker,) in connection.execute(_EVENTS_OF_DAYS, values)]


def _tickers(connection: psycopg.Connection, statement: LiteralString, limit: int) -> list[str]:
    return [ticker for (ticker,) in connection.execute(statement, [limit])]
