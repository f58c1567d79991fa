"""How old the data is: of each channel of the feed, and of each table, beside its limit.

A table's age is that of its newest rows. Channels are those of the stream alone: what a backfill
brings in makes no dead feed look fresh. What has just been started and has brought nothing yet is
starting, for some minutes; then it is late like anything else.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

# Older than this is late; what is not named may rightly be silent for hours.
SILENCE_SECONDS = {"trade": 60.0, "ticker": 60.0}
TABLE_SECONDS = {
    "raw_trades": 60.0,
    "quotes": 60.0,
    # Ordinary markets are quiet at night.
    "lifecycle_events": 3600.0,
    # They are refreshed each minute; answers stay right meanwhile, but cost more and more.
    "candles_1m": 300.0,
}
# Of books that nobody chose by name something happens all the time.
BUSY_BOOKS_SECONDS = 600.0
# From the start of a process to its first message: 10 to 30 s, as a rule.
STARTING_SECONDS = 180.0
# What `up` and the loader note when they start, by part.
STARTED = "started_at_seconds"

# One JSON object. Each newest row is read from the last pages of a partition, or from an index;
# raw_trades also holds what REST was asked for, which says nothing of the stream.
FRESHNESS = f"""json_build_object(
        'started_at', (SELECT to_timestamp(max(value)) FROM ingestion_metrics
                       WHERE name = '{STARTED}'),
        'raw_trades', newest_received_at('raw_trades', 'ws'),
        'quotes', newest_received_at('quotes'),
        'lifecycle_events', newest_received_at('lifecycle_events'),
        'book_deltas', newest_received_at('book_deltas'),
        'settlements', (SELECT greatest(max(effective_at), max(settled_at)) FROM settlements),
        'has_candles', EXISTS (SELECT FROM candles_1d))"""  # noqa: S608 (constants)


class Source(msgspec.Struct, frozen=True):
    """One channel of the feed; seconds, null where nothing is known yet.

    `lag` is from sent by the exchange to committed, for the newest message.
    """

    channel: str
    messages: int | None
    last_message_age: float | None
    limit: float | None
    lag: float | None
    late: bool
    starting: bool


class TableAge(msgspec.Struct, frozen=True):
    """One table; null where it has no row yet, or no limit.

    Of tables of the feed `age_seconds` is since their newest row was received, of settlements since
    the newest outcome took effect, of candles_1m since when the oldest of its candles has been out
    of date (0: all of them hold).
    """

    table: str
    age_seconds: float | None
    limit_seconds: float | None
    late: bool
    starting: bool


class FreshnessRead(msgspec.Struct):
    """The answer to FRESHNESS."""

    started_at: datetime | None
    raw_trades: datetime | None
    quotes: datetime | None
    lifecycle_events: datetime | None
    book_deltas: datetime | None
    settlements: datetime | None
    has_candles: bool


class Start:
    """Whether what is old may be so because all has just been started.

    Args:
        now: the database's clock.
        started_at: when something was last started that had been stopped.
        first_used_at: when the first exchange was recorded; None: never, so nothing can be late.
    """

    def __init__(
        self, now: datetime, started_at: datetime | None, first_used_at: datetime | None
    ) -> None:
        self._never = started_at is None and first_used_at is None
        known = [instant for instant in (started_at, first_used_at) if instant is not None]
        self._seconds = min(((now - instant).total_seconds() for instant in known), default=0.0)

    def judge(self, age: float | None, limit: float | None) -> tuple[bool, bool]:
        """Whether something of this age is late, and whether it is starting.

        Nothing is expected before the start, nor within the limit after it.
        """
        if limit is None or (age is not None and age <= limit):
            return False, False
        if age is not None and not self._never and age <= self._seconds:
            return True, False  # it has spoken since
        if self._never:
            return age is not None, age is None and limit <= STARTING_SECONDS
        if self._seconds < STARTING_SECONDS:
            return False, limit <= STARTING_SECONDS
        return self._seconds > limit, False

    def since(self) -> str:
        """How long ago, in words."""
        return "nothing has been recorded yet" if self._never else f"for {self._seconds:.0f} s"


def source_of(
    channel: str,
    age: float | None,
    start: Start,
    *,
    messages: float | None,
    lag: float | None,
) -> Source:
    """One channel; `age` is that of its last message in seconds."""
    limit = SILENCE_SECONDS.get(channel)
    late, starting = start.judge(age, limit)
    return Source(
        channel, None if messages is None else int(messages), age, limit, lag, late, starting
    )


def tables_from(
    read: FreshnessRead,
    now: datetime,
    start: Start,
    *,
    candles_age: float | None,
    book_choice: str | None,
) -> list[TableAge]:
    """Every table that is watched, as of `now`.

    Args:
        candles_age: since when the oldest candle has been out of date; None: none is.
        book_choice: the setting KALSHI_BOOKS of the recorder; None where none has told.
    """
    limits = dict(TABLE_SECONDS)
    if book_choice is not None and "busiest" in book_choice:
        limits["book_deltas"] = BUSY_BOOKS_SECONDS
    newest = {
        "raw_trades": read.raw_trades,
        "quotes": read.quotes,
        "lifecycle_events": read.lifecycle_events,
        "book_deltas": read.book_deltas,
        "settlements": read.settlements,
    }
    ages = {
        table: None if at is None else max(0.0, round((now - at).total_seconds(), 3))
        for table, at in newest.items()
    }
    ages["candles_1m"] = candles_age
    if candles_age is None and read.has_candles:
        ages["candles_1m"] = 0.0
    tables = []
    for table, age in ages.items():
        limit = limits.get(table)
        # Candles are due once something has traded.
        undue = table == "candles_1m" and age is None
        late, starting = (False, False) if undue else start.judge(age, limit)
        tables.append(TableAge(table, age, limit, late, starting))
    return tables


def freshness_reasons(
    sources: Iterable[Source], tables: Iterable[TableAge], start: Start
) -> list[str]:
    """What is late, and what has not begun, in words; a table whose channel is named is not."""
    reasons = [_sentence(f"{source.channel}: no message", source.last_message_age)
               for source in sources if source.late]  # fmt: skip
    named = {_TABLES.get(source.channel) for source in sources if source.late}
    for table in tables:
        if not table.late or table.table in named:
            continue
        if table.table == "candles_1m":
            reasons.append(f"candles have not been refreshed for {table.age_seconds:.0f} s")
        else:
            reasons.append(_sentence(f"{table.table}: no row", table.age_seconds))
    starting = [source.channel for source in sources if source.starting]
    begun = {_TABLES.get(channel) for channel in starting}
    starting += [table.table for table in tables if table.starting and table.table not in begun]
    if starting:
        reasons.append(f"starting ({start.since()}), nothing yet of: {', '.join(starting)}")
    return reasons


# Where a channel's messages go.
_TABLES = {"trade": "raw_trades", "ticker": "quotes"}


def _sentence(what: str, age: float | None) -> str:
    return f"{what} yet" if age is None else f"{what} for {age:.0f} s"
