"""Pages of changes of order books as JSON text, and how completely books were watched."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kalshi_platform.storage.reads.archived import ArchivedRows, first_day_held
from kalshi_platform.storage.reads.feed_pages import FeedPosition, feed_page
from kalshi_platform.storage.reads.trades import (
    cents,
    contracts,
    dollars,
    fixed_contracts,
    instant,
)

# What a record is made of, with its types.
DELTA_COLUMNS = {
    "at": "timestamptz",
    "feed_order": "bigint",
    "side": "text",
    "price_micros": "integer",
    "delta_centis": "bigint",
    "sid": "integer",
    "seq": "bigint",
}

_DELTA_JSON = f"""\
'{{' || %(ticker_member)s
|| ',"ts":"' || {instant("at")}
|| '","side":"' || side
|| '","price":' || {cents("price_micros")}
|| ',"price_dollars":"' || {dollars("price_micros")}
|| '","delta":' || {contracts("delta_centis")}
|| ',"delta_fp":"' || CASE WHEN delta_centis < 0 THEN '-' ELSE '' END
|| {fixed_contracts("abs(delta_centis)")}
|| '","sid":' || sid || ',"seq":' || seq || '}}'"""


def deltas_page(
    market_ticker: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: FeedPosition | None,
    limit: int,
    archived: ArchivedRows | None = None,
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of the changes of a market's book; see `feed_page`."""
    return feed_page(
        "book_deltas",
        "at",
        _DELTA_JSON,
        DELTA_COLUMNS,
        market_ticker,
        start=start,
        end=end,
        after=after,
        limit=limit,
        archived=archived,
    )


# How the book of %(market_ticker)s was watched in [%(start)s, %(end)s): first_at (when it first
# was; null: never), whether that was so without a break and all of it is held, and received_until
# (when anything was last received from the exchange). Without a start the window begins with the
# first watch that is held.
BOOK_WATCHED = f"""\
WITH held AS (
    SELECT {first_day_held("book_deltas")}::timestamptz AS since
),
watches AS (
    SELECT min(starts_at) AS first_at, range_agg(tstzrange(starts_at, ends_at)) AS watched
    FROM book_watches WHERE market_ticker = %(market_ticker)s
),
window_asked AS (
    SELECT coalesce(%(start)s::timestamptz, greatest(first_at, since)) AS starts_at
    FROM watches, held
)
SELECT first_at,
       starts_at >= since
       AND watched @> tstzrange(starts_at, greatest(starts_at, %(end)s)) AS unbroken,
       (SELECT to_timestamp(max(value)) FROM ingestion_metrics
        WHERE name = 'last_received_at_seconds') AS received_until
FROM watches, window_asked, held"""  # noqa: S608 (constants)
