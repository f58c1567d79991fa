"""What is held of an interval, to compare with what the exchange reports of it."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row

# Clock ticks of two machines and trades on their way: a younger gap is not asked for yet.
_YOUNGEST_GAP = "1.5 seconds"
# First half of the advisory locks that sweeps of a day hold; the second is the day's ordinal.
DAY_LOCKS = 4_248


class HeldTrade(NamedTuple):
    """A trade as held, without its time."""

    trade_id: str
    exact_time: bool
    is_block_trade: bool | None
    yes_price_micros: int
    count_centis: int
    taker_side: str
    market_ticker: str


class DueGap(NamedTuple):
    """An open gap whose turn has come."""

    gap_id: int
    starts_at: datetime
    ends_at: datetime
    age_seconds: float
    """Since its end; by our clock where the exchange's is ahead of it."""


class Evidence(NamedTuple):
    """What speaks for REST having told everything of an interval."""

    found: int
    """Trades in the interval that REST reported."""
    missing: int
    """Of those, the ones that the feed had not brought."""
    unconfirmed: int
    """Trades of the feed in the interval and its margins that REST has not reported."""
    later: bool
    """The feed has a trade after the interval."""
    later_confirmed: bool
    """REST has reported such a trade."""


class DayCounts(NamedTuple):
    """One UTC day's trades up to an instant."""

    held: int
    swept: int
    """Reported by REST."""
    rest_alone: int
    """Of those, the ones that the feed had not brought."""
    unconfirmed: int
    first_awaited_at: datetime | None
    """The first trade that REST may still report: it is young, or REST has reported none later."""


class MarketDifference(NamedTuple):
    """One market in which feed and REST differ."""

    market_ticker: str
    rest_alone: int
    unconfirmed: int


def held_trades(
    connection: psycopg.Connection, days: Iterable[date], trade_ids: Iterable[str]
) -> dict[str, HeldTrade]:
    """Those of `trade_ids` that are held, by id in the canonical spelling."""
    rows = connection.execute(
        "SELECT trade_id::text, exact_time, is_block_trade, yes_price_micros, count_centis,"
        " taker_side, market_ticker FROM trades"
        " WHERE traded_on = ANY(%s) AND trade_id = ANY(%s::uuid[])",
        [sorted(days), list(trade_ids)],
    )
    return {row[0]: HeldTrade._make(row) for row in rows}


def due_gaps(connection: psycopg.Connection, only: Iterable[int] | None = None) -> list[DueGap]:
    """Open gaps in trades whose next attempt is due, the earliest first."""
    with connection.cursor(row_factory=class_row(DueGap)) as cursor:
        return cursor.execute(
            f"""
            SELECT gap_id, starts_at, ends_at,
                   extract(epoch FROM now() - least(ends_at, detected_at))::float8 AS age_seconds
            FROM gaps
            WHERE status = 'open' AND channel = 'trade' AND next_attempt_at <= now()
              AND least(ends_at, detected_at) <= now() - interval '{_YOUNGEST_GAP}'
              AND (%(only)s::bigint[] IS NULL OR gap_id = ANY(%(only)s::bigint[]))
            ORDER BY starts_at, gap_id
            """,  # noqa: S608
            {"only": None if only is None else list(only)},
        ).fetchall()


def first_feed_trade_after(connection: psycopg.Connection, instant: datetime) -> datetime | None:
    """When the feed's first trade within a minute after `instant` was made."""
    row = connection.execute(
        "SELECT min(traded_at) FROM trades WHERE feed_order IS NOT NULL"
        " AND traded_at > %(at)s AND traded_at < %(at)s + interval '1 minute'"
        " AND traded_on BETWEEN (%(at)s AT TIME ZONE 'UTC')::date"
        " AND ((%(at)s + interval '1 minute') AT TIME ZONE 'UTC')::date",
        {"at": instant},
    ).fetchone()
    return row[0] if row else None


def gap_evidence(
    connection: psycopg.Connection, gaps: Sequence[DueGap], margin_seconds: int
) -> dict[int, Evidence]:
    """Compare feed and REST in each gap, its margins, and the minute after it; by gap_id."""
    # One pass over the trades for all gaps, which are neighbours: there is no index by time alone.
    rows = connection.execute(
        """
        WITH near AS MATERIALIZED (
            SELECT traded_at, feed_order IS NOT NULL AS fed, exact_time
            FROM trades
            WHERE traded_on BETWEEN ((%(start)s - %(margin)s) AT TIME ZONE 'UTC')::date
                                AND ((%(end)s + interval '1 minute') AT TIME ZONE 'UTC')::date
              AND traded_at >= %(start)s - %(margin)s
              AND traded_at < %(end)s + interval '1 minute'
        )
        SELECT gap_id,
               count(*) FILTER (WHERE inside AND exact_time),
               count(*) FILTER (WHERE inside AND exact_time AND NOT fed),
               count(*) FILTER (WHERE traded_at <= ends_at + %(margin)s AND fed AND NOT exact_time),
               coalesce(bool_or(traded_at > ends_at AND fed), false),
               coalesce(bool_or(traded_at > ends_at AND fed AND exact_time), false)
        FROM gaps
        LEFT JOIN near ON traded_at >= starts_at - %(margin)s
                      AND traded_at < ends_at + interval '1 minute'
        CROSS JOIN LATERAL (SELECT traded_at BETWEEN starts_at AND ends_at AS inside) AS placed
        WHERE gap_id = ANY(%(ids)s)
        GROUP BY gap_id
        """,
        {
            "start": min(gap.starts_at for gap in gaps),
            "end": max(gap.ends_at for gap in gaps),
            "margin": timedelta(seconds=margin_seconds),
            "ids": [gap.gap_id for gap in gaps],
        },
    )
    return {gap_id: Evidence(*values) for gap_id, *values in rows}


def day_counts(
    connection: psycopg.Connection, day: date, until: datetime, young_since: datetime
) -> DayCounts:
    """Trades of `day` before `until`; those unconfirmed since `young_since` may still come."""
    with connection.cursor(row_factory=class_row(DayCounts)) as cursor:
        row = cursor.execute(
            """
            SELECT count(*) AS held,
                   count(*) FILTER (WHERE exact_time) AS swept,
                   count(*) FILTER (WHERE exact_time AND feed_order IS NULL) AS rest_alone,
                   count(*) FILTER (WHERE NOT exact_time AND traded_at < %(young)s) AS unconfirmed,
                   min(traded_at) FILTER (
                       WHERE NOT exact_time AND (traded_at >= %(young)s OR CASE
                           WHEN traded_at > (SELECT coalesce(max(traded_at), '-infinity')
                                             FROM trades WHERE traded_on = %(day)s AND exact_time)
                           THEN NOT EXISTS (SELECT FROM trades
                                            WHERE traded_on = %(day)s + 1 AND exact_time)
                       END)
                   ) AS first_awaited_at
            FROM trades WHERE traded_on = %(day)s AND traded_at < %(until)s
            """,
            {"day": day, "until": until, "young": young_since},
        ).fetchone()
    assert row is not None, "an aggregate without GROUP BY has one row"
    return row


def market_differences(
    connection: psycopg.Connection, day: date, until: datetime, limit: int
) -> list[MarketDifference]:
    """The markets in which feed and REST differ most."""
    with connection.cursor(row_factory=class_row(MarketDifference)) as cursor:
        return cursor.execute(
            """
            SELECT market_ticker,
                   count(*) FILTER (WHERE feed_order IS NULL) AS rest_alone,
                   count(*) FILTER (WHERE NOT exact_time) AS unconfirmed
            FROM trades
            WHERE traded_on = %s AND traded_at < %s AND (feed_order IS NULL OR NOT exact_time)
            GROUP BY market_ticker ORDER BY count(*) DESC, market_ticker LIMIT %s
            """,
            [day, until, limit],
        ).fetchall()


def open_gaps_touching(connection: psycopg.Connection, start: datetime, end: datetime) -> int:
    """How many open gaps in trades overlap [start, end)."""
    row = connection.execute(
        "SELECT count(*) FROM gaps WHERE status = 'open' AND channel = 'trade'"
        " AND starts_at < %s AND ends_at >= %s",
        [end, start],
    ).fetchone()
    assert row is not None, "an aggregate without GROUP BY has one row"
    return int(row[0])


def checkpoint(
    connection: psycopg.Connection, source: str, scope: str
) -> tuple[dict[str, object], float] | None:
    """The position last saved for `scope`, and its age in seconds."""
    row = connection.execute(
        "SELECT position, extract(epoch FROM now() - updated_at)::float8"
        " FROM ingestion_checkpoints WHERE source = %s AND scope = %s",
        [source, scope],
    ).fetchone()
    return (row[0], row[1]) if row else None


def known_rejections(
    connection: psycopg.Connection, source: str, received_at: datetime, messages: Iterable[bytes]
) -> set[bytes]:
    """Those of `messages` that were refused already on that day."""
    rows = connection.execute(
        "SELECT message FROM rejected_messages WHERE source = %s AND message = ANY(%s)"
        " AND received_at >= date_trunc('day', %s::timestamptz)",
        [source, list(messages), received_at],
    )
    return {bytes(message) for (message,) in rows}
