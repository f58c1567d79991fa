"""Markets, events and series as REST tells them: every digit kept, nothing made up."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kalshi_platform.exchange.numbers import Unreadable
from kalshi_platform.exchange.reference import read_event, read_market, read_series
from kalshi_platform_tests.exchange.wire import (
    EVENT,
    MARKET,
    SERIES,
    encoded,
    event,
    market,
    series,
    without,
)


def test_a_market_is_read_in_our_units():
    told = market()
    assert told.market_ticker == "KXRAIN-26OCT01-T1.5"
    assert (told.yes_bid_micros, told.yes_ask_micros) == (123_000, 130_000)
    assert told.last_price_micros == 125_000
    assert (told.volume_centis, told.open_interest_centis) == (298_550, 242_248)
    assert told.created_at == datetime(2026, 9, 28, 14, 0, 0, 154369, UTC)
    assert told.exchange_updated_at == datetime(2026, 9, 28, 14, 0, 0, 200_000, UTC)
    assert (told.result, told.settlement_value_micros, told.settled_at) == ("", None, None)
    assert json.loads(told.price_ranges) == MARKET["price_ranges"]


def test_an_outcome_is_read_to_the_microsecond():
    told = market(
        status="finalized",
        result="scalar",
        settlement_value_dollars="0.5000",
        settlement_ts="2026-10-02T04:05:06.764968Z",
    )
    assert (told.result, told.settlement_value_micros) == ("scalar", 500_000)
    assert told.settled_at == datetime(2026, 10, 2, 4, 5, 6, 764968, UTC)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.1", "0.1"),
        ("70", "70"),
        ("70.10", "70.10"),
        ("-3.25", "-3.25"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("12345678901234567890.123", "12345678901234567890.123"),
    ],
)
def test_a_strike_keeps_the_digits_of_the_wire(written, read):
    body = encoded(MARKET, floor_strike="HERE").replace(b'"HERE"', written.encode())
    told = read_market(body)
    assert str(told.floor_strike) == read
    assert f'"floor_strike":{written}'.encode() in told.metadata.replace(b" ", b"")


def test_the_exchanges_json_is_kept_without_the_figures_of_trading():
    kept = json.loads(market(something_new={"a": [1, 2.50]}).metadata)
    figures = {
        name
        for name in MARKET
        if name.startswith(
            ("yes_b", "yes_a", "no_b", "no_a", "last_", "previous_", "vol", "open_i")
        )
    }
    assert len(figures) == 13
    assert kept == without(MARKET, *figures) | {"something_new": {"a": [1, 2.5]}}


def test_figures_of_trading_make_no_other_metadata():
    quiet = market()
    busy = market(volume_fp="9999.00", yes_bid_dollars="0.5000", liquidity_dollars="1.0000")
    assert quiet.metadata == busy.metadata
    assert quiet.volume_centis != busy.volume_centis


@pytest.mark.parametrize("name", ["title", "expected_expiration_time", "strike_type"])
def test_what_the_wire_may_leave_out_is_none(name):
    facts = read_market(json.dumps(without(MARKET, name)).encode())
    column = {"expected_expiration_time": "expected_expires_at"}.get(name, name)
    assert getattr(facts, column) is None


@pytest.mark.parametrize(
    "name",
    [
        *("ticker", "event_ticker", "status", "result", "close_time", "updated_time", "volume_fp"),
        *("yes_bid_dollars", "settlement_timer_seconds", "can_close_early", "price_ranges"),
    ],
)
def test_a_market_without_what_it_must_have_is_refused_by_name(name):
    with pytest.raises(Unreadable, match=f"`{name}`"):
        read_market(json.dumps(without(MARKET, name)).encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"yes_bid_dollars": "1.0100"}, "yes_bid_dollars 1.0100 is not within"),
        ({"yes_bid_dollars": 0.5}, "yes_bid_dollars"),
        ({"settlement_value_dollars": "1.0001"}, "settlement_value_dollars"),
        ({"settlement_value_dollars": "-0.5"}, "decimal"),
        ({"settlement_ts": "2101-01-01T00:00:00Z"}, "settlement_ts"),
        ({"updated_time": "2101-01-01T00:00:00Z"}, "updated_time"),
        ({"close_time": "2026-10-02T03:59:00"}, "close_time"),
        ({"close_time": 1790000000}, "close_time"),
        ({"close_time": "9999-12-31T23:59:59-05:00"}, "out of range"),
        ({"ticker": "KX RAIN"}, "ticker"),
        ({"ticker": ""}, "ticker"),
        ({"event_ticker": "K" * 201}, "event_ticker"),
        ({"result": "yes please"}, "result"),
        ({"title": "zero \0"}, "zero character"),
        ({"rules_primary": "zero \0"}, "zero character"),
        ({"title": "x" * 50_001}, "title"),
        ({"price_ranges": [{"start": "0.0000"}]}, "price_ranges"),
        ({"custom_strike": [1]}, "custom_strike"),
        ({"floor_strike": "NaN"}, "floor_strike"),
        ({"settlement_timer_seconds": -1}, "settlement_timer_seconds"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(changes, reason):
    with pytest.raises(Unreadable, match=reason):
        market(**changes)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"[]",
        b"null",
        b'{"ticker":',
        b"\xff",
        encoded(MARKET, extra="HERE").replace(b'"HERE"', b"1e999999"),
        encoded(MARKET, extra="HERE").replace(b'"HERE"', b'"\\ud800"'),
        encoded(MARKET, extra="HERE").replace(b'"HERE"', b"[" * 5000 + b"]" * 5000),
        encoded(MARKET, floor_strike="HERE").replace(b'"HERE"', b"1e400"),
        encoded(MARKET, floor_strike="HERE").replace(b'"HERE"', b"1e-400"),
    ],
)
def test_what_no_table_can_hold_is_refused_before_it_gets_there(junk):
    with pytest.raises(Unreadable):
        read_market(junk)


def test_an_event_is_read_without_its_markets():
    told = event(markets=[MARKET], fee_multiplier_override=0.25, fee_type_override="flat")
    assert (told.event_ticker, told.series_ticker) == ("KXRAIN-26OCT01", "KXRAIN")
    assert told.strike_date == datetime(2026, 10, 1, tzinfo=UTC)
    assert told.fee_multiplier_override == Decimal("0.25")
    assert json.loads(told.metadata) == EVENT | {
        "fee_multiplier_override": 0.25,
        "fee_type_override": "flat",
    }


@pytest.mark.parametrize("changes", [{"series_ticker": ""}, {"series_ticker": None}])
def test_an_event_may_have_no_series(changes):
    assert event(**changes).series_ticker == ""
    assert read_event(json.dumps(without(EVENT, "series_ticker")).encode()).series_ticker == ""


def test_a_series_is_read_without_its_volume():
    told = series()
    assert told.fee_multiplier == Decimal("0.5")
    assert told.categories == ["Climate and Weather", "Science"]
    assert json.loads(told.metadata) == without(SERIES, "volume_fp")
    older = read_series(
        json.dumps(without(SERIES, "categories", "last_updated_ts") | {"tags": None}).encode()
    )
    assert (older.categories, older.tags, older.exchange_updated_at) == (None, None, None)


@pytest.mark.parametrize("read", [read_event, read_series])
def test_an_event_or_series_that_is_none_is_refused(read):
    for junk in (
        b"[]",
        b"{}",
        encoded(EVENT | SERIES, title=5),
        encoded(EVENT | SERIES, title="\0"),
    ):
        with pytest.raises(Unreadable):
            read(junk)
