"""Pages of what the feed told of one market: JSON text, in the order of time and of arrival.

The statements are text and the same bytes each time; every value is bound.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from kalshi_platform.storage.reads.archived import (
    ArchivedRows,
    days_of,
    evidence,
    parameters_of,
    with_archived,
)


class FeedPosition(NamedTuple):
    """Where a message stands among those of its market: the exchange's time, then arrival."""

    at: datetime
    feed_order: int


def feed_page(
    table: str,
    time: str,
    record: str,
    columns: Mapping[str, str],
    market_ticker: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: FeedPosition | None,
    limit: int,
    archived: ArchivedRows | None,
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page: a market's messages in `[start, end)` that follow `after`.

    Args:
        table: partitioned by the column `time`, indexed by market_ticker and `time`, with a
            column feed_order.
        record: SQL of a message's JSON text; `%(ticker_member)s` is its member market_ticker.
        columns: what a record is made of, with the types; `time` and feed_order among them.
        start, end: aware instants; None leaves the window open on that side.
        after: the last message of the page before.
        limit: rows wanted; the statement reads one more, to know whether another page follows.
        archived: `columns` of the first `limit` + 1 of them on days that were dropped; None where
            no day of the window was.

    Returns:
        Statement and parameters. It answers one row: records (text, the objects joined by
        SEPARATOR of `reads.trades`, oldest first; null when there are none), found (limit + 1 at
        most), at and feed_order (those of the record number `limit`; null when there are fewer),
        archives (the evidence of the window's days).
    """
    conditions = ["market_ticker = %(market_ticker)s"]
    parameters: dict[str, Any] = {
        "market_ticker": market_ticker,
        "ticker_member": f'"market_ticker":{msgspec.json.encode(market_ticker).decode()}',
        "limit": limit,
        "rows": limit + 1,
    }
    lower = start
    if after is not None:
        lower = after.at
        # The first column alone can use the index; the whole row then settles the ties.
        conditions.append(f"({time}, feed_order) > (%(lower)s, %(after_order)s)")
        parameters["after_order"] = after.feed_order
    first_day, last_day = days_of(lower, end)
    if lower is not None:
        conditions.append(f"{time} >= %(lower)s")
        parameters |= {"lower": lower, "first_day": first_day}
    if end is not None:
        conditions.append(f"{time} < %(end)s")
        parameters |= {"end": end, "last_day": last_day}
    source = f"{table} WHERE {' AND '.join(conditions)}"
    order = f"ORDER BY {time}, feed_order LIMIT %(rows)s"
    if archived is not None:
        source = with_archived(source, order, columns)
        parameters |= parameters_of(archived, columns)
    statement = f"""\
SELECT string_agg(record, E',\\n') AS records, count(*) AS found,
       (array_agg(at))[%(limit)s] AS at, (array_agg(feed_order))[%(limit)s] AS feed_order,
       {evidence(table, first=lower is not None, last=end is not None)} AS archives
FROM (
    SELECT {record} AS record, {time} AS at, feed_order
    FROM {source}
    {order}
) AS page"""  # noqa: S608 (constants; every value is bound)
    return statement, parameters
