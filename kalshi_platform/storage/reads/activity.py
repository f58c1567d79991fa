"""Where something happens right now: which market to look at first."""

from datetime import datetime

import psycopg


def busiest_market(connection: psycopg.Connection, since: datetime) -> str | None:
    """The market with most trades since an instant (UTC); the first by name among equals.

    A combo only where nothing else has traded: few are quoted, and no order book of them is kept.

    Returns:
        Its ticker, or None when nothing has traded.
    """
    row = connection.execute(
        # traded_on lets the planner skip every partition but the last days'.
        "SELECT market_ticker FROM trades WHERE traded_on >= %(since)s::date"
        " AND traded_at >= %(since)s GROUP BY market_ticker"
        " ORDER BY market_ticker LIKE 'KXMVE%%', count(*) DESC, market_ticker LIMIT 1",
        {"since": since},
    ).fetchone()
    return None if row is None else str(row[0])
