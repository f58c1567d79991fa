"""What a sweep over REST leaves behind: its position, closed gaps, coverage of a day."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from kalshi_platform.storage.texts import storable

WHOLE_DAY = "*"
_LONGEST_PAUSE_SECONDS = 30


def save_checkpoint(
    connection: psycopg.Connection, source: str, scope: str, position: Mapping[str, Any]
) -> None:
    """How far `scope` has come; in the transaction of the rows it speaks for."""
    connection.execute(
        "INSERT INTO ingestion_checkpoints (source, scope, position, updated_at)"
        " VALUES (%s, %s, %s, now()) ON CONFLICT (source, scope) DO UPDATE"
        " SET position = excluded.position, updated_at = excluded.updated_at",
        [source, scope, Jsonb(position)],
    )


def drop_checkpoint(connection: psycopg.Connection, source: str, scope: str) -> None:
    """Forget a position that has been reached."""
    connection.execute(
        "DELETE FROM ingestion_checkpoints WHERE source = %s AND scope = %s", [source, scope]
    )


def close_gap(
    connection: psycopg.Connection,
    gap_id: int,
    *,
    healed_by: str,
    found: int,
    missing: int,
    detail: str | None,
) -> None:
    """The gap is healed: `found` trades lie in it, `missing` of them had not been recorded."""
    connection.execute(
        "UPDATE gaps SET status = 'healed', healed_at = now(), healed_by = %s, trades_found = %s,"
        " trades_missing = %s, attempts = attempts + 1, detail = %s"
        " WHERE gap_id = %s AND status = 'open'",
        [healed_by, found, missing, detail, gap_id],
    )


def postpone_gaps(
    connection: psycopg.Connection, gap_ids: Iterable[int], detail: str, at_least_seconds: int = 0
) -> None:
    """An attempt did not close these gaps; the pause to the next grows 1, 2, 4, … 30 s."""
    connection.execute(
        "UPDATE gaps SET attempts = attempts + 1, detail = %s, next_attempt_at = clock_timestamp()"
        " + make_interval(secs => greatest(%s, least(%s, power(2, least(attempts, 30)))))"
        " WHERE gap_id = ANY(%s) AND status = 'open'",
        [storable(detail), at_least_seconds, _LONGEST_PAUSE_SECONDS, list(gap_ids)],
    )


def close_gaps_inside(
    connection: psycopg.Connection, start: datetime, end: datetime, healed_by: str
) -> int:
    """Close the open gaps in trades that lie within [start, end), all of which REST has told.

    Returns:
        How many.
    """
    return connection.execute(
        """
        UPDATE gaps SET status = 'healed', healed_at = now(), healed_by = %(healed_by)s,
               trades_found = counted.found, trades_missing = counted.missing,
               attempts = attempts + 1, detail = 'inside a sweep of the whole day'
        FROM (
            SELECT gap_id, count(trade_id) AS found,
                   count(trade_id) FILTER (WHERE feed_order IS NULL) AS missing
            FROM gaps AS inside
            LEFT JOIN trades ON traded_on BETWEEN (starts_at AT TIME ZONE 'UTC')::date
                                              AND (ends_at AT TIME ZONE 'UTC')::date
                 AND traded_at BETWEEN starts_at AND ends_at AND exact_time
            WHERE status = 'open' AND channel = 'trade'
              AND starts_at >= %(start)s AND ends_at < %(end)s
            GROUP BY gap_id
        ) AS counted
        WHERE gaps.gap_id = counted.gap_id AND gaps.status = 'open'
        """,
        {"healed_by": healed_by, "start": start, "end": end},
    ).rowcount


def write_day_coverage(
    connection: psycopg.Connection,
    day: date,
    *,
    status: str,
    held: int,
    swept: int,
    added: int,
    unconfirmed: int,
    swept_until: datetime,
) -> None:
    """The evidence for a whole day; leaves an equal row untouched."""
    connection.execute(
        "INSERT INTO coverage AS known (traded_on, market_ticker, status, trades_held,"
        " trades_swept, trades_added, trades_unconfirmed, swept_until)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (traded_on, market_ticker) DO UPDATE SET status = excluded.status,"
        " trades_held = excluded.trades_held, trades_swept = excluded.trades_swept,"
        " trades_added = excluded.trades_added,"
        " trades_unconfirmed = excluded.trades_unconfirmed,"
        " swept_until = excluded.swept_until, updated_at = now()"
        " WHERE (known.status, known.trades_held, known.trades_swept, known.trades_added,"
        " known.trades_unconfirmed, known.swept_until) IS DISTINCT FROM (excluded.status,"
        " excluded.trades_held, excluded.trades_swept, excluded.trades_added,"
        " excluded.trades_unconfirmed, excluded.swept_until)",
        [day, WHOLE_DAY, status, held, swept, added, unconfirmed, swept_until],
    )


def note_unknown_coverage(connection: psycopg.Connection, day: date, start: datetime) -> None:
    """REST could not be asked to the end; what an earlier sweep has shown stays."""
    connection.execute(
        "INSERT INTO coverage (traded_on, market_ticker, status, trades_held)"
        " SELECT %(day)s, %(all)s, 'unknown', count(*) FROM trades"
        " WHERE traded_on = %(day)s AND traded_at >= %(start)s"
        " ON CONFLICT (traded_on, market_ticker) DO NOTHING",
        {"day": day, "all": WHOLE_DAY, "start": start},
    )
