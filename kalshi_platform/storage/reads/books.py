"""An order book at an instant as JSON text, and whether it can be trusted there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from kalshi_platform.storage.reads.trades import dollars, fixed_contracts, instant
from kalshi_platform.transform.books import books_at

# The loader notes about once a second when it last received something; a book asked for later than
# this after it is not known to stand still.
HEARD_SECONDS = 10

_ALL_LEVELS = 2**31 - 1

_MOMENT = "(SELECT %(market_ticker)s::text AS market_ticker, %(at)s::timestamptz AS at) AS moment"


def _levels(side: str, price: str) -> str:
    """SQL for a side's levels, best first; `price` is an expression of its `micros`."""
    return f"""(
        SELECT coalesce(string_agg('["' || {dollars(price)} || '","'
                                   || {fixed_contracts("centis")} || '"]', ','
                                   ORDER BY micros DESC), '')
        FROM (SELECT micros, centis FROM unnest({side}_micros, {side}_centis)
                  AS level (micros, centis)
              ORDER BY micros DESC LIMIT %(depth)s) AS best)"""  # noqa: S608 (constants)


def _total(side: str) -> str:
    """SQL for the contracts of all levels of a side, as text."""
    of_all = "coalesce(sum(centis), 0)::bigint"
    return f"(SELECT {fixed_contracts(of_all)} FROM unnest({side}_centis) AS centis)"  # noqa: S608 (constants)


def _text_or_null(sql: str) -> str:
    """SQL of a JSON string, or of null; the text must need no escapes."""
    return f"coalesce('\"' || ({sql}) || '\"', 'null')"


_BEST_BID = "yes_micros[cardinality(yes_micros)]"
_BEST_ASK = "(1000000 - no_micros[cardinality(no_micros)])"
_SPREAD = f"({_BEST_ASK} - {_BEST_BID})"

# A book that lost a message can be crossed.
_SPREAD_DOLLARS = f"CASE WHEN {_SPREAD} < 0 THEN '-' ELSE '' END || {dollars(f'abs({_SPREAD})')}"

_GAP_REASON = f"""\
CASE
    WHEN NOT watched AND ended.ends_at IS NOT NULL
        THEN 'known until ' || {instant("ended.ends_at")}
             || coalesce(': ' || ended.ended_by, '')
    WHEN NOT watched THEN 'not watched'
    WHEN lowest_centis < 0 THEN 'a level has come to less than no contracts'
    WHEN known.at IS NULL THEN 'it is not known when anything was last received'
    WHEN book.at > known.at + interval '{HEARD_SECONDS} seconds'
        THEN 'nothing received since ' || {instant("known.at")}
END"""

_BOOK_JSON = f"""\
'{{"market_ticker":' || %(ticker_json)s
|| ',"timestamp":"' || {instant("book.at")}
|| '","gap":' || CASE WHEN gap_reason IS NULL THEN 'false' ELSE 'true' END
|| ',"gap_reason":' || coalesce(to_json(gap_reason)::text, 'null')
|| ',"as_of":"' || {instant("last_at")}
|| '","age_seconds":' || trim_scale(extract(epoch FROM book.at - last_at))
|| ',"yes_bids":[' || {_levels("yes", "micros")}
|| '],"no_bids":[' || {_levels("no", "micros")}
|| '],"yes_asks":[' || {_levels("no", "(1000000 - micros)")}
|| '],"best_yes_bid_dollars":' || {_text_or_null(dollars(_BEST_BID))}
|| ',"best_yes_ask_dollars":' || {_text_or_null(dollars(_BEST_ASK))}
|| ',"spread_dollars":' || {_text_or_null(_SPREAD_DOLLARS)}
|| ',"yes_levels":' || cardinality(yes_micros) || ',"no_levels":' || cardinality(no_micros)
|| ',"yes_depth_fp":"' || {_total("yes")}
|| '","no_depth_fp":"' || {_total("no")}
|| '","snapshot_at":"' || {instant("base_at")}
|| '","snapshot_source":"' || base_source || '"}}'"""

# One row, or none where the market has no snapshot by then: record (JSON) and whether in a gap.
_BOOK = f"""\
WITH book AS MATERIALIZED (
{books_at(_MOMENT)}
),
judged AS MATERIALIZED (
    SELECT book.*, {_GAP_REASON} AS gap_reason
    FROM book
    CROSS JOIN LATERAL (
        -- By the subscription whose snapshot and deltas these are.
        SELECT EXISTS (SELECT FROM book_watches AS w
                       WHERE w.market_ticker = book.market_ticker AND w.starts_at <= book.at
                         AND (w.ends_at > book.at OR w.ends_at IS NULL)
                         AND w.connection = book.connection AND w.sid = book.sid
                         AND w.start_order <= book.base_order) AS watched
    ) AS watch
    CROSS JOIN (SELECT to_timestamp(max(value)) AS at FROM ingestion_metrics
                WHERE name = 'last_received_at_seconds') AS known
    LEFT JOIN LATERAL (
        SELECT ends_at, ended_by FROM book_watches AS w
        WHERE w.market_ticker = book.market_ticker AND w.starts_at <= book.at
          AND w.ends_at <= book.at
        ORDER BY starts_at DESC LIMIT 1
    ) AS ended ON true
)
SELECT {_BOOK_JSON} AS record, gap_reason IS NOT NULL AS in_gap FROM judged AS book"""  # noqa: S608 (constants; every value is bound)


def book_at(
    market_ticker: str, at: datetime, *, depth: int | None
) -> tuple[str, Mapping[str, Any]]:
    """The statement of a market's book at an instant.

    Args:
        depth: levels wanted of each side, best first; None for all. Totals are of all levels.

    Returns:
        Statement and parameters. It answers one row: record (JSON text) and in_gap (bool); none
        where no snapshot of the book by then is held.
    """
    parameters = {
        "market_ticker": market_ticker,
        "ticker_json": msgspec.json.encode(market_ticker).decode(),
        "at": at,
        "depth": _ALL_LEVELS if depth is None else depth,
    }
    return _BOOK, parameters


# Since when the book of %(market_ticker)s is held, and since when it was ever watched; null: never.
BOOK_HELD = f"""\
SELECT {instant("held_since")}, {instant("watched_since")}
FROM (SELECT min(at) AS held_since FROM book_snapshots
      WHERE market_ticker = %(market_ticker)s) AS held
CROSS JOIN (SELECT min(starts_at) AS watched_since FROM book_watches
            WHERE market_ticker = %(market_ticker)s) AS watched"""  # noqa: S608 (constants)
