"""Messages: exact numbers, and a reason for everything that cannot be read."""

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.exchange.messages import (
    Frame,
    Unreadable,
    centis,
    micros,
    read_quote,
    read_rest_trades,
    read_trade,
)

_decode = msgspec.json.Decoder(Frame).decode


def trade_frame(**changes):
    message = {
        "trade_id": "d91bc706-ee49-470d-82d8-11418bda6fed",
        "market_ticker": "HIGHNY-22DEC23-B53.5",
        "yes_price_dollars": "0.3600",
        "no_price_dollars": "0.6400",
        "count_fp": "136.00",
        "taker_side": "no",
        "taker_outcome_side": "no",
        "taker_book_side": "ask",
        "is_block_trade": False,
        "ts": 1669149841,
        "ts_ms": 1669149841123,
    }
    message |= changes
    message = {key: value for key, value in message.items() if value is not None}
    return json.dumps({"type": "trade", "sid": 11, "seq": 2, "msg": message}).encode()


def read(frame):
    return read_trade(_decode(frame).msg)


def test_a_trade_is_read_into_micros_and_centis():
    trade = read(trade_frame())
    assert trade.yes_price_micros == 360_000
    assert trade.count_centis == 13_600
    assert trade.taker_side == "no"
    assert trade.traded_at_micros == 1_669_149_841_123_000
    assert not trade.exact_time


@given(st.decimals(0, 1, places=6), st.decimals(0, 10**9, places=2))
def test_numbers_are_exact(price, count):
    assert Decimal(micros(f"{price:f}")) == price * 10**6
    assert Decimal(centis(f"{count:f}")) == count * 100


def test_extra_zeros_beyond_the_unit_are_no_loss():
    assert micros("0.36000000") == 360_000
    assert centis("1.5") == 150


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "-0.36", "0.36.1", "1e-2", "NaN", " 1", "٣", "0x1", "0.3600001"]
)
def test_what_is_no_exact_decimal_is_refused(text):
    with pytest.raises(Unreadable):
        micros(text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"yes_price_dollars": None}, "yes_price_dollars"),
        ({"count_fp": None}, "count_fp"),
        ({"ts_ms": None}, "ts_ms"),
        ({"taker_outcome_side": None, "taker_side": None}, "taker_outcome_side"),
        ({"yes_price_dollars": "1.5000", "no_price_dollars": "-0.5000"}, "within"),
        ({"yes_price_dollars": "0.0000", "no_price_dollars": "1.0000"}, "within"),
        ({"yes_price_dollars": "0.3700"}, "sum to 1"),
        ({"count_fp": "0.00"}, "zero"),
        ({"count_fp": "9999999999999999.00"}, "too large"),
        ({"yes_price_dollars": 36}, "str"),
        ({"ts_ms": 1669149841}, "milliseconds"),
        ({"taker_outcome_side": "maybe"}, "maybe"),
        ({"market_ticker": "A\u0000B"}, "market_ticker"),
    ],
)
def test_a_broken_trade_is_refused_with_the_reason(changes, reason):
    with pytest.raises((Unreadable, msgspec.DecodeError), match=reason):
        read(trade_frame(**changes))


def test_the_deprecated_side_serves_where_the_new_one_is_missing():
    assert read(trade_frame(taker_outcome_side=None, taker_side="yes")).taker_side == "yes"


def test_a_missing_block_flag_is_unknown_not_false():
    assert read(trade_frame(is_block_trade=None)).is_block_trade is None


def test_a_ticker_keeps_empty_books_and_whole_dollars():
    frame = {
        "type": "ticker",
        "sid": 1,
        "msg": {
            "market_ticker": "KXBTC15M-26MAY110530-30",
            "price_dollars": "0.0210",
            "yes_bid_dollars": "0.0000",
            "yes_ask_dollars": "1.0000",
            "yes_bid_size_fp": "0.00",
            "yes_ask_size_fp": "0.00",
            "last_trade_size_fp": "10.00",
            "volume_fp": "628484.70",
            "open_interest_fp": "118651.26",
            "dollar_volume": -1,
            "dollar_open_interest": 59325,
            "ts_ms": 1778491788843,
            "Clock": "an unknown field",
        },
    }
    quote = read_quote(_decode(json.dumps(frame).encode()).msg)
    assert (quote.yes_bid_micros, quote.yes_ask_micros) == (0, 1_000_000)
    assert quote.volume_centis == 62_848_470
    assert quote.dollar_volume == -1


def rest_trade(**changes):
    return {
        "trade_id": "ea25fb02-4be3-7e0c-d707-abfc1ca7f2ee",
        "ticker": "KXNWSLGAME-26JUL10BOSCHI-TIE",
        "count_fp": "12.00",
        "yes_price_dollars": "0.2100",
        "no_price_dollars": "0.7900",
        "taker_outcome_side": "yes",
        "created_time": "2026-07-10T23:58:40.5931Z",
        "is_block_trade": False,
    } | changes


def test_a_rest_page_reads_microseconds_whose_zeros_were_trimmed():
    body = json.dumps({"trades": [rest_trade()], "cursor": "next"}).encode()
    [trade], rejected, cursor = read_rest_trades(body)
    assert trade.traded_at_micros % 1_000_000 == 593_100
    assert trade.exact_time
    assert rejected == []
    assert cursor == "next"


@pytest.mark.parametrize("cursor", [{"cursor": ""}, {"cursor": None}, {}])
def test_every_form_of_a_last_page_ends_the_paging(cursor):
    assert read_rest_trades(json.dumps({"trades": [], **cursor}).encode())[2] is None


def test_one_bad_row_does_not_spoil_the_page():
    rows = [rest_trade(), rest_trade(count_fp="x"), rest_trade(created_time="2026-07-10T23:58:40")]
    trades, rejected, _ = read_rest_trades(json.dumps({"trades": rows}).encode())
    assert len(trades) == 1
    assert [json.loads(data)["ticker"] for data, _ in rejected] == [rows[0]["ticker"]] * 2


def test_an_answer_that_is_no_page_is_refused():
    with pytest.raises(Unreadable, match="page of trades"):
        read_rest_trades(b'{"error": "too many requests"}')
