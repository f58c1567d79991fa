"""Candlesticks: two shapes on the wire become one; what is not told is None, never zero."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from kalshi_platform.exchange.candlesticks import (
    Candlestick,
    read_batch_candles,
    read_historical_candles,
    read_live_candles,
)
from kalshi_platform.exchange.errors import UnreadableAnswer

SIDES = ("open", "high", "low", "close")


def told(prices: str, suffix: str = "") -> dict[str, str]:
    return {f"{side}{suffix}": price for side, price in zip(SIDES, prices.split(), strict=True)}


def live(**changes: Any) -> dict[str, Any]:
    candle = {
        "end_period_ts": 60,
        "yes_bid": told("0.2900 0.3900 0.1900 0.3400", "_dollars"),
        "yes_ask": told("0.3100 0.4100 0.2100 0.3600", "_dollars"),
        "price": {**told("0.3 0.4 0.2 0.3505", "_dollars"), "previous_dollars": "0.1"},
        "volume_fp": "28.74",
        "open_interest_fp": "5.00",
        **changes,
    }
    return {name: value for name, value in candle.items() if value is not None}


def historical(**changes: Any) -> dict[str, Any]:
    return {
        "end_period_ts": 60,
        "yes_bid": told("0.2900 0.3900 0.1900 0.3400"),
        "yes_ask": told("0.3100 0.4100 0.2100 0.3600"),
        "price": {**told("0.3 0.4 0.2 0.3505"), "mean": "0.3", "previous": "0.1"},
        "volume": "28.74",
        "open_interest": "5.00",
        **changes,
    }


def body(*candles: dict[str, Any]) -> bytes:
    return json.dumps({"ticker": "A", "candlesticks": candles}).encode()


def test_live_and_historical_candles_become_one():
    [first] = read_live_candles(body(live()))
    [second] = read_historical_candles(body(historical()))
    assert first == second
    assert first == Candlestick(
        60,
        *(300_000, 400_000, 200_000, 350_500),
        100_000,
        *(2874, 500),
        *(290_000, 390_000, 190_000, 340_000),
        *(310_000, 410_000, 210_000, 360_000),
    )


def test_of_several_markets_a_quiet_one_has_an_empty_list():
    answer = {
        "markets": [
            {"market_ticker": "A", "candlesticks": [live()]},
            {"market_ticker": "B", "candlesticks": []},
        ]
    }
    assert read_batch_candles(json.dumps(answer).encode()) == {
        "A": read_live_candles(body(live())),
        "B": [],
    }


@pytest.mark.parametrize(
    ("read", "quiet"),
    [
        (read_live_candles, live(price={"previous_dollars": "0.4800"}, volume_fp="0.00")),
        (read_live_candles, live(price={**dict.fromkeys(told("1 1 1 1", "_dollars"))})),
        (read_live_candles, live(price={})),
        (read_historical_candles, historical(price={**dict.fromkeys(told("1 1 1 1"))})),
    ],
)
def test_a_candle_without_a_trade_has_quotes_and_no_prices(
    read: Callable[[bytes], list[Candlestick]], quiet: dict[str, Any]
):
    [candle] = read(body(quiet))
    assert (candle.open_micros, candle.high_micros) == (None, None)
    assert (candle.low_micros, candle.close_micros) == (None, None)
    assert (candle.yes_bid_close_micros, candle.yes_ask_close_micros) == (340_000, 360_000)


def test_a_synthetic_candle_has_no_quotes_either():
    nothing = dict.fromkeys(told("1 1 1 1", "_dollars"))
    synthetic = live(
        yes_bid=nothing, yes_ask={}, price={**nothing, "previous_dollars": "0.4800"}, volume_fp="0"
    )
    [candle] = read_live_candles(body(synthetic))
    assert (candle.yes_bid_open_micros, candle.yes_ask_close_micros) == (None, None)
    assert (candle.previous_micros, candle.volume_centis) == (480_000, 0)


@pytest.mark.parametrize("missing", ["yes_bid", "yes_ask", "volume_fp", "open_interest_fp"])
def test_what_every_candle_has_is_not_made_up(missing: str):
    with pytest.raises(UnreadableAnswer, match=missing):
        read_live_candles(body(live(**{missing: None})))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"volume_fp": "-1.00"}, "-1.00"),
        ({"price": told("0.3 0.4 0.2 soon", "_dollars")}, "soon"),
        ({"yes_bid": told("0.3 0.4 0.2 0.12345678", "_dollars")}, "0.12345678"),
    ],
)
def test_a_number_that_is_none_makes_the_answer_unreadable(changes: dict[str, Any], word: str):
    with pytest.raises(UnreadableAnswer, match=word):
        read_live_candles(body(live(**changes)))
