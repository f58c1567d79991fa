"""The queue for REST: what an answer without the thing asked for leaves behind."""

from collections.abc import Collection
from typing import Literal, LiteralString

import psycopg

Kind = Literal["markets", "events", "series"]

# Told by the stream, not yet by REST: that will pass soon, and customers wait for it.
_OUTCOME_AWAITED: LiteralString = "outcome_status IS NOT NULL AND outcome_status <> 'finalized'"

# Locked in order of their names, so that two writers never wait for each other in a ring.
_POSTPONE: LiteralString = """
WITH asked AS (
    SELECT {ticker} FROM {table}
    WHERE {ticker} = ANY(%(tickers)s) AND (next_read_at <= now() OR %(missing)s)
          AND next_read_at IS NOT NULL
    ORDER BY {ticker} FOR UPDATE
)
UPDATE {table} SET read_attempts = read_attempts + 1,
    not_found_at = CASE WHEN %(missing)s THEN now() ELSE not_found_at END,
    next_read_at = now() + CASE
        WHEN {awaited} THEN make_interval(secs => least(600, 5 * power(2, least(read_attempts, 9))))
        WHEN first_seen_at < now() - interval '1 day' THEN interval '1 day'
        ELSE make_interval(secs => least(3600, 5 * power(2, least(read_attempts, 12))))
    END
FROM asked WHERE {table}.{ticker} = asked.{ticker}
"""

_STATEMENTS: dict[Kind, LiteralString] = {
    "markets": _POSTPONE.replace("{table}", "markets")
    .replace("{ticker}", "market_ticker")
    .replace("{awaited}", _OUTCOME_AWAITED),
    "events": _POSTPONE.replace("{table}", "events")
    .replace("{ticker}", "event_ticker")
    .replace("{awaited}", "false"),
    "series": _POSTPONE.replace("{table}", "series")
    .replace("{ticker}", "series_ticker")
    .replace("{awaited}", "false"),
}


def note_missing(connection: psycopg.Connection, kind: Kind, tickers: Collection[str]) -> None:
    """REST has none of these; the pause to the next question grows from 5 s to an hour.

    After a day it is asked once a day; for an outcome to confirm, every ten minutes at least. The
    caller commits.
    """
    _postpone(connection, kind, tickers, missing=True)


def postpone_reads(connection: psycopg.Connection, kind: Kind, tickers: Collection[str]) -> None:
    """Those of these that are still due were asked about in vain, whatever the reason.

    They are asked about again as in `note_missing`. Who moved on meanwhile stays in its place.
    """
    _postpone(connection, kind, tickers, missing=False)


def _postpone(
    connection: psycopg.Connection, kind: Kind, tickers: Collection[str], *, missing: bool
) -> None:
    if tickers:
        values = {"tickers": sorted(tickers), "missing": missing}
        connection.execute(_STATEMENTS[kind], values)
