"""Asks the exchange for its candlesticks and compares ours with them.

A sample of a day's markets is enough to see a misreading, and costs seven calls where they are of
the live tier: the exchange answers for 10,000 candles at a time. Markets that settled before its
cutoff are asked of the archive, one by one and an interval at a time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import psycopg

from kalshi_platform.exchange.candlesticks import (
    CANDLES_OF_ONE,
    CANDLES_OF_SEVERAL,
    MARKETS_A_CALL,
    Candlestick,
)
from kalshi_platform.exchange.errors import NotFound
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.storage.reads import agreement as reads
from kalshi_platform.transform.agreement import Agreement, Candle, Evidence, Gap, Key, compare
from kalshi_platform.transform.candles import Interval

BUSIEST, DRAWN = 10, 20
# The newest minute is still filling, here and there.
_SETTLES = timedelta(minutes=2)


@dataclass
class Comparison:
    """A day's, or several days', agreement with the exchange; may be added up."""

    agreement: Agreement = field(default_factory=Agreement)
    markets: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    """Markets of the sample that the exchange has in neither tier."""
    off_grid: int = 0
    """Candles of theirs that end elsewhere than ours, and were not compared."""
    days_without_quotes: list[date] = field(default_factory=list)
    """Of these only trades were compared: none of their quotes is held."""
    since: datetime | None = None
    """Where the comparison of a day begins that was recorded only from then on."""
    until: datetime | None = None
    """Where the comparison of a day that is not over ends."""

    @property
    def passed(self) -> bool:
        return not self.agreement.differences

    def add(self, other: "Comparison") -> None:
        self.agreement.add(other.agreement)
        self.markets |= other.markets
        self.unknown |= other.unknown
        self.off_grid += other.off_grid
        self.days_without_quotes += other.days_without_quotes
        self.since = self.since or other.since
        self.until = other.until or self.until


@dataclass(frozen=True)
class _Sample:
    """Markets that are compared, by the tier that is to know them."""

    live: Sequence[str]
    archived: Sequence[str]

    @property
    def tickers(self) -> list[str]:
        return [*self.live, *self.archived]


def compare_day(
    connection: psycopg.Connection,
    rest: RestClient,
    day: date,
    tickers: Sequence[str] | None = None,
) -> Comparison:
    """Compare minutes, hours and the day of some markets with the exchange's.

    Args:
        connection: reads only.
        tickers: instead of the day's sample.

    Raises:
        ExchangeError: the exchange could not be asked.
    """
    start = datetime.combine(day, time(), UTC)
    if tickers is None:
        tickers = reads.sample_of_day(connection, day, busiest=BUSIEST, drawn=DRAWN)
    comparison = Comparison()
    begin, end = _bounds(connection, tickers, day)
    if begin >= end:
        return comparison
    comparison.since = begin if begin > start else None
    comparison.until = end if end < start + timedelta(days=1) else None
    settled = reads.settled_before(connection, tickers, rest.cutoff().market_settled_ts)
    sample = _Sample([ticker for ticker in tickers if ticker not in settled], sorted(settled))
    if not reads.was_quoted(connection, day):
        comparison.days_without_quotes.append(day)
    for interval in Interval:
        first, last = _whole(interval, start, begin, end)
        if first >= last:
            continue
        theirs, known = _theirs(rest, sample, interval, first, last, comparison)
        ours = reads.candles_held(connection, interval.table.name, sorted(known), first, last)
        evidence = _evidence(connection, sample, interval, first, last)
        comparison.markets |= known
        comparison.unknown |= set(tickers) - known
        comparison.agreement.add(compare(interval.label, interval.seconds, theirs, ours, evidence))
    return comparison


def _bounds(
    connection: psycopg.Connection, tickers: Sequence[str], day: date
) -> tuple[datetime, datetime]:
    """The part of the day that can be compared; empty if nothing of it can."""
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    begin = reads.complete_from(connection, day)
    newest = reads.last_minute_of(connection, start, end + timedelta(days=1))
    if begin is None or newest is None or not tickers:
        return end, end
    # A feed may stop early and a market be quiet: a day is over when its successor has begun, or
    # by our clock.
    if newest < end and datetime.now(UTC) < end + _SETTLES:
        end = newest - _SETTLES
    stale = reads.first_stale_of(connection, tickers, start, end)
    return begin, stale or end


def _whole(
    interval: Interval, start: datetime, begin: datetime, end: datetime
) -> tuple[datetime, datetime]:
    """The whole intervals of a day (it starts at `start`) within [begin, end)."""
    width = timedelta(seconds=interval.seconds)
    return start - (start - begin) // width * width, start + (end - start) // width * width


def _theirs(
    rest: RestClient,
    sample: _Sample,
    interval: Interval,
    start: datetime,
    end: datetime,
    comparison: Comparison,
) -> tuple[dict[Key, Candle], set[str]]:
    """The exchange's candles of the sample, and the markets that it knows."""
    first, last = int(start.timestamp()), int(end.timestamp())
    found: dict[Key, Candle] = {}
    known = set()
    for ticker, candles in _asked(rest, sample, interval, first, last):
        known.add(ticker)
        for candle in candles:
            starts_at = candle.ends_at_seconds - interval.seconds
            if starts_at % interval.seconds:
                comparison.off_grid += 1
            elif first <= starts_at < last:
                found[ticker, starts_at] = asdict(candle)
    return found, known


def _asked(
    rest: RestClient, sample: _Sample, interval: Interval, first: int, last: int
) -> Iterator[tuple[str, list[Candlestick]]]:
    minutes = interval.seconds // 60
    # Ends are inclusive: what ends at `first` lies before the day.
    window = first + 1, last, minutes
    periods = math.ceil((last - first) / interval.seconds)
    assert periods <= CANDLES_OF_ONE, "a day has 1,440 minutes"
    at_once = min(MARKETS_A_CALL, CANDLES_OF_SEVERAL // periods)
    left_out = list(sample.archived)
    for position in range(0, len(sample.live), at_once):
        tickers = sample.live[position : position + at_once]
        answer = rest.candlesticks_of(tickers, *window)
        yield from answer.items()
        left_out += [ticker for ticker in tickers if ticker not in answer]
    for ticker in left_out:
        try:
            yield ticker, rest.historical_candlesticks(ticker, *window)
        except NotFound:
            continue


def _evidence(
    connection: psycopg.Connection,
    sample: _Sample,
    interval: Interval,
    start: datetime,
    end: datetime,
) -> Evidence:
    tickers = sample.tickers
    standing = reads.candles_standing(connection, tickers, start)
    # A gap matters from the quote on that stood when it began.
    since = min([start, *(candle["quoted_at"] for candle in standing.values())])
    return Evidence(
        standing=standing,
        first_quoted_at=reads.first_quoted_at(connection, tickers, end),
        ties=reads.undecided_edges(connection, tickers, interval.seconds, start, end),
        quote_gaps=_gaps(connection, "ticker", tickers, since, end, only_open=False),
        trade_gaps=_gaps(connection, "trade", tickers, start, end, only_open=True),
        quotes_kept=reads.has_quotes(connection, start, end),
    )


def _gaps(
    connection: psycopg.Connection,
    channel: str,
    tickers: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    only_open: bool,
) -> list[Gap]:
    rows = reads.gaps_between(connection, channel, tickers, start, end, only_open=only_open)
    return [Gap(*row) for row in rows]
