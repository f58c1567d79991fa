"""What is held of a day, to compare with the exchange's own candlesticks."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row


class GapRow(NamedTuple):
    """A recorded gap of a channel; market_ticker is None where it concerns all markets."""

    market_ticker: str | None
    starts_at: datetime
    ends_at: datetime


def sample_of_day(
    connection: psycopg.Connection, day: date, *, busiest: int, drawn: int
) -> list[str]:
    """The busiest markets of the UTC day, and some of all that have a candle of it.

    The day is the seed of the draw: asked again, it gives the same markets.
    """
    rows = connection.execute(
        "WITH of_day AS (SELECT market_ticker, volume_centis FROM candles_1d"
        " WHERE starts_at = %(day)s::date::timestamptz),"
        " busiest AS (SELECT market_ticker FROM of_day WHERE volume_centis > 0"
        " ORDER BY volume_centis DESC, market_ticker LIMIT %(busiest)s),"
        " drawn AS (SELECT market_ticker FROM of_day"
        " WHERE market_ticker NOT IN (SELECT market_ticker FROM busiest)"
        " ORDER BY md5(market_ticker || %(day)s::date), market_ticker LIMIT %(drawn)s)"
        " SELECT market_ticker FROM busiest UNION ALL SELECT market_ticker FROM drawn",
        {"day": day, "busiest": busiest, "drawn": drawn},
    ).fetchall()
    return [ticker for (ticker,) in rows]


def settled_before(
    connection: psycopg.Connection, tickers: Sequence[str], instant: datetime
) -> set[str]:
    """Those of the markets whose outcome was paid before `instant`."""
    rows = connection.execute(
        "SELECT market_ticker FROM settlements WHERE market_ticker = ANY(%s) AND settled_at < %s",
        [list(tickers), instant],
    ).fetchall()
    return {ticker for (ticker,) in rows}


def candles_held(
    connection: psycopg.Connection,
    table: str,
    tickers: Sequence[str],
    start: datetime,
    end: datetime,
) -> dict[tuple[str, int], dict[str, Any]]:
    """Our candles that start in [start, end), by market and start (Unix seconds)."""
    cursor = connection.cursor(row_factory=dict_row)
    cursor.execute(
        sql.SQL(
            "SELECT * FROM {} WHERE market_ticker = ANY(%s) AND starts_at >= %s AND starts_at < %s"
        ).format(sql.Identifier(table)),
        [list(tickers), start, end],
    )
    return {(row["market_ticker"], int(row["starts_at"].timestamp())): row for row in cursor}


def candles_standing(
    connection: psycopg.Connection, tickers: Sequence[str], start: datetime
) -> dict[str, dict[str, Any]]:
    """Per market the last minute before `start` that has quotes."""
    cursor = connection.cursor(row_factory=dict_row)
    cursor.execute(
        "SELECT last.* FROM unnest(%s::text[]) AS asked (market_ticker) CROSS JOIN LATERAL ("
        " SELECT * FROM candles_1m WHERE candles_1m.market_ticker = asked.market_ticker"
        " AND starts_at < %s AND quoted_at IS NOT NULL ORDER BY starts_at DESC LIMIT 1) AS last",
        [list(tickers), start],
    )
    return {row["market_ticker"]: row for row in cursor}


def first_quoted_at(
    connection: psycopg.Connection, tickers: Sequence[str], end: datetime
) -> dict[str, datetime]:
    """Per market the first quote that is held, if it is before `end`."""
    rows = connection.execute(
        "SELECT asked.market_ticker, first.quoted_at"
        " FROM unnest(%s::text[]) AS asked (market_ticker) CROSS JOIN LATERAL ("
        " SELECT quoted_at FROM quotes WHERE quotes.market_ticker = asked.market_ticker"
        " AND quoted_at < %s ORDER BY quoted_at LIMIT 1) AS first",
        [list(tickers), end],
    ).fetchall()
    return {str(ticker): at for ticker, at in rows}


def has_quotes(connection: psycopg.Connection, start: datetime, end: datetime) -> bool:
    """Whether any quote of [start, end) is held."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM quotes WHERE quoted_at >= %s AND quoted_at < %s)", [start, end]
    ).fetchone()
    return row == (True,)


def was_quoted(connection: psycopg.Connection, day: date) -> bool:
    """Whether any candle of the UTC day holds quotes of it, kept or not."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM candles_1d WHERE starts_at = %s::date::timestamptz"
        " AND quote_count > 0)",
        [day],
    ).fetchone()
    return row == (True,)


def complete_from(connection: psycopg.Connection, day: date) -> datetime | None:
    """From when on the trades of the UTC day are held, but for recorded gaps.

    The day's begin where the day was swept, or the recorder was at work before it; else the first
    trade that it recorded, ever. None where it recorded none by the end of the day.
    """
    row = connection.execute(
        "WITH day AS (SELECT %(day)s::date::timestamptz AS starts_at,"
        " (%(day)s::date + 1)::timestamptz AS ends_at)"
        " SELECT CASE WHEN EXISTS (SELECT FROM coverage WHERE traded_on = %(day)s"
        " AND market_ticker = '*' AND status IN ('proven', 'healed'))"
        " OR EXISTS (SELECT FROM raw_trades WHERE landed_at < day.starts_at AND source = 'ws')"
        " THEN day.starts_at ELSE (SELECT min(received_at) FROM raw_trades"
        " WHERE landed_at >= day.starts_at AND landed_at < day.ends_at AND source = 'ws')"
        " END FROM day",
        {"day": day},
    ).fetchone()
    assert row is not None, "a row of constants is one"
    return row[0] if isinstance(row[0], datetime) else None


def last_minute_of(
    connection: psycopg.Connection, start: datetime, end: datetime
) -> datetime | None:
    """Start of the newest candle of any market in [start, end): how far the day has come."""
    row = connection.execute(
        "SELECT max(starts_at) FROM candles_1m WHERE starts_at >= %s AND starts_at < %s",
        [start, end],
    ).fetchone()
    assert row is not None, "max() returns a row"
    return row[0] if isinstance(row[0], datetime) else None


def first_stale_of(
    connection: psycopg.Connection, tickers: Sequence[str], start: datetime, end: datetime
) -> datetime | None:
    """The first minute in [start, end) of these markets whose candle is out of date."""
    row = connection.execute(
        "SELECT min(starts_at) FROM stale_candles"
        " WHERE market_ticker = ANY(%s) AND starts_at >= %s AND starts_at < %s",
        [list(tickers), start, end],
    ).fetchone()
    assert row is not None, "min() returns a row"
    return row[0] if isinstance(row[0], datetime) else None


def gaps_between(
    connection: psycopg.Connection,
    channel: str,
    tickers: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    only_open: bool,
) -> list[GapRow]:
    """Gaps of the channel that touch [start, end) and concern one of the markets."""
    rows = connection.execute(
        "SELECT market_ticker, starts_at, ends_at FROM gaps WHERE channel = %s AND ends_at > %s"
        " AND starts_at < %s AND (market_ticker IS NULL OR market_ticker = ANY(%s))"
        " AND (status = 'open' OR NOT %s) ORDER BY starts_at",
        [channel, start, end, list(tickers), only_open],
    ).fetchall()
    return [GapRow(*row) for row in rows]


def undecided_edges(
    connection: psycopg.Connection,
    tickers: Sequence[str],
    seconds: int,
    start: datetime,
    end: datetime,
) -> set[tuple[str, int, str]]:
    """Market, start and column of each open and close that a tie without a known order decides.

    Args:
        seconds: width of the intervals; divides a day.
        start, end: of the trades; a whole number of intervals.
    """
    rows = connection.execute(
        "WITH placed AS (SELECT market_ticker, traded_at, yes_price_micros, feed_order,"
        " date_bin(make_interval(secs => %(seconds)s), traded_at,"
        " timestamptz '2000-01-01 00:00:00+00') AS bucket FROM trades"
        " WHERE market_ticker = ANY(%(tickers)s)"
        " AND traded_at >= %(start)s AND traded_at < %(end)s"
        " AND traded_on >= (%(start)s AT TIME ZONE 'UTC')::date"
        " AND traded_on <= (%(end)s AT TIME ZONE 'UTC')::date),"
        " edges AS (SELECT *, min(traded_at) OVER of_bucket AS first,"
        " max(traded_at) OVER of_bucket AS last FROM placed"
        " WINDOW of_bucket AS (PARTITION BY market_ticker, bucket))"
        " SELECT market_ticker, extract(epoch FROM bucket)::bigint, edge.of FROM edges,"
        " LATERAL (VALUES ('open_micros', first), ('close_micros', last)) AS edge (of, at)"
        " WHERE traded_at = edge.at GROUP BY 1, 2, 3"
        " HAVING count(DISTINCT yes_price_micros) > 1 AND count(*) > count(feed_order)",
        {"seconds": seconds, "tickers": list(tickers), "start": start, "end": end},
    ).fetchall()
    return {(ticker, bucket, column) for ticker, bucket, column in rows}
