"""Which candles no longer hold: minutes whose quotes changed, and gaps in the stream of quotes.

Whoever writes a quote or a gap calls these in the same transaction; a refresh works the list off
(see storage.writes.candles). Trades list their own minutes as they are merged.
"""

from collections.abc import Iterable
from datetime import datetime
from struct import Struct
from typing import Any

import psycopg

from kalshi_platform.storage.bulk import POSTGRES_EPOCH_MICROS, copy_binary, text_field
from kalshi_platform.transform.standing import ALL_MARKETS

_STALE = Struct(">hiq").pack
_MICROS_PER_MINUTE = 60_000_000


def mark_quoted(connection: psycopg.Connection[Any], minutes: Iterable[tuple[str, int]]) -> None:
    """List the minutes of new quotes as stale: (market_ticker, Unix minute); the caller commits."""
    rows = [
        _STALE(2, 8, minute * _MICROS_PER_MINUTE - POSTGRES_EPOCH_MICROS) + text_field(ticker)
        for ticker, minute in sorted(minutes)
    ]
    if rows:
        copy_binary(connection, "stale_candles", ("starts_at", "market_ticker"), rows)


def mark_gap(
    connection: psycopg.Connection[Any],
    starts_at: datetime,
    ends_at: datetime,
    market_ticker: str | None,
) -> None:
    """List the candles that a gap of channel `ticker` touches as stale; the caller commits.

    Only the minute in which it begins is listed. Which candles it reaches, the refresh finds when
    no other writer of candles is at work: here, one could be about to write them unseen.

    Args:
        starts_at, ends_at: as in the row of `gaps` that the same transaction writes.
        market_ticker: the one market concerned; None for all.
    """
    assert starts_at <= ends_at, "a gap ends after it began"
    first = int(starts_at.timestamp()) // 60
    mark_quoted(connection, [(ALL_MARKETS if market_ticker is None else market_ticker, first)])
