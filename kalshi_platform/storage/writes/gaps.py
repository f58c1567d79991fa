"""Gaps: intervals in which a channel may have lost something."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from kalshi_platform.storage.texts import storable

# The exchange keeps trades readable over REST; no other channel can be asked again.
HEALABLE_CHANNELS = frozenset({"trade"})
_NO_REPLAY = "the exchange keeps no history of this channel; what was missed cannot be fetched"


@dataclass(frozen=True)
class Gap:
    """An interval [starts_at, ends_at] on the exchange's clock, and how it was noticed."""

    channel: str
    cause: str
    starts_at: datetime
    ends_at: datetime
    connection: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    detail: str | None = None
    market_ticker: str | None = None
    """The one market concerned; None: all of the channel."""


def open_gap(connection: psycopg.Connection, gap: Gap) -> int:
    """Record a gap; the caller commits. Trades wait for the healer, the rest is explained at once.

    Returns:
        The gap's id.
    """
    healable = gap.channel in HEALABLE_CHANNELS
    values: dict[str, Any] = {
        "channel": gap.channel,
        "cause": storable(gap.cause),
        "status": "open" if healable else "explained",
        "starts_at": min(gap.starts_at, gap.ends_at),
        "ends_at": gap.ends_at,
        "connection": gap.connection,
        "first_seq": gap.first_seq,
        "last_seq": gap.last_seq,
        "detail": _detail(gap, healable=healable),
        "market_ticker": gap.market_ticker,
    }
    row = connection.execute(
        "INSERT INTO gaps (channel, cause, status, starts_at, ends_at, connection, first_seq,"
        " last_seq, detail, market_ticker) VALUES (%(channel)s, %(cause)s, %(status)s,"
        " %(starts_at)s, %(ends_at)s, %(connection)s, %(first_seq)s, %(last_seq)s, %(detail)s,"
        " %(market_ticker)s) RETURNING gap_id",
        values,
    ).fetchone()
    assert row is not None, "INSERT … RETURNING has a row"
    return int(row[0])


def _detail(gap: Gap, *, healable: bool) -> str | None:
    if gap.detail:
        return storable(gap.detail)
    return None if healable else _NO_REPLAY
