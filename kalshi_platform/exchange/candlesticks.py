"""Candlesticks as the exchange computes them: two shapes on the wire, one here.

The live tier writes `close_dollars` and `volume_fp`, the historical one `close` and `volume`. What
did not happen is a key left out in the one and null in the other; both are None here, never zero.
A candle may be synthetic (`include_latest_before_start`): it has neither prices nor quotes.
Source: docs.kalshi.com/api-reference, read 2026-10-15 (OpenAPI 3.31).
"""

from dataclasses import dataclass

from msgspec import Struct

from kalshi_platform.exchange.answers import read_answer
from kalshi_platform.exchange.errors import UnreadableAnswer
from kalshi_platform.exchange.numbers import Unreadable, centis, micros

CANDLES_OF_ONE = 5_000
"""What one call for one market may ask for: periods requested, with a candle or without."""
CANDLES_OF_SEVERAL = 10_000
"""The same of one call for several: markets times periods."""
MARKETS_A_CALL = 100


@dataclass(frozen=True)
class Candlestick:
    """One candle of the exchange in our units; the names are those of our columns.

    Prices of trades are None where nothing traded, quotes where the exchange told none.
    """

    ends_at_seconds: int
    """Unix seconds of the end."""
    open_micros: int | None
    high_micros: int | None
    low_micros: int | None
    close_micros: int | None
    previous_micros: int | None
    """Price of the last trade before the interval."""
    volume_centis: int
    open_interest_centis: int
    yes_bid_open_micros: int | None
    yes_bid_high_micros: int | None
    yes_bid_low_micros: int | None
    yes_bid_close_micros: int | None
    yes_ask_open_micros: int | None
    yes_ask_high_micros: int | None
    yes_ask_low_micros: int | None
    yes_ask_close_micros: int | None


class _LivePrices(Struct):
    open_dollars: str | None = None
    high_dollars: str | None = None
    low_dollars: str | None = None
    close_dollars: str | None = None
    previous_dollars: str | None = None

    def ohlc(self) -> tuple[str | None, ...]:
        return (self.open_dollars, self.high_dollars, self.low_dollars, self.close_dollars)


class _LiveCandle(Struct):
    end_period_ts: int
    yes_bid: _LivePrices
    yes_ask: _LivePrices
    price: _LivePrices
    volume_fp: str
    open_interest_fp: str


class _HistoricalPrices(Struct):
    open: str | None = None
    high: str | None = None
    low: str | None = None
    close: str | None = None
    previous: str | None = None

    def ohlc(self) -> tuple[str | None, ...]:
        return (self.open, self.high, self.low, self.close)


class _HistoricalCandle(Struct):
    end_period_ts: int
    yes_bid: _HistoricalPrices
    yes_ask: _HistoricalPrices
    price: _HistoricalPrices
    volume: str
    open_interest: str


class _LiveCandles(Struct):
    candlesticks: list[_LiveCandle]


class _HistoricalCandles(Struct):
    candlesticks: list[_HistoricalCandle]


class _MarketCandles(Struct):
    market_ticker: str
    candlesticks: list[_LiveCandle]


class _BatchCandles(Struct):
    markets: list[_MarketCandles]


def read_live_candles(body: bytes) -> list[Candlestick]:
    """Candles of one market, live tier."""
    return [_live(candle) for candle in read_answer(body, _LiveCandles).candlesticks]


def read_batch_candles(body: bytes) -> dict[str, list[Candlestick]]:
    """Candles by market; a quiet market has an empty list, an unknown one none."""
    return {
        market.market_ticker: [_live(candle) for candle in market.candlesticks]
        for market in read_answer(body, _BatchCandles).markets
    }


def read_historical_candles(body: bytes) -> list[Candlestick]:
    """Candles of one market, historical tier."""
    return [
        _candle(
            candle.end_period_ts,
            (candle.price, candle.yes_bid, candle.yes_ask),
            candle.price.previous,
            candle.volume,
            candle.open_interest,
        )
        for candle in read_answer(body, _HistoricalCandles).candlesticks
    ]


def _live(candle: _LiveCandle) -> Candlestick:
    return _candle(
        candle.end_period_ts,
        (candle.price, candle.yes_bid, candle.yes_ask),
        candle.price.previous_dollars,
        candle.volume_fp,
        candle.open_interest_fp,
    )


def _candle(
    ends_at: int,
    ranges: tuple[_LivePrices | _HistoricalPrices, ...],
    previous: str | None,
    volume: str,
    open_interest: str,
) -> Candlestick:
    try:
        price, bid, ask = ([_micros(told) for told in each.ohlc()] for each in ranges)
        return Candlestick(
            ends_at_seconds=ends_at,
            open_micros=price[0],
            high_micros=price[1],
            low_micros=price[2],
            close_micros=price[3],
            previous_micros=_micros(previous),
            volume_centis=centis(volume),
            open_interest_centis=centis(open_interest),
            yes_bid_open_micros=bid[0],
            yes_bid_high_micros=bid[1],
            yes_bid_low_micros=bid[2],
            yes_bid_close_micros=bid[3],
            yes_ask_open_micros=ask[0],
            yes_ask_high_micros=ask[1],
            yes_ask_low_micros=ask[2],
            yes_ask_close_micros=ask[3],
        )
    except Unreadable as error:
        raise UnreadableAnswer(f"A candle of the exchange is unreadable: {error}.") from error


def _micros(told: str | None) -> int | None:
    return None if told is None else micros(told)
