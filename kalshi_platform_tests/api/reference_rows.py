"""Builders: series, events, markets and outcomes as reading and loading leave them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.rows import at

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)

SERIES: dict[str, Any] = {
    "series_ticker": "KXRAIN",
    "title": "Rain in Oslo",
    "frequency": "daily",
    "category": "Climate and Weather",
    "categories": ["Climate and Weather", "World"],
    "tags": ["Rain"],
    "settlement_sources": Jsonb([{"name": "Met", "url": "https://met.example"}]),
    "fee_type": "quadratic",
    "fee_multiplier": Decimal("0.50"),
    "exchange_updated_at": at("08:00:00"),
    "metadata": Jsonb({"ticker": "KXRAIN"}),
}
EVENT: dict[str, Any] = {
    "event_ticker": "KXRAIN-26NOV20",
    "series_ticker": "KXRAIN",
    "title": "Rain on Friday?",
    "sub_title": "On Nov 20",
    "category": "Climate and Weather",
    "mutually_exclusive": True,
    "collateral_return_type": "MECNET",
    "strike_date": at("23:00:00"),
    "strike_period": "",
    "exchange_updated_at": at("08:00:00"),
    "metadata": Jsonb({"event_ticker": "KXRAIN-26NOV20"}),
}
MARKET: dict[str, Any] = {
    "market_ticker": "KXRAIN-26NOV20-T1",
    "event_ticker": "KXRAIN-26NOV20",
    "series_ticker": "KXRAIN",
    "market_type": "binary",
    "title": "Will it rain more than 1 mm in Oslo?",
    "yes_sub_title": "More than 1 mm",
    "no_sub_title": "1 mm or less",
    "created_at": at("2026-11-01T08:00:00"),
    "opens_at": NOW - 24 * HOUR,
    "closes_at": NOW + 24 * HOUR,
    "expected_expires_at": NOW + 25 * HOUR,
    "told_status": "active",
    "can_close_early": True,
    "settlement_timer_seconds": 60,
    "strike_type": "greater",
    "floor_strike": Decimal(1),
    "price_level_structure": "linear_cent",
    "price_ranges": Jsonb([{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]),
    "yes_bid_micros": 350_000,
    "yes_ask_micros": 362_500,
    "last_price_micros": 360_000,
    "volume_centis": 152_050,
    "open_interest_centis": 80_300,
    "exchange_updated_at": at("08:00:00"),
    "metadata": Jsonb({"ticker": "KXRAIN-26NOV20-T1", "rules_primary": "If it rains, yes."}),
    "read_at": at("09:00:00"),
}
OUTCOME: dict[str, Any] = {
    "market_ticker": "KXRAIN-26NOV20-T1",
    "status": "finalized",
    "result": "yes",
    "settlement_value_micros": 1_000_000,
    "effective_at": at("12:01:02.345678"),
    "source": "rest",
    "recorded_at": at("12:01:03"),
    "confirmed_at": at("12:01:30"),
    "determined_at": at("12:00:00"),
    "settled_at": at("12:01:02.345678"),
}
VERSION = {
    "version": 1,
    **{key: OUTCOME[key] for key in OUTCOME if key not in ("determined_at", "settled_at")},
}


def put(url: str, *rows: tuple[str, Mapping[str, Any]]) -> None:
    """Insert rows: (table, values by column)."""
    with connect(url) as connection:
        for table, values in rows:
            _insert(connection, table, values)


def series(**fields: Any) -> tuple[str, dict[str, Any]]:
    """One series that REST told of; name only what the test is about."""
    return "series", SERIES | fields


def event(event_ticker: str = "KXRAIN-26NOV20", **fields: Any) -> tuple[str, dict[str, Any]]:
    return "events", EVENT | {"event_ticker": event_ticker} | fields


def market(market_ticker: str = "KXRAIN-26NOV20-T1", **fields: Any) -> tuple[str, dict[str, Any]]:
    """One market that trades; name only what the test is about."""
    return "markets", MARKET | {"market_ticker": market_ticker} | fields


def outcome(market_ticker: str = "KXRAIN-26NOV20-T1", **fields: Any) -> tuple[str, dict[str, Any]]:
    return "settlements", OUTCOME | {"market_ticker": market_ticker} | fields


def version(number: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    """One entry of a market's history."""
    return "settlement_history", VERSION | {"version": number} | fields


def settled(market_ticker: str, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """A market with its outcome; fields are the outcome's."""
    told = outcome(market_ticker, **fields)
    closed = {"closes_at": NOW - HOUR, "outcome_status": told[1]["status"]}
    return [market(market_ticker, **closed), told]


def _insert(connection: psycopg.Connection, table: str, values: Mapping[str, Any]) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        ),
        values,
    )
