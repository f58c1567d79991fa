"""Events: named by the first market that names them, filled by messages and REST."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

import msgspec
import psycopg

from kalshi_platform.storage.writes.readings import Readings
from kalshi_platform.storage.writes.series import name_series
from kalshi_platform.storage.writes.told import Changes, name_rows

_NAME = "INSERT INTO events (event_ticker) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_FACTS = (
    "series_ticker",
    "title",
    "sub_title",
    "category",
    "mutually_exclusive",
    "collateral_return_type",
    "strike_date",
    "strike_period",
    "fee_type_override",
    "fee_multiplier_override",
    "metadata",
)
_readings = Readings("events", "event_ticker", _FACTS, _NAME)
# Locked in order of their tickers, so that two writers never wait for each other in a ring.
_TELL_MARKETS = """
WITH told AS (
    SELECT markets.market_ticker, events.series_ticker
    FROM events JOIN markets USING (event_ticker)
    WHERE events.event_ticker = ANY(%s)
      AND markets.series_ticker IS DISTINCT FROM events.series_ticker
    ORDER BY markets.market_ticker FOR UPDATE OF markets
)
UPDATE markets SET series_ticker = told.series_ticker, updated_at = now()
FROM told WHERE markets.market_ticker = told.market_ticker
"""


class EventValues(Protocol):
    """What a row needs; `exchange.reference.EventFacts` has it."""

    event_ticker: str
    series_ticker: str
    title: str
    sub_title: str
    category: str | None
    mutually_exclusive: bool
    collateral_return_type: str
    strike_date: datetime | None
    strike_period: str | None
    fee_type_override: str | None
    fee_multiplier_override: Decimal | None
    exchange_updated_at: datetime | None
    metadata: bytes


def name_events(connection: psycopg.Connection, tickers: Iterable[str]) -> None:
    """Make sure that each event has its row; the caller commits."""
    name_rows(connection, _NAME, tickers)


def write_events(
    connection: psycopg.Connection,
    facts: Sequence[EventValues],
    *,
    source: Literal["rest", "historical"],
    read_at: datetime,
) -> Changes:
    """Write what REST told of events, and tell their markets the series; the caller commits.

    Series that were not known get their row, which queues them for REST.
    """
    name_series(connection, {told.series_ticker for told in facts if told.series_ticker})
    changes, changed = _readings.write(connection, map(_row, facts), source=source, read_at=read_at)
    tell_markets(connection, changed)
    return changes


def tell_markets(connection: psycopg.Connection, event_tickers: Iterable[str]) -> None:
    """Give the markets of these events the series that the events name."""
    if tickers := sorted(event_tickers):
        connection.execute(_TELL_MARKETS, [tickers])


def _row(told: EventValues) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(told, name) for name in _FACTS}
    return row | {
        "event_ticker": told.event_ticker,
        "exchange_updated_at": told.exchange_updated_at,
        "metadata": msgspec.Raw(told.metadata),
    }
