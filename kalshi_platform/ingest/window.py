"""A window of time over REST: asked page by page, landed, compared, and resumable.

Healing a gap and sweeping a day are the same walk over windows of different lengths. Each page is
one transaction: its trades, its rejections and the position to continue from.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
import psycopg
import structlog
from psycopg import errors as postgres_errors

from kalshi_platform.exchange.answers import Cutoff, TradesPage
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import BadRequest
from kalshi_platform.exchange.messages import Trade
from kalshi_platform.exchange.rest import RestClient, Tier
from kalshi_platform.ingest.landing import land_rest_trades
from kalshi_platform.ingest.rejections import reject
from kalshi_platform.storage.reads.sweeps import HeldTrade, held_trades
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.sweeps import save_checkpoint
from kalshi_platform.storage.writes.trades import Landed

log = structlog.get_logger(__name__)

CHECKPOINTS = "rest"
CHUNK_SECONDS = 3600
_MICROS = 1_000_000
_LANDING_ATTEMPTS = 5
_is_canonical = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

# The source as the tables name it.
_SOURCES: dict[Tier, Literal["rest", "historical"]] = {"live": "rest", "historical": "historical"}


class Progress(msgspec.Struct):
    """How far a walk over [start, end) has come; instants are Unix seconds."""

    start: int
    end: int
    chunk_start: int
    """Everything before is done."""
    tiers_done: list[Tier] = []
    """Of the chunk that begins there."""
    cursor: str | None = None
    """Of the next page in `cursor_tier`."""
    cursor_tier: Tier | None = None
    reported: int = 0
    added: int = 0
    changed: int = 0
    rejected: int = 0
    contradicted: int = 0
    """Trades whose price, count, side or market differ from what is held under their id."""
    historical: int = 0
    """Of the reported, those of the historical tier."""

    @classmethod
    def over(cls, start: int, end: int) -> "Progress":
        return cls(start, end, chunk_start=start)

    @property
    def healed_by(self) -> str:
        return "historical" if self.historical else "rest"


def saved_progress(position: object) -> Progress | None:
    """A position as saved; None where another release saved it and it cannot be continued."""
    try:
        return msgspec.convert(position, Progress)
    except msgspec.ValidationError as error:
        log.warning("position_not_continued", reason=str(error))
        return None


def sweep_window(
    connection: psycopg.Connection,
    rest: RestClient,
    progress: Progress,
    scope: str,
    stop: threading.Event,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Walk from `progress` to its end, an hour at a time, over the tiers that hold the hours.

    Args:
        connection: not in a transaction; committed after each page.
        progress: moves on, and is saved with each page under `scope`.
        on_progress: is told the fraction done, never less than before.

    Raises:
        ExchangeError, Interrupted: the walk may be continued from the saved position.
    """
    tell = _Fraction(progress, on_progress)
    cutoff = rest.cutoff()
    while progress.chunk_start < progress.end:
        chunk_end = min(progress.chunk_start + CHUNK_SECONDS, progress.end)
        while True:
            for tier in _tiers(progress.chunk_start, chunk_end, cutoff):
                if tier not in progress.tiers_done:
                    _sweep_tier(connection, rest, progress, tier, chunk_end, scope, stop, tell)
            before, cutoff = cutoff, rest.cutoff()
            if not _moved_within(progress.chunk_start, chunk_end, before, cutoff):
                break
            # Trades went over to the historical tier while the live one was read.
            progress.tiers_done = []
        progress.chunk_start, progress.tiers_done = chunk_end, []
        save_checkpoint(connection, CHECKPOINTS, scope, msgspec.to_builtins(progress))
        connection.commit()
        tell(chunk_end)


def count_calls(connection: psycopg.Connection, rest: RestClient) -> None:
    """Add the client's counters to `ingestion_metrics`; the caller commits."""
    requests, retries = rest.drain_counts()
    counters = {
        ("rest_requests_total", f'endpoint="{count.endpoint}",outcome="{count.outcome}"'): number
        for count, number in requests.items()
    }
    counters |= {
        ("rest_retries_total", f'endpoint="{endpoint}"'): number
        for endpoint, number in retries.items()
    }
    add_to_counters(connection, counters)


def _tiers(start: int, end: int, cutoff: Cutoff) -> list[Tier]:
    """The tiers that hold [start, end): live first, so that a trade that changes over is seen."""
    held: list[Tier] = []
    if end > cutoff.trades_created_ts.timestamp():
        held.append("live")
    if start < cutoff.trades_created_ts.timestamp():
        held.append("historical")
    return held


def _moved_within(start: int, end: int, before: Cutoff, after: Cutoff) -> bool:
    first, second = before.trades_created_ts.timestamp(), after.trades_created_ts.timestamp()
    return first != second and start < max(first, second) and end > min(first, second)


def _sweep_tier(
    connection: psycopg.Connection,
    rest: RestClient,
    progress: Progress,
    tier: Tier,
    chunk_end: int,
    scope: str,
    stop: threading.Event,
    tell: "_Fraction",
) -> None:
    for page in _pages(rest, progress, tier, chunk_end):
        if stop.is_set():
            raise Interrupted("asked to stop")
        for attempt in range(_LANDING_ATTEMPTS):
            try:
                following = _land_page(connection, page, progress, tier, chunk_end, scope)
                connection.commit()
                break
            except postgres_errors.DeadlockDetected:
                connection.rollback()
                if attempt + 1 == _LANDING_ATTEMPTS:
                    raise
        for name in Progress.__struct_fields__:
            setattr(progress, name, getattr(following, name))
        if page.trades:
            oldest = min(trade.traded_at_micros for trade in page.trades) // _MICROS
            tell(progress.chunk_start + chunk_end - max(oldest, progress.chunk_start))


def _pages(
    rest: RestClient, progress: Progress, tier: Tier, chunk_end: int
) -> Iterator[TradesPage]:
    # Whether min_ts and max_ts belong to the window is not documented: a second more on the left
    # covers both readings, and what lies outside is left out.
    window = (tier, progress.chunk_start - 1, chunk_end)
    cursor = progress.cursor if progress.cursor_tier == tier else None
    if cursor is not None:
        try:
            first = rest.trades_page(*window, cursor)
        except BadRequest:
            # A cursor may have died with a restart of ours or theirs.
            cursor = None
        else:
            yield first
            cursor = first.cursor
            if cursor is None:
                return
    yield from rest.trade_pages(*window, cursor)


def _land_page(
    connection: psycopg.Connection,
    page: TradesPage,
    progress: Progress,
    tier: Tier,
    chunk_end: int,
    scope: str,
) -> Progress:
    """Write one page and the position after it; returns that position, good once committed."""
    source = _SOURCES[tier]
    start, end = progress.chunk_start * _MICROS, chunk_end * _MICROS
    inside = [trade for trade in page.trades if start <= trade.traded_at_micros < end]
    rejected = list(page.rejected)
    reported: dict[str, Trade] = {}
    for trade in inside:
        trade_id = _canonical(trade.trade_id)
        if trade_id is None:
            rejected.append((msgspec.json.encode(trade), "trade_id is not a UUID"))
        else:
            reported[trade_id] = trade
    held = _held(connection, reported)
    fresh = [
        trade for trade_id, trade in reported.items() if _tells_more(trade, held.get(trade_id))
    ]
    landed = Landed(0, 0, 0)
    if fresh:
        landed = land_rest_trades(connection, fresh, source=source, received_at=page.received_at)
    reject(connection, rejected, source, page.received_at)
    following = msgspec.structs.replace(
        progress,
        cursor=page.cursor,
        cursor_tier=tier,
        tiers_done=progress.tiers_done + ([tier] if page.cursor is None else []),
        reported=progress.reported + len(reported),
        added=progress.added + landed.added,
        changed=progress.changed + landed.changed,
        rejected=progress.rejected + len(rejected),
        contradicted=progress.contradicted
        + sum(_contradicts(trade, held.get(trade_id)) for trade_id, trade in reported.items()),
        historical=progress.historical + (len(reported) if tier == "historical" else 0),
    )
    save_checkpoint(connection, CHECKPOINTS, scope, msgspec.to_builtins(following))
    labels = f'source="{source}"'
    add_to_counters(
        connection,
        {
            ("events_ingested_total", labels): len(reported),
            ("trades_added_total", labels): landed.added,
            ("rejected_total", labels): len(rejected),
        },
    )
    return following


def _held(connection: psycopg.Connection, trades: Mapping[str, Trade]) -> dict[str, HeldTrade]:
    if not trades:
        return {}
    days = {
        datetime.fromtimestamp(trade.traded_at_micros // _MICROS, UTC).date()
        for trade in trades.values()
    }
    return held_trades(connection, days, trades)


def _canonical(trade_id: str) -> str | None:
    """The id as Postgres writes it; None where it is not 16 bytes in hexadecimal."""
    if _is_canonical(trade_id):
        return trade_id
    try:
        return str(UUID(bytes=bytes.fromhex(trade_id.replace("-", ""))))
    except ValueError:
        return None


def _tells_more(trade: Trade, held: HeldTrade | None) -> bool:
    """Whether landing it would add anything; a second sweep then writes nothing."""
    if held is None or not held.exact_time:
        return True
    return held.is_block_trade is None and trade.is_block_trade is not None


def _contradicts(trade: Trade, held: HeldTrade | None) -> bool:
    return held is not None and (
        trade.yes_price_micros,
        trade.count_centis,
        trade.taker_side,
        trade.market_ticker,
    ) != (held.yes_price_micros, held.count_centis, held.taker_side, held.market_ticker)


class _Fraction:
    """Turns an instant into a fraction done that never falls."""

    def __init__(self, progress: Progress, told: Callable[[float], None] | None) -> None:
        self._start = progress.start
        self._length = max(1, progress.end - progress.start)
        self._told = told
        self._last = 0.0

    def __call__(self, reached: int) -> None:
        fraction = min(1.0, (reached - self._start) / self._length)
        if self._told is not None and fraction > self._last:
            self._last = fraction
            self._told(fraction)
