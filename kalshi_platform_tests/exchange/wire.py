"""Markets, events and series as REST sends them: one valid thing each."""

import json

from kalshi_platform.exchange.reference import (
    EventFacts,
    MarketFacts,
    SeriesFacts,
    read_event,
    read_market,
    read_series,
)

MARKET = {
    "ticker": "KXRAIN-26OCT01-T1.5",
    "event_ticker": "KXRAIN-26OCT01",
    "market_type": "binary",
    "title": "Rain in New York on Oct 1?",
    "yes_sub_title": "1.5 inches or more",
    "no_sub_title": "Less than 1.5 inches",
    "created_time": "2026-09-28T14:00:00.154369Z",
    "updated_time": "2026-09-28T14:00:00.2Z",
    "open_time": "2026-09-29T14:00:00Z",
    "close_time": "2026-10-02T03:59:00Z",
    "expected_expiration_time": "2026-10-02T14:00:00Z",
    "latest_expiration_time": "2026-10-09T14:00:00Z",
    "settlement_timer_seconds": 300,
    "status": "active",
    "result": "",
    "can_close_early": True,
    "expiration_value": "",
    "yes_bid_dollars": "0.1230",
    "yes_ask_dollars": "0.1300",
    "no_bid_dollars": "0.8700",
    "no_ask_dollars": "0.8770",
    "yes_bid_size_fp": "10.00",
    "yes_ask_size_fp": "0.33",
    "last_price_dollars": "0.1250",
    "previous_price_dollars": "0.2000",
    "previous_yes_bid_dollars": "0.1900",
    "previous_yes_ask_dollars": "0.2100",
    "volume_fp": "2985.50",
    "volume_24h_fp": "3.14",
    "open_interest_fp": "2422.48",
    "notional_value_dollars": "1.0000",
    "strike_type": "greater_or_equal",
    "floor_strike": 1.5,
    "rules_primary": "If it rains 1.5 inches or more, then the market resolves to Yes.",
    "rules_secondary": "",
    "price_level_structure": "deci_cent",
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}],
    "settlement_bounds_type": "default",
    "exchange_index": 0,
}
EVENT = {
    "event_ticker": "KXRAIN-26OCT01",
    "series_ticker": "KXRAIN",
    "title": "Rain in New York",
    "sub_title": "On Oct 1",
    "collateral_return_type": "MECNET",
    "mutually_exclusive": True,
    "settlement_sources": [{"name": "NWS", "url": "https://example.com/"}],
    "category": "Climate and Weather",
    "strike_date": "2026-10-01T00:00:00Z",
    "last_updated_ts": "2026-09-28T14:00:00.1Z",
    "exchange_index": 0,
}
SERIES = {
    "ticker": "KXRAIN",
    "frequency": "daily",
    "title": "Rain in New York",
    "category": "Climate and Weather",
    "categories": ["Climate and Weather", "Science"],
    "tags": ["Rain"],
    "settlement_sources": [{"name": "NWS", "url": "https://example.com/"}],
    "contract_url": "https://example.com/contract",
    "contract_terms_url": "https://example.com/terms",
    "fee_type": "quadratic",
    "fee_multiplier": 0.5,
    "additional_prohibitions": None,
    "volume_fp": "120.00",
    "last_updated_ts": "2026-01-01T00:00:00Z",
    "exchange_index": 0,
}


def without(thing: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in thing.items() if name not in names}


def encoded(thing: dict[str, object], **changes: object) -> bytes:
    return json.dumps(thing | changes).encode()


def market(**changes: object) -> MarketFacts:
    return read_market(encoded(MARKET, **changes))


def event(**changes: object) -> EventFacts:
    return read_event(encoded(EVENT, **changes))


def series(**changes: object) -> SeriesFacts:
    return read_series(encoded(SERIES, **changes))
