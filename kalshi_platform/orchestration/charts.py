"""Small pictures of candles for people: what the UI shows beside a day's numbers."""

import base64
from collections.abc import Callable, Sequence
from datetime import date
from typing import NamedTuple

import psycopg

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT, _STEP = 600, 160, 24
_UP, _DOWN, _GRID = "#1a7f5a", "#b3402f", "#d0d4da"


class Bar(NamedTuple):
    """One hour of one market; prices in millionths of a dollar, volume in hundredths."""

    hour: int
    open_micros: int
    high_micros: int
    low_micros: int
    close_micros: int
    volume_centis: int


def busiest_market(connection: psycopg.Connection, day: date) -> str | None:
    """The market with the largest volume of the day, None on a day without trades."""
    row = connection.execute(
        "SELECT market_ticker FROM candles_1d WHERE starts_at = %s::date::timestamptz"
        " ORDER BY volume_centis DESC, market_ticker LIMIT 1",
        [day],
    ).fetchone()
    return None if row is None else str(row[0])


def bars_of(connection: psycopg.Connection, ticker: str, day: date) -> list[Bar]:
    """The market's hours of the day, oldest first; hours without trades are left out."""
    rows = connection.execute(
        "SELECT extract(hour FROM starts_at)::int, open_micros, high_micros, low_micros,"
        " close_micros, volume_centis FROM candles_1h WHERE market_ticker = %s"
        " AND starts_at >= %s::date::timestamptz AND starts_at < (%s::date + 1)::timestamptz"
        " ORDER BY starts_at",
        [ticker, day, day],
    ).fetchall()
    return [Bar(*row) for row in rows]


def sparkline(bars: Sequence[Bar]) -> str:
    """Hourly closes as a row of blocks: a few bytes, since it is stored each minute."""
    closes = [bar.close_micros for bar in bars]
    low, high = min(closes), max(closes)
    span = max(1, high - low)
    return "".join(_BLOCKS[(close - low) * (len(_BLOCKS) - 1) // span] for close in closes)


def caption(ticker: str, bars: Sequence[Bar]) -> str:
    """`TICKER $0.3600 → $0.4125, 1,234.50 contracts`, exact."""
    volume = sum(bar.volume_centis for bar in bars)
    return (
        f"{ticker} {_dollars(bars[0].open_micros)} → {_dollars(bars[-1].close_micros)}, "
        f"{volume // 100:,}.{volume % 100:02d} contracts"
    )


def small_chart(connection: psycopg.Connection, day: date) -> str | None:
    """Markdown: the busiest market's closes in one line."""
    return _draw(connection, day, lambda bars: f"`{sparkline(bars)}`")


def day_chart(connection: psycopg.Connection, day: date) -> str | None:
    """Markdown: the busiest market's hourly candles as a picture."""
    return _draw(connection, day, lambda bars: f"![candles]({_data_url(svg(bars))})")


def svg(bars: Sequence[Bar]) -> str:
    """Candlesticks by hour of the day, low to high over the whole height."""
    low = min(bar.low_micros for bar in bars)
    span = max(1, max(bar.high_micros for bar in bars) - low)

    def y(micros: int) -> int:
        return _HEIGHT - 8 - (micros - low) * (_HEIGHT - 16) // span

    shapes = []
    for bar in bars:
        x = 12 + bar.hour * _STEP
        color = _UP if bar.close_micros >= bar.open_micros else _DOWN
        top, bottom = sorted((y(bar.open_micros), y(bar.close_micros)))
        shapes.append(
            f'<path d="M{x} {y(bar.high_micros)}V{y(bar.low_micros)}" stroke="{color}"/>'
            f'<rect x="{x - 7}" y="{top}" width="14" height="{max(2, bottom - top)}"'
            f' fill="{color}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect width="100%" height="100%" fill="white" stroke="{_GRID}"/>{"".join(shapes)}</svg>'
    )


def _draw(
    connection: psycopg.Connection, day: date, draw: Callable[[Sequence[Bar]], str]
) -> str | None:
    ticker = busiest_market(connection, day)
    bars = [] if ticker is None else bars_of(connection, ticker, day)
    if ticker is None or not bars:
        return None
    return f"{caption(ticker, bars)}\n\n{draw(bars)}"


def _dollars(micros: int) -> str:
    return f"${micros // 1_000_000}.{micros % 1_000_000:06d}".removesuffix("00")


def _data_url(image: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(image.encode()).decode()
