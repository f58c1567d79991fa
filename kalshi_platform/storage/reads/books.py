"""An order book at an instant as JSON text, and whether it can be trusted there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from kalshi_platform.storage.reads.archived import (
    ArchivedRows,
    evidence,
    parameters_of,
    rows_sql,
)
from kalshi_platform.storage.reads.deltas import DELTA_COLUMNS
from kalshi_platform.storage.reads.trades import dollars, fixed_contracts, instant
from kalshi_platform.transform.books import books_at

# The loader notes about once a second when it last received something; a book asked for later than
# this after it is not known to stand still.
HEARD_SECONDS = 10

TABLES = ("book_snapshots", "book_deltas")
# What a book is made of, beside the deltas, with the types.
SNAPSHOT_COLUMNS = {
    "at": "timestamptz",
    "feed_order": "bigint",
    "seq": "bigint",
    "sid": "integer",
    "source": "text",
    "yes_micros": "integer[]",
    "yes_centis": "bigint[]",
    "no_micros": "integer[]",
    "no_centis": "bigint[]",
}

_ALL_LEVELS = 2**31 - 1


class ArchivedBook(NamedTuple):
    """A market's SNAPSHOT_COLUMNS and DELTA_COLUMNS on days that were dropped."""

    snapshots: ArchivedRows
    deltas: ArchivedRows


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

# See `book_at`.
_BOOK = f"""\
book AS MATERIALIZED (
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
SELECT {_BOOK_JSON} AS record, gap_reason IS NOT NULL AS in_gap, base_at,
       (SELECT max(starts_at) FROM book_watches
        WHERE market_ticker = %(market_ticker)s AND starts_at <= %(at)s) AS watch_at,
       {evidence(*TABLES, first=False, last=True)} AS archives
FROM (SELECT) AS always LEFT JOIN judged AS book ON true"""  # noqa: S608 (constants; every value is bound)


def _with_archived(table: str, columns: Mapping[str, str]) -> str:
    """SQL that stands for a table from then on: the market's rows in it, and the archived ones."""
    return f"""\
{table} AS NOT MATERIALIZED (
    SELECT market_ticker, {", ".join(columns)} FROM {table}
    WHERE market_ticker = %(market_ticker)s
    UNION ALL
    SELECT %(market_ticker)s::text COLLATE "C", archived_rows.*
    FROM ({rows_sql(columns, f"{table}_")}) AS archived_rows
),
"""  # noqa: S608 (constants)


_LIVE = f"WITH {_BOOK}"
_WHOLE = (
    f"WITH {_with_archived('book_snapshots', SNAPSHOT_COLUMNS)}"
    f"{_with_archived('book_deltas', DELTA_COLUMNS)}{_BOOK}"
)


def book_at(
    market_ticker: str,
    at: datetime,
    *,
    depth: int | None,
    archived: ArchivedBook | None = None,
) -> tuple[str, Mapping[str, Any]]:
    """The statement of a market's book at an instant.

    Args:
        depth: levels wanted of each side, best first; None for all. Totals are of all levels.
        archived: what can matter of days that were dropped; None where nothing can.

    Returns:
        Statement and parameters. It answers one row: record (JSON text; null where no snapshot of
        the book by then is known), in_gap (bool), base_at (that snapshot's time), watch_at (the
        start of the last watch by then, with a snapshot) and archives (the evidence of all days
        until then).
    """
    parameters: dict[str, Any] = {
        "market_ticker": market_ticker,
        "ticker_json": msgspec.json.encode(market_ticker).decode(),
        "at": at,
        "depth": _ALL_LEVELS if depth is None else depth,
        "last_day": at.date(),
    }
    if archived is None:
        return _LIVE, parameters
    snapshots = parameters_of(archived.snapshots, SNAPSHOT_COLUMNS, "book_snapshots_")
    deltas = parameters_of(archived.deltas, DELTA_COLUMNS, "book_deltas_")
    return _WHOLE, parameters | snapshots | deltas


# Since when the book of %(market_ticker)s is held, of which %(archived_at)s is the first instant on
# days that were dropped, and since when it was ever watched; null: never. And the evidence.
BOOK_HELD = f"""\
SELECT {instant("held_since")}, {instant("watched_since")},
       {evidence(*TABLES, first=False, last=False)} AS archives
FROM (SELECT least(min(at), %(archived_at)s::timestamptz) AS held_since FROM book_snapshots
      WHERE market_ticker = %(market_ticker)s) AS held
CROSS JOIN (SELECT min(starts_at) AS watched_since FROM book_watches
            WHERE market_ticker = %(market_ticker)s) AS watched"""  # noqa: S608 (constants)
