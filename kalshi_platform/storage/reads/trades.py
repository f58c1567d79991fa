"""Pages of trades as JSON text, built by Postgres and passed through.

The statements are text, not SQLAlchemy: they run hundreds of times a second and must be the same
bytes each time. Every value is bound.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from kalshi_platform.storage.reads.archived import (
    ArchivedRows,
    days_of,
    evidence,
    parameters_of,
    with_archived,
)

# Trades that came over REST alone have no feed_order and follow those that have one. No real one
# reaches this number, so it stands for null where rows are compared as a whole.
_LAST_ORDER = 2**63 - 1

# Stands between the objects of a page and, since JSON escapes line feeds, nowhere else.
SEPARATOR = b",\n"

# What a record is made of, with its types.
TRADE_COLUMNS = {
    "traded_at": "timestamptz",
    "feed_order": "bigint",
    "trade_id": "uuid",
    "yes_price_micros": "integer",
    "count_centis": "bigint",
    "taker_side": "text",
    "is_block_trade": "boolean",
}


class TradePosition(NamedTuple):
    """Where a trade stands in the order of all trades: `(traded_at, feed_order, trade_id)`."""

    traded_at: datetime
    feed_order: int | None
    trade_id: UUID


def dollars(micros: str) -> str:
    """SQL for an amount in dollars: 4 decimals, 6 where the price needs them ("0.3600").

    Args:
        micros: SQL expression of an integer number of millionths, at least 0.
    """
    whole = f"CASE WHEN {micros} < 1000000 THEN '0.' ELSE {micros} / 1000000 || '.' END"
    return (
        f"CASE WHEN mod({micros}, 100) = 0"
        f" THEN {whole} || lpad(mod({micros} / 100, 10000)::text, 4, '0')"
        f" ELSE {whole} || lpad(mod({micros}, 1000000)::text, 6, '0') END"
    )


def cents(micros: str) -> str:
    """SQL for an amount in cents: an integer when whole, else exact decimals ("36", "36.25")."""
    return (
        f"CASE WHEN mod({micros}, 10000) = 0 THEN ({micros} / 10000)::text"
        f" ELSE trim_scale({micros} / 10000.0)::text END"
    )


def contracts(centis: str) -> str:
    """SQL for a count of contracts: an integer when whole, else exact decimals ("12", "0.5")."""
    return (
        f"CASE WHEN mod({centis}, 100) = 0 THEN ({centis} / 100)::text"
        f" ELSE trim_scale({centis} / 100.0)::text END"
    )


def fixed_contracts(centis: str) -> str:
    """SQL for a count of contracts with two decimals, at least 0 ("12.00")."""
    return f"{centis} / 100 || '.' || lpad(mod({centis}, 100)::text, 2, '0')"


def instant(column: str) -> str:
    """SQL for an instant as ISO 8601 with microseconds and Z; the session's time zone is UTC."""
    return f"""to_char({column}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_TRADE_JSON = f"""\
'{{"trade_id":"' || trade_id || %(ticker_member)s
|| ',"yes_price":' || {cents("yes_price_micros")}
|| ',"no_price":' || {cents("(1000000 - yes_price_micros)")}
|| ',"yes_price_dollars":"' || {dollars("yes_price_micros")}
|| '","no_price_dollars":"' || {dollars("(1000000 - yes_price_micros)")}
|| '","count":' || {contracts("count_centis")}
|| ',"count_fp":"' || {fixed_contracts("count_centis")}
|| '","taker_side":"' || taker_side
|| '","is_block_trade":'
|| CASE is_block_trade WHEN true THEN 'true' WHEN false THEN 'false' ELSE 'null' END
|| ',"ts":"' || {instant("traded_at")} || '"}}'"""


def trades_page(
    market_ticker: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: TradePosition | None,
    limit: int,
    archived: ArchivedRows | None = None,
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page: a market's trades in `[start, end)` that follow `after`.

    Args:
        start, end: aware instants; None leaves the window open on that side.
        after: the last trade of the page before.
        limit: rows wanted; the statement reads one more, to know whether another page follows.
        archived: TRADE_COLUMNS of the first `limit` + 1 of them on days that were dropped; None
            where no day of the window was.

    Returns:
        Statement and parameters. It answers one row: `trades` (text, the objects joined by
        SEPARATOR, oldest first; null when there are none), `trades_found` (limit + 1 at most),
        `feed_order` (that of the trade number `limit`; null when there are fewer), `archives` (the
        evidence of the window's days).
    """
    conditions = ["market_ticker = %(market_ticker)s"]
    parameters: dict[str, Any] = {
        "market_ticker": market_ticker,
        "ticker_member": f'","market_ticker":{msgspec.json.encode(market_ticker).decode()}',
        "limit": limit,
        "rows": limit + 1,
    }
    lower = start
    if after is not None:
        lower = after.traded_at
        # The first column alone can use the index; the whole row then settles the ties.
        conditions.append(
            "(traded_at, coalesce(feed_order, %(last_order)s), trade_id)"
            " > (%(lower)s, %(after_order)s, %(after_id)s)"
        )
        parameters["last_order"] = _LAST_ORDER
        parameters["after_order"] = _LAST_ORDER if after.feed_order is None else after.feed_order
        parameters["after_id"] = after.trade_id
    first_day, last_day = days_of(lower, end)
    if lower is not None:
        # The day is implied by the instant, but only the day tells the planner which partitions.
        conditions += ["traded_at >= %(lower)s", "traded_on >= %(first_day)s"]
        parameters |= {"lower": lower, "first_day": first_day}
    if end is not None:
        conditions += ["traded_at < %(end)s", "traded_on <= %(last_day)s"]
        parameters |= {"end": end, "last_day": last_day}
    source = f"trades WHERE {' AND '.join(conditions)}"
    order = "ORDER BY traded_at, feed_order, trade_id LIMIT %(rows)s"
    if archived is not None:
        source = with_archived(source, order, TRADE_COLUMNS)
        parameters |= parameters_of(archived, TRADE_COLUMNS)
    statement = f"""\
SELECT string_agg(trade, E',\\n') AS trades, count(*) AS trades_found,
       (array_agg(feed_order))[%(limit)s] AS feed_order,
       {evidence("trades", first=lower is not None, last=end is not None)} AS archives
FROM (
    SELECT {_TRADE_JSON} AS trade, feed_order
    FROM {source}
    {order}
) AS page"""  # noqa: S608 (constants; every value is bound)
    return statement, parameters


MARKET_KNOWN = "SELECT FROM markets WHERE market_ticker = %(market_ticker)s"
