"""What lifecycle messages change in events, markets and outcomes, applied in their order.

A message older than what is known of its row changes no fact of it: REST has told of a later state,
or a message was told twice. Outcomes need no such rule; see `storage.outcomes`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Protocol

import msgspec
import psycopg

from kalshi_platform.storage.outcomes import Outcome
from kalshi_platform.storage.writes.events import name_events, tell_markets
from kalshi_platform.storage.writes.markets import is_ordinary, name_markets
from kalshi_platform.storage.writes.series import name_series
from kalshi_platform.storage.writes.settlements import load_outcomes, write_outcomes
from kalshi_platform.storage.writes.told import as_rows, columns_of

# The exchange's time of change in REST may lie this much before the time in the message.
_LEEWAY = timedelta(seconds=1)

_KNOWN_EVENTS = "SELECT event_ticker FROM events WHERE event_ticker = ANY(%s)"
_LOCK_EVENTS = """
SELECT event_ticker, exchange_updated_at, metadata_source FROM events
WHERE event_ticker = ANY(%s) ORDER BY event_ticker FOR UPDATE
"""
_LOCK_MARKETS = """
SELECT market_ticker, exchange_updated_at, metadata_source FROM markets
WHERE market_ticker = ANY(%s) ORDER BY market_ticker FOR UPDATE
"""
_SERIES_OF_EVENTS = "SELECT event_ticker, series_ticker FROM events WHERE event_ticker = ANY(%s)"
_EVENT_COLUMNS = (
    "series_ticker",
    "title",
    "sub_title",
    "collateral_return_type",
    "strike_date",
    "strike_period",
    "fee_type_override",
    "fee_multiplier_override",
    "exchange_updated_at",
    "metadata",
    "metadata_source",
)
_MARKET_COLUMNS = (
    "event_ticker",
    "series_ticker",
    "title",
    "yes_sub_title",
    "no_sub_title",
    "opens_at",
    "closes_at",
    "expected_expires_at",
    "is_paused",
    "outcome_status",
    "can_close_early",
    "strike_type",
    "floor_strike",
    "cap_strike",
    "custom_strike",
    "price_level_structure",
    "price_ranges",
    "exchange_updated_at",
    "metadata",
    "metadata_source",
)


def _change_statement(table: str, key: str, columns: Sequence[str]) -> str:
    # The document holds the columns that change; the others are those of the row as it stands.
    return f"""
UPDATE {table} AS held
SET ({columns_of(columns)}) = (
        SELECT {columns_of(columns, "changed")}
        FROM json_populate_record(held, change.columns) AS changed
    ),
    updated_at = now(),
    next_read_at = CASE WHEN change.asks THEN now() + interval '5 s' ELSE held.next_read_at END,
    read_attempts = CASE WHEN change.asks THEN 0 ELSE held.read_attempts END
FROM json_to_recordset(%s) AS change (ticker text, columns json, asks boolean)
WHERE held.{key} = change.ticker
"""  # noqa: S608


_CHANGE_EVENTS = _change_statement("events", "event_ticker", _EVENT_COLUMNS)
_CHANGE_MARKETS = _change_statement("markets", "market_ticker", _MARKET_COLUMNS)


class MarketFactsChanged(Protocol):
    """`exchange.lifecycle.MarketChange` is one."""

    kind: ClassVar[Literal["market"]]
    market_ticker: str
    columns: dict[str, Any]
    metadata: bytes | None


class MarketDetermined(Protocol):
    """`exchange.lifecycle.Determined` is one."""

    kind: ClassVar[Literal["determined"]]
    market_ticker: str
    result: str
    settlement_value_micros: int | None
    determined_at: datetime


class MarketSettled(Protocol):
    """`exchange.lifecycle.Settled` is one."""

    kind: ClassVar[Literal["settled"]]
    market_ticker: str
    settled_at: datetime


class EventFactsChanged(Protocol):
    """`exchange.lifecycle.EventChange` is one."""

    kind: ClassVar[Literal["event"]]
    event_ticker: str
    columns: dict[str, Any]
    metadata: bytes | None


MarketChanged = MarketFactsChanged | MarketDetermined | MarketSettled
Change = MarketChanged | EventFactsChanged


class _Row:
    """A row that stands, and what of it changes."""

    def __init__(self, updated_at: datetime | None, metadata_source: str | None) -> None:
        self.columns: dict[str, Any] = {}
        self.asks = False
        self._updated_at = updated_at
        self._takes_metadata = metadata_source in (None, "lifecycle")

    def change(self, columns: Mapping[str, Any], metadata: bytes | None, at: datetime) -> None:
        """Take new facts, unless later ones are known."""
        if self._updated_at is not None and at < self._updated_at:
            return
        self.columns |= columns
        if metadata is not None and self._takes_metadata:
            self.columns |= {"metadata": msgspec.Raw(metadata), "metadata_source": "lifecycle"}
        self.asks = True
        # Of the time before its creation (only that brings metadata) REST has nothing to tell.
        if metadata is None:
            self.reached(at)

    def reached(self, at: datetime) -> None:
        """REST's answers about an earlier state than this are out of date."""
        if self._updated_at is None or at - _LEEWAY > self._updated_at:
            self._updated_at = at - _LEEWAY
            self.columns["exchange_updated_at"] = self._updated_at


def apply_changes(
    connection: psycopg.Connection,
    changes: Sequence[tuple[Change, datetime, datetime]],
    named: Collection[str] = (),
) -> None:
    """Apply changes in order; the caller commits.

    Args:
        changes: each with the exchange's time of its message, and our time of receiving it.
        named: markets that get their row, besides those that the changes name.

    A combo and its event never get a row here; those that have one are changed.
    """
    events = [(change, at) for change, at, _ in changes if change.kind == "event"]
    of_markets = [
        (change, at, received_at) for change, at, received_at in changes if change.kind != "event"
    ]
    # Series before events before markets: every writer locks in this order.
    if events:
        _apply_to_events(connection, events)
    told_events = {
        change.columns["event_ticker"]
        for change, _, _ in of_markets
        if change.kind == "market" and "event_ticker" in change.columns
    }
    name_events(connection, filter(is_ordinary, told_events))
    tickers = {change.market_ticker for change, _, _ in of_markets}
    name_markets(connection, {*named, *filter(is_ordinary, tickers)})
    if of_markets:
        _apply_to_markets(connection, of_markets)


def _apply_to_events(
    connection: psycopg.Connection, changes: Sequence[tuple[EventFactsChanged, datetime]]
) -> None:
    tickers = sorted({change.event_ticker for change, _ in changes})
    known = {ticker for (ticker,) in connection.execute(_KNOWN_EVENTS, [tickers])}
    kept = [
        (change, at)
        for change, at in changes
        if change.event_ticker in known or is_ordinary(change.event_ticker)
    ]
    told_series = [str(change.columns.get("series_ticker") or "") for change, _ in kept]
    name_series(connection, filter(None, told_series))
    name_events(connection, {change.event_ticker for change, _ in kept} - known)
    rows = _lock(connection, _LOCK_EVENTS, {change.event_ticker for change, _ in kept})
    for change, at in kept:
        rows[change.event_ticker].change(change.columns, change.metadata, at)
    _write(connection, _CHANGE_EVENTS, rows)
    tell_markets(connection, [t for t, row in rows.items() if "series_ticker" in row.columns])


def _apply_to_markets(
    connection: psycopg.Connection, changes: Sequence[tuple[MarketChanged, datetime, datetime]]
) -> None:
    rows = _lock(connection, _LOCK_MARKETS, {change.market_ticker for change, _, _ in changes})
    outcomes = load_outcomes(
        connection, {c.market_ticker for c, _, _ in changes if c.kind != "market"} & rows.keys()
    )
    other_outcomes: dict[str, Outcome] = {}
    for change, at, received_at in changes:
        ticker = change.market_ticker
        row = rows.get(ticker)
        if row is None:
            continue  # a combo that nobody traded
        if change.kind == "market":
            row.change(change.columns, change.metadata, at)
            continue
        outcome = outcomes.setdefault(ticker, Outcome())
        before = outcome.state()
        if change.kind == "determined":
            value = change.settlement_value_micros
            outcome.determined(change.result, value, change.determined_at, received_at)
            row.reached(change.determined_at)
        else:
            outcome.settled(change.settled_at, received_at)
            row.reached(change.settled_at)
        if outcome.state() != before:
            other_outcomes[ticker] = outcome
        # REST is asked, too, where a market was paid with a result that no message told.
        if not outcome.is_final and (outcome.state() != before or outcome.last is None):
            row.asks = True
    for ticker, outcome in other_outcomes.items():
        assert outcome.last is not None, "an outcome that changed has a version"
        rows[ticker].columns["outcome_status"] = outcome.last.status
    _name_series_of(connection, rows)
    _write(connection, _CHANGE_MARKETS, rows)
    write_outcomes(connection, other_outcomes)


def _name_series_of(connection: psycopg.Connection, rows: Mapping[str, _Row]) -> None:
    """Markets that learn their event learn its series, where that is known already."""
    learning = [row.columns for row in rows.values() if "event_ticker" in row.columns]
    if not learning:
        return
    events = sorted({columns["event_ticker"] for columns in learning})
    found = connection.execute(_SERIES_OF_EVENTS, [events])
    series: dict[str, str | None] = dict(found.fetchall())
    for columns in learning:
        columns["series_ticker"] = series.get(columns["event_ticker"])


def _lock(
    connection: psycopg.Connection, statement: str, tickers: Iterable[str]
) -> dict[str, _Row]:
    found = connection.execute(statement, [sorted(tickers)])
    return {ticker: _Row(updated_at, source) for ticker, updated_at, source in found}


def _write(connection: psycopg.Connection, statement: str, rows: Mapping[str, _Row]) -> None:
    changed = [
        {"ticker": ticker, "columns": row.columns, "asks": row.asks}
        for ticker, row in rows.items()
        if row.columns or row.asks
    ]
    if changed:
        connection.execute(statement, [as_rows(changed)])
