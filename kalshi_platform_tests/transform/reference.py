"""Trades, quotes and gaps for tests, a way into the tables, and candles in plain Python."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd
import psycopg

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.stale import mark_gap, mark_quoted
from kalshi_platform.transform.candles import COLUMNS, Interval

DAY = datetime(2026, 10, 5, tzinfo=UTC)
MARKET = "KXTEST-26OCT05-T1"


@dataclass(frozen=True)
class StoredTrade:
    traded_at: datetime
    trade_id: uuid.UUID
    yes_price_micros: int
    count_centis: int
    feed_order: int | None
    market_ticker: str
    is_block_trade: bool | None = False

    @property
    def order(self) -> tuple[datetime, int, int, int]:
        unknown = self.feed_order is None
        return (self.traded_at, int(unknown), self.feed_order or 0, self.trade_id.int)


def trade(
    at: str | datetime = "10:00:05",
    price: int = 400_000,
    count: int = 100,
    *,
    feed_order: int | None = 1,
    number: int | None = None,
    market: str = MARKET,
    block: bool | None = False,
) -> StoredTrade:
    """One valid trade on DAY; `number` fixes the trade_id, whose order settles ties."""
    identity = uuid.uuid4() if number is None else uuid.UUID(int=number)
    return StoredTrade(at_time(at), identity, price, count, feed_order, market, block)


def land(connection: psycopg.Connection[Any], *trades: StoredTrade) -> None:
    """Insert or update `trades` and list their minutes as stale, in the caller's transaction."""
    days = {each.traded_at.date() for each in trades}
    ensure_partitions(connection, days, only=[tables.trades])
    for each in trades:
        on = each.traded_at.date()
        before = connection.execute(
            "DELETE FROM trades WHERE trade_id = %s RETURNING market_ticker, traded_at",
            [each.trade_id],
        ).fetchall()
        connection.execute(
            "INSERT INTO trades (traded_at, feed_order, count_centis, yes_price_micros, traded_on,"
            " trade_id, exact_time, is_block_trade, taker_side, market_ticker)"
            " VALUES (%s, %s, %s, %s, %s, %s, true, %s, 'yes', %s)",
            [
                each.traded_at,
                each.feed_order,
                each.count_centis,
                each.yes_price_micros,
                on,
                each.trade_id,
                each.is_block_trade,
                each.market_ticker,
            ],
        )
        for ticker, instant in [*before, (each.market_ticker, each.traded_at)]:
            connection.execute(
                "INSERT INTO stale_candles (market_ticker, starts_at) VALUES (%s, %s)",
                [ticker, instant.replace(second=0, microsecond=0)],
            )


@dataclass(frozen=True)
class StoredQuote:
    quoted_at: datetime
    feed_order: int
    yes_bid_micros: int
    yes_ask_micros: int
    open_interest_centis: int
    market_ticker: str

    @property
    def order(self) -> tuple[datetime, int]:
        return (self.quoted_at, self.feed_order)


@dataclass(frozen=True)
class StoredGap:
    """A gap of the ticker channel; of all markets where it names none."""

    starts_at: datetime
    ends_at: datetime
    market_ticker: str | None = None


def at_time(at: str | datetime) -> datetime:
    """An instant, or a time of DAY."""
    return at if isinstance(at, datetime) else datetime.fromisoformat(f"2026-10-05T{at}Z")


def quote(
    at: str | datetime = "10:00:05",
    bid: int = 400_000,
    ask: int = 450_000,
    interest: int = 1_000,
    *,
    feed_order: int = 1,
    market: str = MARKET,
) -> StoredQuote:
    """One valid quote on DAY."""
    return StoredQuote(at_time(at), feed_order, bid, ask, interest, market)


def tell(connection: psycopg.Connection[Any], *quotes: StoredQuote) -> None:
    """Insert `quotes` and list their minutes as stale, in the caller's transaction."""
    ensure_partitions(connection, {each.quoted_at.date() for each in quotes}, only=[tables.quotes])
    for each in quotes:
        connection.execute(
            "INSERT INTO quotes (quoted_at, received_at, feed_order, yes_bid_size_centis,"
            " yes_ask_size_centis, last_trade_size_centis, volume_centis, open_interest_centis,"
            " dollar_volume, dollar_open_interest, price_micros, yes_bid_micros, yes_ask_micros,"
            " market_ticker) VALUES (%s, %s, %s, 1, 1, 1, 1, %s, 1, 1, 1, %s, %s, %s)",
            [
                each.quoted_at,
                each.quoted_at,
                each.feed_order,
                each.open_interest_centis,
                each.yes_bid_micros,
                each.yes_ask_micros,
                each.market_ticker,
            ],
        )
    mark_quoted(
        connection,
        {(each.market_ticker, int(each.quoted_at.timestamp()) // 60) for each in quotes},
    )


def lose(
    connection: psycopg.Connection[Any],
    start: str | datetime,
    end: str | datetime,
    market: str | None = None,
) -> StoredGap:
    """Note a gap of the ticker channel as the loader does, in the caller's transaction."""
    gap = StoredGap(at_time(start), at_time(end), market)
    number = open_gap(connection, Gap("ticker", "disconnect", gap.starts_at, gap.ends_at))
    connection.execute("UPDATE gaps SET market_ticker = %s WHERE gap_id = %s", [market, number])
    mark_gap(connection, gap.starts_at, gap.ends_at, market)
    return gap


class Candle(NamedTuple):
    market_ticker: str
    starts_at: datetime
    open_micros: int | None
    high_micros: int | None
    low_micros: int | None
    close_micros: int | None
    volume_centis: int
    notional_micro_centis: int
    trade_count: int
    yes_bid_open_micros: int | None
    yes_bid_high_micros: int | None
    yes_bid_low_micros: int | None
    yes_bid_close_micros: int | None
    yes_ask_open_micros: int | None
    yes_ask_high_micros: int | None
    yes_ask_low_micros: int | None
    yes_ask_close_micros: int | None
    open_interest_centis: int | None
    quoted_at: datetime | None
    quote_count: int
    quote_gap: bool


assert Candle._fields == COLUMNS


def candles(connection: psycopg.Connection[Any], interval: Interval) -> list[Candle]:
    """All stored candles of `interval`, by market and time."""
    query = f"SELECT {', '.join(COLUMNS)} FROM {interval.table.name} ORDER BY 1, 2"
    return [Candle(*row) for row in connection.execute(query.encode())]


def rows_of(frame: pd.DataFrame) -> list[Candle]:
    """The rows of a frame of candles."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [Candle(*row) for row in plain.itertuples(index=False)]


def expected_candles(
    trades: Iterable[StoredTrade],
    interval: Interval,
    quotes: Iterable[StoredQuote] = (),
    gaps: Iterable[StoredGap] = (),
) -> list[Candle]:
    """Candles by the book: sort, group, take the first and the last, and what stood before."""
    gaps = list(gaps)
    traded: dict[tuple[str, datetime], list[StoredTrade]] = {}
    for each in sorted(trades, key=lambda each: each.order):
        traded.setdefault(_key(each.market_ticker, each.traded_at, interval), []).append(each)
    quoted: dict[tuple[str, datetime], list[StoredQuote]] = {}
    told: dict[str, list[StoredQuote]] = {}
    for quotation in sorted(quotes, key=lambda each: each.order):
        key = _key(quotation.market_ticker, quotation.quoted_at, interval)
        quoted.setdefault(key, []).append(quotation)
        told.setdefault(quotation.market_ticker, []).append(quotation)
    return [
        Candle(
            *key,
            *_of_trades(traded.get(key, [])),
            *_of_quotes(key, interval, quoted.get(key, []), told.get(key[0], []), gaps),
        )
        for key in sorted(traded.keys() | quoted.keys())
    ]


def _key(ticker: str, instant: datetime, interval: Interval) -> tuple[str, datetime]:
    seconds = int(instant.timestamp()) // interval.seconds * interval.seconds
    return ticker, datetime.fromtimestamp(seconds, UTC)


def _of_trades(group: list[StoredTrade]) -> tuple[int | None, ...]:
    prices = [each.yes_price_micros for each in group]
    return (
        *_range(prices),
        sum(each.count_centis for each in group),
        sum(each.count_centis * each.yes_price_micros for each in group),
        len(group),
    )


def _of_quotes(
    key: tuple[str, datetime],
    interval: Interval,
    inside: list[StoredQuote],
    told: list[StoredQuote],
    gaps: list[StoredGap],
) -> tuple[Any, ...]:
    ticker, start = key
    end = start + timedelta(seconds=interval.seconds)
    stood = [each for each in told if each.quoted_at <= start][-1:]
    seen = stood + inside
    known_since = stood[0].quoted_at if stood else start
    lost = any(
        gap.ends_at > known_since and gap.starts_at < end
        for gap in gaps
        if gap.market_ticker in (None, ticker)
    )
    if not seen:
        return (*_range([]), *_range([]), None, None, 0, lost)
    # What stood is the open; a quote at the very start is both, and counts once more inside.
    last = inside[-1] if inside else seen[-1]
    return (
        *_range([each.yes_bid_micros for each in seen]),
        *_range([each.yes_ask_micros for each in seen]),
        last.open_interest_centis,
        last.quoted_at,
        len(inside),
        lost,
    )


def _range(values: list[int]) -> tuple[int | None, ...]:
    return (values[0], max(values), min(values), values[-1]) if values else (None,) * 4
