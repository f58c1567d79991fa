"""Small pictures of candles for people: what the UI shows beside a day's numbers."""

import base64
from collections.abc import Callable, Sequence
from datetime import date
from typing import LiteralString, NamedTuple

import psycopg

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT, _MARGIN = 600, 160, 12
_UP, _DOWN, _GRID, _BID, _ASK = "#1a7f5a", "#b3402f", "#d0d4da", "#7a9cc6", "#c6a07a"
_HOURS_A_DAY, _MINUTES_AN_HOUR = 24, 60

_BARS: LiteralString = (
    "SELECT extract(epoch FROM starts_at - %(day)s::date::timestamptz)::int / %(seconds)s,"
    " open_micros, high_micros, low_micros, close_micros, volume_centis,"
    # None bid, or none asked: there is no price to show.
    " nullif(yes_bid_close_micros, 0), nullif(yes_ask_close_micros, 1000000)"
)
_OF_DAY: LiteralString = (
    " WHERE market_ticker = %(ticker)s AND starts_at >= %(day)s::date::timestamptz"
    " AND starts_at < (%(day)s::date + 1)::timestamptz ORDER BY starts_at"
)


class Bar(NamedTuple):
    """One hour or minute of one market; prices in millionths of a dollar, volume in hundredths.

    Prices are None where nothing traded, bid and ask (at the end) where there was none.
    """

    position: int
    open_micros: int | None
    high_micros: int | None
    low_micros: int | None
    close_micros: int | None
    volume_centis: int
    bid_micros: int | None
    ask_micros: int | None

    @property
    def prices(self) -> list[int]:
        """Every price that the bar shows."""
        shown = (self.high_micros, self.low_micros, self.bid_micros, self.ask_micros)
        return [price for price in shown if price is not None]

    @property
    def last_micros(self) -> int | None:
        """The last price traded, else between bid and ask, else the one there is."""
        if self.close_micros is not None or self.bid_micros is None or self.ask_micros is None:
            return self.close_micros or self.bid_micros or self.ask_micros
        return (self.bid_micros + self.ask_micros) // 2


class Chart(NamedTuple):
    """Bars in order of time, at positions from `first` on, `slots` in all."""

    bars: Sequence[Bar]
    first: int
    slots: int


def busiest_market(connection: psycopg.Connection, day: date) -> str | None:
    """The market with the largest volume of the day, then the most quotes; None on an empty day."""
    row = connection.execute(
        "SELECT market_ticker FROM candles_1d WHERE starts_at = %s::date::timestamptz"
        " ORDER BY volume_centis DESC, quote_count DESC, market_ticker LIMIT 1",
        [day],
    ).fetchone()
    return None if row is None else str(row[0])


def chart_of(connection: psycopg.Connection, ticker: str, day: date) -> Chart | None:
    """The market's hours of the day; its minutes, where all lie within two hours.

    Hours and minutes without any price are left out; None if none is left.
    """
    values = {"ticker": ticker, "day": day, "seconds": 3600}
    hours = connection.execute(f"{_BARS} FROM candles_1h{_OF_DAY}", values).fetchall()
    bars = _shown(hours)
    if not bars:
        return None
    spanned = bars[-1].position - bars[0].position + 1
    if spanned > 2:
        return Chart(bars, 0, _HOURS_A_DAY)
    first = bars[0].position * _MINUTES_AN_HOUR
    values["seconds"] = 60
    minutes = connection.execute(f"{_BARS} FROM candles_1m{_OF_DAY}", values).fetchall()
    return Chart(_shown(minutes), first, spanned * _MINUTES_AN_HOUR)


def _shown(rows: Sequence[tuple[int, ...]]) -> list[Bar]:
    return [bar for bar in (Bar(*row) for row in rows) if bar.prices]


def sparkline(bars: Sequence[Bar]) -> str:
    """Last prices as a row of blocks: a few bytes, since it is stored each minute."""
    prices = [bar.last_micros for bar in bars if bar.last_micros is not None]
    low, high = min(prices), max(prices)
    span = max(1, high - low)
    return "".join(_BLOCKS[(price - low) * (len(_BLOCKS) - 1) // span] for price in prices)


def caption(ticker: str, bars: Sequence[Bar]) -> str:
    """`TICKER $0.3600 → $0.4125, 1,234.50 contracts, bid $0.4100, ask $0.4200`, exact."""
    opens = [bar.open_micros for bar in bars if bar.open_micros is not None]
    closes = [bar.close_micros for bar in bars if bar.close_micros is not None]
    volume = sum(bar.volume_centis for bar in bars)
    text = ticker
    if opens and closes:
        text += f" {_dollars(opens[0])} → {_dollars(closes[-1])}"
    text += f", {volume // 100:,}.{volume % 100:02d} contracts"
    for name, price in (("bid", bars[-1].bid_micros), ("ask", bars[-1].ask_micros)):
        if price is not None:
            text += f", {name} {_dollars(price)}"
    return text


def small_chart(connection: psycopg.Connection, day: date) -> str | None:
    """Markdown: the busiest market's last prices in one line."""
    return _draw(connection, day, lambda chart: f"`{sparkline(chart.bars)}`")


def day_chart(connection: psycopg.Connection, day: date) -> str | None:
    """Markdown: the busiest market's candles as a picture, with bid and ask."""
    return _draw(connection, day, lambda chart: f"![candles]({_data_url(svg(chart))})")


def svg(chart: Chart) -> str:
    """Candlesticks in order of time, low to high over the whole height; bid and ask as lines."""
    prices = [price for bar in chart.bars for price in bar.prices]
    low = min(prices)
    span = max(1, max(prices) - low)
    step = (_WIDTH - 2 * _MARGIN) / chart.slots

    def y(micros: int) -> int:
        return _HEIGHT - 8 - (micros - low) * (_HEIGHT - 16) // span

    def x(bar: Bar) -> int:
        return _MARGIN + int((bar.position - chart.first + 0.5) * step)

    half = max(1, int(step * 0.3))
    shapes = []
    for color, quoted in ((_BID, "bid_micros"), (_ASK, "ask_micros")):
        points = [
            f"{x(bar)},{y(price)}"
            for bar in chart.bars
            if (price := getattr(bar, quoted)) is not None
        ]
        if points:
            # A lone point has no length: a round end makes it a dot.
            shapes.append(
                f'<path d="M{" ".join(points)}h0" fill="none" stroke="{color}" stroke-width="2"'
                ' stroke-linecap="round"/>'
            )
    for bar in chart.bars:
        opened, high, lowest, closed = bar[1:5]
        if opened is None or high is None or lowest is None or closed is None:
            continue
        color = _UP if closed >= opened else _DOWN
        top, bottom = sorted((y(opened), y(closed)))
        shapes.append(
            f'<path d="M{x(bar)} {y(high)}V{y(lowest)}" stroke="{color}"/>'
            f'<rect x="{x(bar) - half}" y="{top}" width="{2 * half}"'
            f' height="{max(2, bottom - top)}" fill="{color}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect width="100%" height="100%" fill="white" stroke="{_GRID}"/>{"".join(shapes)}</svg>'
    )


def _draw(connection: psycopg.Connection, day: date, draw: Callable[[Chart], str]) -> str | None:
    ticker = busiest_market(connection, day)
    chart = None if ticker is None else chart_of(connection, ticker, day)
    if ticker is None or chart is None:
        return None
    return f"{caption(ticker, chart.bars)}\n\n{draw(chart)}"


def _dollars(micros: int) -> str:
    return f"${micros // 1_000_000}.{micros % 1_000_000:06d}".removesuffix("00")


def _data_url(image: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(image.encode()).decode()
