"""What a late quote, or a gap that is noted late, changes beyond its own minute.

The quote that stands at an interval's start is part of its candle, so a new quote changes every
later candle up to the market's next quote. A gap of the ticker channel flags every candle until
the next quote after it.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from sqlalchemy import (
    ColumnElement,
    Date,
    FromClause,
    Select,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)

from kalshi_platform.storage import tables
from kalshi_platform.storage.statements import run
from kalshi_platform.storage.writes.candle_folds import STALE
from kalshi_platform.transform.candles import KEY, Interval
from kalshi_platform.transform.standing import ALL_MARKETS, TICKER_CHANNEL, later_minutes

_ALL: ColumnElement[str] = literal_column(f"'{ALL_MARKETS}'")


@dataclass(frozen=True)
class LostQuotes:
    """A gap of the ticker channel that concerns all markets."""

    starts_at: datetime
    ends_at: datetime

    @staticmethod
    def is_marker(stale: FromClause) -> Any:
        """Whether a row of the list stands for such gaps, of all that begin in its minute."""
        return stale.c.market_ticker == _ALL


def take_lost_quotes(connection: psycopg.Connection[Any]) -> list[LostQuotes]:
    """Take the markers off `stale_minutes`; returns the gaps that they stand for."""
    gaps = tables.gaps
    begun = Interval.ONE_MINUTE.start_of(gaps.c.starts_at)
    marked = exists().where(LostQuotes.is_marker(STALE), STALE.c.starts_at == begun)
    found = select(gaps.c.starts_at, gaps.c.ends_at).where(
        gaps.c.channel == TICKER_CHANNEL, gaps.c.market_ticker.is_(None), marked
    )
    lost = [LostQuotes(*row) for row in run(connection, found).fetchall()]
    run(connection, delete(STALE).where(LostQuotes.is_marker(STALE)))
    return lost


def add_later_minutes(connection: psycopg.Connection[Any]) -> None:
    """Add to `stale_minutes` the later candles that its quotes and gaps touch."""
    run(connection, insert(STALE).from_select(KEY, _later()))


def list_later_days(connection: psycopg.Connection[Any], end: datetime) -> None:
    """List as stale what `stale_minutes` touches from the instant `end` on."""
    later = _later().subquery("later")
    beyond = select(later.c.market_ticker, later.c.starts_at).where(later.c.starts_at >= end)
    run(connection, insert(tables.stale_candles).from_select(KEY, beyond))


def flag_lost_quotes(
    connection: psycopg.Connection[Any], interval: Interval, gap: LostQuotes
) -> dict[date, int]:
    """Flag the stored candles that a gap of all markets touches.

    Returns:
        How many were not flagged yet, by UTC day.
    """
    stored, quotes = interval.table, tables.quotes
    of_market = quotes.c.market_ticker == stored.c.market_ticker
    # A quote was known before the gap ended, and none that came after it stood at the start. What
    # began within the gap needs no quote before it: one may have been lost.
    earlier = exists().where(of_market, quotes.c.quoted_at < gap.ends_at)
    renewed = exists().where(
        of_market, quotes.c.quoted_at >= gap.ends_at, quotes.c.quoted_at <= stored.c.starts_at
    )
    first = interval.start_of(cast(gap.starts_at, stored.c.starts_at.type))
    touched = and_(
        stored.c.starts_at >= first,
        ~stored.c.quote_gap,
        or_(
            stored.c.starts_at < gap.ends_at,
            and_(~renewed, or_(stored.c.quoted_at < gap.ends_at, earlier)),
        ),
    )
    day = cast(func.timezone(literal_column("'UTC'"), stored.c.starts_at), Date).label("day")
    flagged = update(stored).where(touched).values(quote_gap=true()).returning(day).cte("flagged")
    per_day = select(flagged.c.day, func.count()).group_by(flagged.c.day)
    return dict(run(connection, per_day).fetchall())


def _later() -> Select[Any]:
    gaps = tables.gaps
    begun = Interval.ONE_MINUTE.start_of(gaps.c.starts_at)
    lost = (
        select(
            gaps.c.market_ticker,
            begun.label("starts_at"),
            func.max(gaps.c.ends_at).label("lost_until"),
        )
        .where(gaps.c.channel == TICKER_CHANNEL, gaps.c.market_ticker.is_not(None))
        .group_by(gaps.c.market_ticker, begun)
        .subquery("lost")
    )
    same_key = and_(*(lost.c[name] == STALE.c[name] for name in KEY))
    changed = select(STALE, lost.c.lost_until).select_from(STALE.outerjoin(lost, same_key))
    later = later_minutes(changed.subquery("changed")).subquery("later")
    return select(later.c.market_ticker, later.c.starts_at).distinct()
