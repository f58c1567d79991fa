"""The verdict on candles and books: held against the exchange's own candlesticks and books.

The exchange is asked in its own words here, not through the platform's client, so that a mistake in
reading cannot hide one in writing. Its clock must stand still meanwhile.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import httpx
from psycopg.rows import dict_row

from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator

Row = dict[str, Any]
INTERVALS = {"candles_1m": 60, "candles_1h": 3_600, "candles_1d": 86_400}
_SIDES = ("open", "high", "low", "close")
_MARKETS_A_CALL = 10
_MOST_CANDLES = 10_000
TRADED = (*(f"{side}_micros" for side in _SIDES), "volume_centis")
QUOTED = (
    *(f"yes_{what}_{side}_micros" for what in ("bid", "ask") for side in _SIDES),
    "open_interest_centis",
)


@dataclass
class CandleVerdict:
    """Buckets of one interval, compared column by column."""

    table: str
    buckets: int = 0
    equal: Counter[str] = field(default_factory=Counter)
    tied: int = 0
    """Opens and closes that several trades of one instant could decide."""
    flagged: int = 0
    """Buckets that differ, or are missing, and lie in a gap of the quotes that the tables know."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        columns = min((self.equal[name] for name in (*TRADED, *QUOTED)), default=0)
        text = (
            f"{self.table}: {self.buckets:,} buckets of the exchange: every column equal in at "
            f"least {columns:,}; {self.tied} ties; {self.flagged} differ inside recorded gaps; "
            f"{len(self.wrong)} wrong"
        )
        return text + "".join(f"\n  {line}" for line in self.wrong[:10])


def candles_against_exchange(
    url: str, simulator: RunningSimulator, start: datetime, end: datetime
) -> list[CandleVerdict]:
    """Compare every whole bucket in [start, end) of every market that lived then."""
    tickers = _markets(simulator, start, end)
    return [
        _of_interval(url, simulator, tickers, table, start, end)
        for table in INTERVALS
        if _whole(start, end, INTERVALS[table]) is not None
    ]


def _of_interval(
    url: str,
    simulator: RunningSimulator,
    tickers: list[str],
    table: str,
    start: datetime,
    end: datetime,
) -> CandleVerdict:
    verdict = CandleVerdict(table)
    seconds = INTERVALS[table]
    whole = _whole(start, end, seconds)
    assert whole is not None
    ours = {(row["market_ticker"], row["starts_at"]): row for row in _candles(url, table, *whole)}
    gaps = _ticker_gaps(url)
    ties = _ties(url, seconds, *whole)
    for ticker, starts_at, theirs in _exchange_candles(simulator, tickers, seconds, *whole):
        verdict.buckets += 1
        mine = ours.pop((ticker, starts_at), None)
        ends_at = starts_at + timedelta(seconds=seconds)
        if mine is None:
            # Nothing was traded, and what was quoted was told within a gap alone.
            known = theirs["volume_centis"] == 0 and any(
                gap[0] < ends_at and gap[1] > starts_at for gap in gaps
            )
            if known:
                verdict.flagged += 1
            else:
                verdict.wrong.append(f"{ticker} {starts_at} is missing")
            continue
        differing = {name for name, value in theirs.items() if mine[name] != value}
        verdict.equal.update(theirs.keys() - differing)
        explained = {f"{edge}_micros" for edge in ("open", "close")} & {
            f"{edge}_micros" for edge in ties.get((ticker, starts_at), ())
        }
        if differing & explained:
            verdict.tied += 1
            differing -= explained
        if differing and mine["quote_gap"] and differing <= set(QUOTED):
            verdict.flagged += 1
        elif differing:
            verdict.wrong += [
                f"{ticker} {starts_at} {name} is {mine[name]!r}, the exchange's {theirs[name]!r}"
                for name in sorted(differing)
            ]
    # The exchange has no candle where nothing moved; ours may say so.
    verdict.wrong += [
        f"{ticker} {starts_at} is a candle with trades that the exchange does not have"
        for (ticker, starts_at), row in ours.items()
        if row["trade_count"] and ticker in tickers
    ]
    return verdict


def _whole(start: datetime, end: datetime, seconds: int) -> tuple[datetime, datetime] | None:
    """The part of [start, end) that whole buckets make up."""
    first = -(-start.timestamp() // seconds) * seconds
    last = end.timestamp() // seconds * seconds
    if first >= last:
        return None
    return datetime.fromtimestamp(first, start.tzinfo), datetime.fromtimestamp(last, start.tzinfo)


def _markets(simulator: RunningSimulator, start: datetime, end: datetime) -> list[str]:
    return sorted(
        row["ticker"]
        for row in simulator.ledger("markets")
        if datetime.fromisoformat(row["open_time"]) < end
        and datetime.fromisoformat(row["close_time"]) > start
    )


def _exchange_candles(
    simulator: RunningSimulator, tickers: list[str], seconds: int, start: datetime, end: datetime
) -> Iterator[tuple[str, datetime, Row]]:
    span = seconds * (_MOST_CANDLES // _MARKETS_A_CALL - 1)
    with httpx.Client(base_url=simulator.rest_url, verify=False, timeout=60) as client:
        for number in range(0, len(tickers), _MARKETS_A_CALL):
            first = int(start.timestamp())
            while first < int(end.timestamp()):
                last = min(first + span, int(end.timestamp()))
                answer = client.get(
                    "/markets/candlesticks",
                    params={
                        "market_tickers": ",".join(tickers[number : number + _MARKETS_A_CALL]),
                        "start_ts": first + 1,
                        "end_ts": last,
                        "period_interval": seconds // 60,
                    },
                )
                answer.raise_for_status()
                for market in answer.json()["markets"]:
                    for candle in market["candlesticks"]:
                        at = datetime.fromtimestamp(candle["end_period_ts"] - seconds, start.tzinfo)
                        yield market["market_ticker"], at, _candle(candle)
                first = last


def _candle(candle: Row) -> Row:
    prices = {f"{side}_micros": _micros(candle["price"].get(f"{side}_dollars")) for side in _SIDES}
    quotes = {
        f"{name}_{side}_micros": _micros(candle[name][f"{side}_dollars"])
        for name in ("yes_bid", "yes_ask")
        for side in _SIDES
    }
    counts = {
        "volume_centis": int(Decimal(candle["volume_fp"]) * 100),
        "open_interest_centis": int(Decimal(candle["open_interest_fp"]) * 100),
    }
    return prices | quotes | counts


def _micros(dollars: str | None) -> int | None:
    return None if dollars is None else int(Decimal(dollars) * 1_000_000)


def _candles(url: str, table: str, start: datetime, end: datetime) -> list[Row]:
    with connect(url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        query = f"SELECT * FROM {table} WHERE starts_at >= %s AND starts_at < %s"
        return cursor.execute(query.encode(), [start, end]).fetchall()


def _ticker_gaps(url: str) -> list[tuple[datetime, datetime]]:
    with connect(url) as connection:
        return connection.execute(
            "SELECT starts_at, ends_at FROM gaps WHERE channel = 'ticker'"
        ).fetchall()


def _ties(
    url: str, seconds: int, start: datetime, end: datetime
) -> dict[tuple[str, datetime], set[str]]:
    """Opens and closes that trades of one instant decide whose order only the stream knew."""
    with connect(url) as connection:
        rows = connection.execute(
            "WITH placed AS (SELECT market_ticker, traded_at, yes_price_micros, feed_order,"
            " date_bin(make_interval(secs => %s), traded_at, '2000-01-01Z') AS bucket"
            " FROM trades WHERE traded_at >= %s AND traded_at < %s), edges AS ("
            " SELECT *, min(traded_at) OVER w AS first, max(traded_at) OVER w AS last"
            " FROM placed WINDOW w AS (PARTITION BY market_ticker, bucket))"
            " SELECT market_ticker, bucket, which FROM edges,"
            " LATERAL (VALUES ('open', first), ('close', last)) AS edge (which, at)"
            " WHERE traded_at = at GROUP BY 1, 2, 3"
            " HAVING count(DISTINCT yes_price_micros) > 1 AND count(*) > count(feed_order)",
            [seconds, start, end],
        )
        found: dict[tuple[str, datetime], set[str]] = {}
        for ticker, bucket, which in rows:
            found.setdefault((ticker, bucket), set()).add(which)
        return found


@dataclass
class BookVerdict:
    """Rebuilt books at random instants, against the exchange's."""

    clean: int = 0
    dirty: int = 0
    dirty_in_gaps: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest_recovery_seconds: float = 0.0
    """Simulated seconds from the end of a gap to a book known again, the longest."""

    def __str__(self) -> str:
        text = (
            f"books at {self.clean + self.dirty:,} instants: {self.clean:,} clean, {self.dirty:,} "
            f"said to be dirty; {self.dirty_in_gaps:,} instants inside gaps, all dirty; "
            f"{len(self.wrong)} wrong"
        )
        return text + "".join(f"\n  {line}" for line in self.wrong[:10])


_LEVELS = "SELECT DISTINCT market_ticker FROM book_watches ORDER BY 1"


def books_against_exchange(
    ask: "BookAsker",
    url: str,
    simulator: RunningSimulator,
    start: datetime,
    end: datetime,
    *,
    instants: int,
    rng: Random,
) -> BookVerdict:
    """Ask for books at random instants in [start, end); a clean one must be the exchange's."""
    verdict = BookVerdict()
    with connect(url) as connection:
        watched = [ticker for (ticker,) in connection.execute(_LEVELS)]
        gaps = connection.execute(
            "SELECT starts_at, ends_at FROM gaps WHERE channel = 'orderbook_delta'"
            " AND market_ticker IS NULL AND ends_at > starts_at"
            " AND starts_at >= %s AND ends_at < %s",
            [start, end],
        ).fetchall()
    while verdict.clean < instants:
        ticker = rng.choice(watched)
        # Between the steps in which the exchange changes its books.
        seconds = int(rng.uniform(0, (end - start).total_seconds() - 1))
        at = start.replace(microsecond=500_000) + timedelta(seconds=seconds)
        book = ask(ticker, at)
        if book is None or book["gap"]:
            verdict.dirty += 1
            if verdict.dirty > 20 * instants:
                verdict.wrong.append("hardly any book is clean")
                break
            continue
        verdict.clean += 1
        _hold_against(verdict, simulator, ticker, at, book)
    for starts_at, ends_at in gaps:
        at = starts_at + (ends_at - starts_at) * rng.random()
        for ticker in rng.sample(watched, min(5, len(watched))):
            book = ask(ticker, at)
            verdict.dirty_in_gaps += 1
            if book is not None and not book["gap"]:
                verdict.wrong.append(f"{ticker} at {at} lies in a gap and is said to be clean")
    return verdict


BookAsker = Any
"""(ticker, instant) -> the answer of POST /orderbook, None where there is none."""


def _hold_against(
    verdict: BookVerdict, simulator: RunningSimulator, ticker: str, at: datetime, book: Row
) -> None:
    truth = simulator.ledger_book(ticker, at.isoformat())
    for side, key in (("yes", "yes_bids"), ("no", "no_bids")):
        theirs = {Decimal(price): Decimal(count) for price, count in truth[side]}
        ours = {Decimal(price): Decimal(count) for price, count in book[key]}
        if theirs != ours:
            wrong = sorted(theirs.items() ^ ours.items())
            verdict.wrong.append(f"{ticker} at {at}, {side}: {wrong[:4]}")
