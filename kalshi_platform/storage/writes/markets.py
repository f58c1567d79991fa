"""Markets: a placeholder row with the first message that names one, filled by messages and REST.

REST's rows are looked at beside those that stand, without a lock; only what will change is locked,
looked at again, and written. So a second reading of everything neither writes nor waits. Events
are locked before markets, by every writer, in order of their tickers.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec
import psycopg

from kalshi_platform.storage.writes.events import name_events
from kalshi_platform.storage.writes.market_verdicts import Standing, Verdict, judge
from kalshi_platform.storage.writes.settlements import load_outcomes, write_outcomes
from kalshi_platform.storage.writes.told import (
    Changes,
    as_rows,
    columns_of,
    name_rows,
)

_COMBO_PREFIX = "KXMVE"

_NAME = "INSERT INTO markets (market_ticker) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_FACTS = (
    "event_ticker",
    "market_type",
    "title",
    "yes_sub_title",
    "no_sub_title",
    "created_at",
    "opens_at",
    "closes_at",
    "expected_expires_at",
    "exchange_updated_at",
    "can_close_early",
    "settlement_timer_seconds",
    "strike_type",
    "floor_strike",
    "cap_strike",
    "functional_strike",
    "custom_strike",
    "price_level_structure",
    "price_ranges",
    "metadata",
)
_DOCUMENTS = ("custom_strike", "price_ranges", "metadata")
_FIGURES = (
    "yes_bid_micros",
    "yes_ask_micros",
    "last_price_micros",
    "volume_centis",
    "open_interest_centis",
)
_COMPARED = (*_FACTS, "told_status")
_WRITTEN = (
    *_COMPARED,
    *_FIGURES,
    "outcome_status",
    "metadata_source",
    "read_at",
    "next_read_at",
    "read_attempts",
)
# The archive leaves fields out that the live tier told (occurrence_datetime), of the same change.
_LOOK = f"""
SELECT told.market_ticker, held.market_ticker IS NOT NULL, coalesce(held.is_combo, false),
       ({columns_of(_COMPARED, "held")}) IS DISTINCT FROM ({columns_of(_COMPARED, "told")})
       AND NOT (%s = 'historical' AND coalesce(held.metadata_source = 'rest', false)
                AND held.exchange_updated_at = told.exchange_updated_at)
       OR held.is_paused IS DISTINCT FROM coalesce(told.is_paused, held.is_paused)
       OR held.series_ticker IS DISTINCT FROM events.series_ticker,
       held.exchange_updated_at, coalesce(held.read_attempts, 0), held.next_read_at,
       held.not_found_at IS NOT NULL, now()
FROM json_populate_recordset(NULL::markets, %s) AS told
LEFT JOIN markets AS held USING (market_ticker)
LEFT JOIN events ON events.event_ticker = told.event_ticker
"""  # noqa: S608
# Held until the end, so that no event learns its series between our reading and our writing it.
_SHARE_EVENTS = "SELECT FROM events WHERE event_ticker = ANY(%s) ORDER BY event_ticker FOR SHARE"
_LOCK = "SELECT FROM markets WHERE market_ticker = ANY(%s) ORDER BY market_ticker FOR UPDATE"
_TAKE = f"""
UPDATE markets AS held
SET ({columns_of(_WRITTEN)}) = ROW({columns_of(_WRITTEN, "told")}),
    is_paused = coalesce(told.is_paused, held.is_paused),
    series_ticker = (SELECT series_ticker FROM events WHERE event_ticker = told.event_ticker),
    updated_at = now(), not_found_at = NULL
FROM json_populate_recordset(NULL::markets, %s) AS told
WHERE held.market_ticker = told.market_ticker
"""  # noqa: S608
# Figures of trading go with `read_at`, when they were so; null where REST is not believed.
_AS_OF_READING = ("read_at", *_FIGURES)
_QUEUE = f"""
UPDATE markets AS held
SET next_read_at = queued.next_read_at, read_attempts = queued.read_attempts,
    {", ".join(f"{name} = coalesce(queued.{name}, held.{name})" for name in _AS_OF_READING)},
    not_found_at = CASE WHEN queued.read_at IS NULL THEN held.not_found_at END
FROM json_populate_recordset(NULL::markets, %s) AS queued
WHERE held.market_ticker = queued.market_ticker
"""  # noqa: S608
_ASK_AGAIN = """
UPDATE markets SET next_read_at = now(), read_attempts = 0 WHERE market_ticker = ANY(%s)
"""
# In the order in which every writer locks.
_ASK_OPEN_COMBOS = """
UPDATE markets SET next_read_at = now() + interval '5 s', read_attempts = 0
WHERE market_ticker IN (
    SELECT market_ticker FROM markets
    WHERE is_combo AND outcome_status IS DISTINCT FROM 'finalized'
    ORDER BY market_ticker FOR UPDATE)
"""
# Past its close, a market's status says nothing of whether it was paused before.
_PAUSED = {"inactive": True, "active": False}


class MarketValues(Protocol):
    """What a row needs; `exchange.reference.MarketFacts` has it."""

    market_ticker: str
    event_ticker: str
    market_type: str
    status: str
    title: str | None
    yes_sub_title: str
    no_sub_title: str
    created_at: datetime
    opens_at: datetime
    closes_at: datetime
    expected_expires_at: datetime | None
    exchange_updated_at: datetime
    can_close_early: bool
    settlement_timer_seconds: int
    strike_type: str | None
    floor_strike: Decimal | None
    cap_strike: Decimal | None
    functional_strike: str | None
    custom_strike: bytes | None
    price_level_structure: str
    price_ranges: bytes
    result: str
    settlement_value_micros: int | None
    settled_at: datetime | None
    yes_bid_micros: int
    yes_ask_micros: int
    last_price_micros: int
    volume_centis: int
    open_interest_centis: int
    metadata: bytes


def is_ordinary(ticker: str) -> bool:
    """Whether a market or event is none of the combos, of which a million are born a day."""
    return not ticker.startswith(_COMBO_PREFIX)


def name_markets(connection: psycopg.Connection, tickers: Iterable[str]) -> None:
    """Make sure that each ticker has its row; the caller commits."""
    name_rows(connection, _NAME, tickers)


def ask_again(connection: psycopg.Connection, tickers: Iterable[str]) -> None:
    """Have REST asked at once for markets of which a message could not be read."""
    known = sorted(tickers)
    name_markets(connection, known)
    connection.execute(_ASK_AGAIN, [known])


def ask_open_combos(connection: psycopg.Connection) -> None:
    """Have REST asked for every combo that is not final; the caller commits.

    For when messages of their channel may have been lost: no list of changes names combos, so each
    would else be asked for only at the close that was last told.
    """
    connection.execute(_ASK_OPEN_COMBOS)


def write_markets(
    connection: psycopg.Connection,
    facts: Sequence[MarketValues],
    *,
    source: Literal["rest", "historical"],
    read_at: datetime,
) -> Changes:
    """Write what REST told of markets and their outcomes; the caller commits.

    A combo without a row is left out: only a trade makes one.
    """
    told = {fact.market_ticker: fact for fact in sorted(facts, key=lambda f: f.exchange_updated_at)}
    verdicts = _judge(connection, told.values(), source, read_at)
    moving = [told[verdict.market_ticker] for verdict in verdicts if verdict.moves]
    if not moving:
        return Changes(0, 0, len(told))
    events = sorted({fact.event_ticker for fact in moving})
    name_events(connection, events)
    connection.execute(_SHARE_EVENTS, [events])
    added = {verdict.market_ticker for verdict in verdicts if not verdict.is_known}
    name_markets(connection, added)
    connection.execute(_LOCK, [sorted(fact.market_ticker for fact in moving)])
    verdicts = [v for v in _judge(connection, moving, source, read_at) if v.moves]
    taken = [verdict for verdict in verdicts if verdict.is_changed]
    if taken:
        rows = [_row(told[v.market_ticker], v, source, read_at) for v in taken]
        connection.execute(_TAKE, [as_rows(rows)])
    _queue(connection, told, [v for v in verdicts if not v.is_changed], read_at)
    write_outcomes(
        connection, {v.market_ticker: v.outcome for v in verdicts if v.outcome is not None}
    )
    new = sum(verdict.market_ticker in added for verdict in taken)
    return Changes(new, len(taken) - new, len(told) - len(taken))


def _judge(
    connection: psycopg.Connection, facts: Iterable[MarketValues], source: str, read_at: datetime
) -> list[Verdict]:
    """What becomes of each market told; of the combos, of those that have a row."""
    told = {fact.market_ticker: fact for fact in facts}
    rows = connection.execute(_LOOK, [source, as_rows(map(_facts, told.values()))]).fetchall()
    outcomes = load_outcomes(connection, told)
    return [
        judge(told[standing.market_ticker], standing, outcomes, source, read_at)
        for standing in map(Standing._make, rows)
        if standing.is_known or is_ordinary(standing.market_ticker)
    ]


def _queue(
    connection: psycopg.Connection,
    told: Mapping[str, MarketValues],
    verdicts: Sequence[Verdict],
    read_at: datetime,
) -> None:
    """Move markets in the queue of which no new fact was told."""
    rows = []
    for verdict in verdicts:
        row: dict[str, Any] = {
            "market_ticker": verdict.market_ticker,
            "next_read_at": verdict.next_read_at,
            "read_attempts": verdict.read_attempts,
        }
        if verdict.is_taken:
            row |= {"read_at": read_at} | _figures(told[verdict.market_ticker])
        rows.append(row)
    if rows:
        connection.execute(_QUEUE, [as_rows(rows)])


def _figures(told: MarketValues) -> dict[str, Any]:
    return {name: getattr(told, name) for name in _FIGURES}


def _facts(told: MarketValues) -> dict[str, Any]:
    """A row as far as it is compared."""
    row = {name: getattr(told, name) for name in _FACTS}
    for name in _DOCUMENTS:
        row[name] = None if row[name] is None else msgspec.Raw(row[name])
    row["market_ticker"] = told.market_ticker
    row["told_status"] = told.status
    row["is_paused"] = _PAUSED.get(told.status)
    return row


def _row(told: MarketValues, verdict: Verdict, source: str, read_at: datetime) -> dict[str, Any]:
    """A row as it is written."""
    return (
        _facts(told)
        | _figures(told)
        | {
            "outcome_status": verdict.outcome_status,
            "metadata_source": source,
            "read_at": read_at,
            "next_read_at": verdict.next_read_at,
            "read_attempts": verdict.read_attempts,
        }
    )
