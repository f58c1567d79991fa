"""Lifecycle messages: what each of them changes, and which cannot be."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kalshi_platform.exchange.lifecycle import (
    Determined,
    EventChange,
    MarketChange,
    Settled,
    read_change,
)
from kalshi_platform.exchange.numbers import Unreadable

MARKET = "KXRAIN-26OCT01-T1.5"
CREATED = {
    "market_ticker": MARKET,
    "event_type": "created",
    "exchange_index": 0,
    "open_ts": 1_790_000_000,
    "close_ts": 1_790_086_400,
    "price_level_structure": "linear_cent",
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "additional_metadata": {
        "name": "1.5 inches or more",
        "title": "Rain in New York?",
        "yes_sub_title": "1.5 inches or more",
        "no_sub_title": "less",
        "rules_primary": "…",
        "rules_secondary": "",
        "can_close_early": True,
        "event_ticker": "KXRAIN-26OCT01",
        "expected_expiration_ts": 1_790_090_000,
        "strike_type": "greater_or_equal",
        "floor_strike": 1.5,
    },
}
WHOLE = {name: CREATED[name] for name in CREATED if name != "market_ticker"}
EVENT = {
    "event_ticker": "KXRAIN-26OCT01",
    "exchange_index": 0,
    "title": "Rain in New York",
    "subtitle": "On Oct 1",
    "collateral_return_type": "MECNET",
    "series_ticker": "KXRAIN",
}


def read(event_type, kind="market_lifecycle_v2", **fields):
    message = {"market_ticker": MARKET, "event_type": event_type} | fields
    return read_change(kind, json.dumps(message).encode())


def unix(seconds):
    return datetime.fromtimestamp(seconds, UTC)


def test_a_creation_tells_the_whole_market():
    change = read_change("market_lifecycle_v2", json.dumps(CREATED).encode())
    assert isinstance(change, MarketChange)
    assert change.market_ticker == MARKET
    columns = dict(change.columns)
    assert json.loads(bytes(columns.pop("price_ranges"))) == CREATED["price_ranges"]
    assert columns == {
        "event_ticker": "KXRAIN-26OCT01",
        "title": "Rain in New York?",
        "yes_sub_title": "1.5 inches or more",
        "no_sub_title": "less",
        "opens_at": unix(1_790_000_000),
        "closes_at": unix(1_790_086_400),
        "expected_expires_at": unix(1_790_090_000),
        "can_close_early": True,
        "price_level_structure": "linear_cent",
        "strike_type": "greater_or_equal",
        "floor_strike": Decimal("1.5"),
    }
    assert json.loads(change.metadata) == CREATED


@pytest.mark.parametrize(
    ("event_type", "fields", "columns"),
    [
        ("deactivated", {"is_deactivated": True}, {"is_paused": True}),
        ("activated", {"is_deactivated": False}, {"is_paused": False}),
        ("close_date_updated", {"close_ts": 1_790_080_000}, {"closes_at": unix(1_790_080_000)}),
        ("metadata_updated", {"floor_strike": None}, {"floor_strike": None}),
        ("metadata_updated", {"yes_sub_title": "new"}, {"yes_sub_title": "new"}),
        ("metadata_updated", {}, {}),
    ],
)
def test_a_message_changes_what_it_names_and_nothing_else(event_type, fields, columns):
    change = read(event_type, **fields)
    assert (change.columns, change.metadata) == (columns, None)


def test_finer_ticks_are_kept_as_told():
    ranges = [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}]
    change = read(
        "price_level_structure_updated", price_level_structure="deci_cent", price_ranges=ranges
    )
    assert change.columns["price_level_structure"] == "deci_cent"
    assert json.loads(bytes(change.columns["price_ranges"])) == ranges


def test_a_determination_carries_result_value_and_time():
    change = read(
        "determined", result="scalar", settlement_value="0.5000", determination_ts=1_790_080_100
    )
    assert change == Determined(MARKET, "scalar", 500_000, unix(1_790_080_100))
    older = read("determined", result="yes", determination_ts=1_790_080_100)
    assert older.settlement_value_micros is None, "the value was not told before 2026-02-26"


def test_a_payment_carries_its_time():
    assert read("settled", settled_ts=1_790_083_700) == Settled(MARKET, unix(1_790_083_700))


def test_an_event_type_not_heard_of_changes_nothing():
    assert read("fractional_trading_updated", fractional_trading_enabled=True) is None


def test_a_creation_of_an_event_names_its_series():
    change = read_change("event_lifecycle", json.dumps(EVENT | {"strike_date": 0}).encode())
    assert isinstance(change, EventChange)
    assert change.columns == {
        "series_ticker": "KXRAIN",
        "title": "Rain in New York",
        "sub_title": "On Oct 1",
        "collateral_return_type": "MECNET",
        "strike_date": unix(0),
    }
    alone = read_change("event_lifecycle", json.dumps(EVENT | {"series_ticker": ""}).encode())
    assert alone.columns["series_ticker"] == ""


def test_a_fee_is_overridden_and_the_override_cleared():
    message = {"event_ticker": "KXRAIN-26OCT01"}
    fee = {"fee_type_override": "flat", "fee_multiplier_override": 0.25}
    change = read_change("event_fee_update", json.dumps(message | fee).encode())
    assert change.columns == fee | {"fee_multiplier_override": Decimal("0.25")}
    cleared = dict.fromkeys(fee)
    assert (
        read_change("event_fee_update", json.dumps(message | cleared).encode()).columns == cleared
    )


@pytest.mark.parametrize(
    ("event_type", "fields", "reason"),
    [
        ("determined", {"result": "yes"}, "determination_ts"),
        ("determined", {"determination_ts": 1_790_080_100}, "result"),
        ("determined", {"result": "", "determination_ts": 1_790_080_100}, "result"),
        (
            "determined",
            {"result": "yes", "settlement_value": "1.5000", "determination_ts": 1_790_080_100},
            "settlement_value 1.5000 is not within",
        ),
        (
            "determined",
            {"result": "yes", "settlement_value": 1, "determination_ts": 1_790_080_100},
            "settlement_value",
        ),
        ("determined", {"result": "yes", "determination_ts": 1_790_080_100_000}, "determination"),
        ("settled", {"settled_ts": 0}, "settled_ts"),
        ("settled", {}, "settled_ts"),
        ("created", {"open_ts": 1}, "close_ts"),
        ("created", WHOLE | {"close_ts": 1_790_086_400_000}, "close_ts"),
        ("created", WHOLE | {"additional_metadata": {}}, "additional_metadata"),
        ("created", WHOLE | {"extra": "\0"}, "zero character"),
        ("close_date_updated", {"close_ts": "soon"}, "close_ts"),
        ("metadata_updated", {"floor_strike": "NaN"}, "floor_strike"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(event_type, fields, reason):
    with pytest.raises(Unreadable, match=reason):
        read(**{"event_type": event_type} | fields)


@pytest.mark.parametrize("kind", ["market_lifecycle_v2", "event_lifecycle", "event_fee_update"])
@pytest.mark.parametrize("junk", [b"", b"[]", b"5", b'{"event_type":5}', b"[" * 100_000])
def test_what_is_no_message_is_refused(kind, junk):
    with pytest.raises(Unreadable):
        read_change(kind, junk)
