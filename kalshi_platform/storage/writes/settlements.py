"""Outcomes: the one in force in `settlements`, every version in `settlement_history`.

Writers lock the market's row first, so that two of them never read the same outcome and write two
different ones.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import psycopg

from kalshi_platform.storage.outcomes import Outcome, Version
from kalshi_platform.storage.writes.told import as_rows

_LOAD = """
SELECT market_ticker, history.status, history.result, history.settlement_value_micros,
       history.effective_at, history.source, history.recorded_at, history.confirmed_at,
       settlements.determined_at, settlements.settled_at
FROM settlement_history AS history JOIN settlements USING (market_ticker)
WHERE market_ticker = ANY(%s)
ORDER BY market_ticker, version
"""
_PUT = """
INSERT INTO settlements
SELECT * FROM json_populate_recordset(NULL::settlements, %s)
ORDER BY market_ticker
ON CONFLICT (market_ticker) DO UPDATE SET
    status = excluded.status, result = excluded.result,
    settlement_value_micros = excluded.settlement_value_micros,
    effective_at = excluded.effective_at, source = excluded.source,
    recorded_at = excluded.recorded_at, confirmed_at = excluded.confirmed_at,
    determined_at = excluded.determined_at, settled_at = excluded.settled_at
"""
_PUT_HISTORY = """
INSERT INTO settlement_history AS held
SELECT * FROM json_populate_recordset(NULL::settlement_history, %s)
ORDER BY market_ticker, version
ON CONFLICT (market_ticker, version) DO UPDATE SET
    status = excluded.status, result = excluded.result,
    settlement_value_micros = excluded.settlement_value_micros,
    effective_at = excluded.effective_at, source = excluded.source,
    recorded_at = excluded.recorded_at, confirmed_at = excluded.confirmed_at
WHERE (held.*) IS DISTINCT FROM (excluded.*)
"""
# Two versions become one when a message tells that they were the same.
_CUT_HISTORY = """
DELETE FROM settlement_history AS held
USING unnest(%s::text[], %s::int[]) AS kept (market_ticker, versions)
WHERE held.market_ticker = kept.market_ticker AND held.version > kept.versions
"""


def load_outcomes(connection: psycopg.Connection, tickers: Iterable[str]) -> dict[str, Outcome]:
    """The outcomes of those of these markets that have one."""
    rows = connection.execute(_LOAD, [sorted(tickers)]).fetchall()
    outcomes: dict[str, Outcome] = {}
    for ticker, group in groupby(rows, key=lambda row: str(row[0])):
        versions = list(group)
        outcomes[ticker] = Outcome((Version(*row[1:8]) for row in versions), *versions[0][8:10])
    return outcomes


def write_outcomes(connection: psycopg.Connection, outcomes: Mapping[str, Outcome]) -> None:
    """Write outcomes that changed; their markets are locked, the caller commits."""
    if not outcomes:
        return
    standing: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    for ticker in sorted(outcomes):
        outcome = outcomes[ticker]
        last = outcome.last
        assert last is not None, "a market without a version has no outcome to write"
        standing.append(
            {"market_ticker": ticker}
            | last._asdict()
            | {
                "confirmed_at": outcome.confirmed_at,
                "determined_at": outcome.determined_at,
                "settled_at": outcome.settled_at,
            }
        )
        history += (
            {"market_ticker": ticker, "version": number} | version._asdict()
            for number, version in enumerate(outcome.versions, start=1)
        )
    connection.execute(_PUT, [as_rows(standing)])
    connection.execute(_CUT_HISTORY, [
        list(outcomes), [len(outcome.versions) for outcome in outcomes.values()]
    ])  # fmt: skip
    connection.execute(_PUT_HISTORY, [as_rows(history)])
