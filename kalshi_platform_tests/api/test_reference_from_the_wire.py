"""What the exchange tells, read and written as ever, is what customers are answered."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from kalshi_platform.exchange.reference import read_event, read_market, read_series
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.events import write_events
from kalshi_platform.storage.writes.markets import write_markets
from kalshi_platform.storage.writes.series import write_series
from kalshi_platform_tests.api.asking import ask_list, ask_one

READ_AT = datetime(2026, 11, 21, 12, tzinfo=UTC)

SERIES = """{"ticker": "KXMLB", "title": "Baseball Game", "category": "Sports",
 "frequency": "custom", "categories": ["Sports"], "tags": null, "settlement_sources": null,
 "fee_type": "quadratic", "fee_multiplier": 0.5, "contract_url": "", "contract_terms_url": "",
 "additional_prohibitions": null, "last_updated_ts": "2026-08-19T15:45:47.523967Z"}"""
EVENT = """{"event_ticker": "KXMLB-26NOV20", "series_ticker": "KXMLB", "title": "Łódź at Oslo",
 "sub_title": "Nov 20", "collateral_return_type": "MECNET", "mutually_exclusive": true,
 "settlement_sources": null, "strike_period": "", "category": "Sports",
 "last_updated_ts": "2026-11-01T00:00:00Z"}"""
MARKET: dict[str, Any] = {
    "ticker": "KXMLB-26NOV20-LDZ",
    "event_ticker": "KXMLB-26NOV20",
    "market_type": "binary",
    "title": "Will Łódź win?\n\u2028<b>",
    "yes_sub_title": "Łódź",
    "no_sub_title": "Oslo",
    "created_time": "2026-11-01T19:06:01.154Z",
    "updated_time": "2026-11-20T23:01:03.1Z",
    "open_time": "2026-11-01T19:10:00Z",
    "close_time": "2026-11-20T23:00:00Z",
    "latest_expiration_time": "2026-11-20T23:30:00Z",
    "settlement_timer_seconds": 60,
    "status": "finalized",
    "result": "scalar",
    "settlement_value_dollars": "0.5000",
    "settlement_ts": "2026-11-20T23:01:02.345678Z",
    "can_close_early": True,
    "expiration_value": "",
    "yes_bid_dollars": "0.0000",
    "yes_ask_dollars": "1.0000",
    "no_bid_dollars": "0.0000",
    "no_ask_dollars": "1.0000",
    "yes_bid_size_fp": "0.00",
    "yes_ask_size_fp": "0.00",
    "last_price_dollars": "0.9501",
    "previous_yes_bid_dollars": "0.0000",
    "previous_yes_ask_dollars": "0.0000",
    "previous_price_dollars": "0.0000",
    "volume_fp": "2985.57",
    "volume_24h_fp": "3.14",
    "open_interest_fp": "0.00",
    "notional_value_dollars": "1.0000",
    "strike_type": "structured",
    "custom_strike": {"team": "e29b78dd"},
    "rules_primary": "If Łódź wins, yes.",
    "rules_secondary": "",
    "price_level_structure": "linear_cent",
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "exchange_index": 0,
}


@pytest.mark.parametrize("strike", ["77414.99", "0.1", "1e2", "100", "-5.50"])
async def test_a_market_told_over_rest_is_answered_as_told(client, database, strike):
    body = json.dumps(MARKET)[:-1] + f', "floor_strike": {strike}}}'
    with connect(database) as connection:
        write_series(connection, [read_series(SERIES.encode())], source="rest", read_at=READ_AT)
        write_events(connection, [read_event(EVENT.encode())], source="rest", read_at=READ_AT)
        write_markets(connection, [read_market(body.encode())], source="rest", read_at=READ_AT)
    [market] = (await ask_list(client, "markets", search="łódź", series_ticker="KXMLB"))["data"]
    assert market["floor_strike"] == Decimal(strike)
    assert (market["title"], market["custom_strike"]) == (MARKET["title"], {"team": "e29b78dd"})
    assert (market["status"], market["result"]) == ("finalized", "scalar")
    assert (market["settlement_value"], market["last_price"]) == (50, Decimal("95.01"))
    assert (market["volume_fp"], market["open_interest"]) == ("2985.57", 0)
    assert market["price_ranges"] == MARKET["price_ranges"]
    single = await ask_one(client, "markets", MARKET["ticker"])
    assert single["metadata"]["rules_primary"] == "If Łódź wins, yes."
    settlement = await ask_one(client, "settlements", MARKET["ticker"])
    assert settlement["settled_at"] == "2026-11-20T23:01:02.345678Z"
    assert (settlement["source"], settlement["series_ticker"]) == ("rest", "KXMLB")
    assert [version["in_force"] for version in settlement["history"]] == [True]
    assert single["settlement"] == {key: settlement[key] for key in single["settlement"]}
    event = await ask_one(client, "events", "KXMLB-26NOV20")
    assert (event["status"], event["category"], event["markets"]) == ("settled", "Sports", [market])
    series = await ask_one(client, "series", "KXMLB")
    assert (series["fee_multiplier"], series["tags"]) == (Decimal("0.5"), None)
